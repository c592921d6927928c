"""Debian's Apache with each mpm besides event, which all other tests have, and with each mod_wsgi: both lanes, two
applications by path and by name, and `apache2ctl graceful` under load.
"""

from __future__ import annotations

import contextlib
import os
import socket
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import requests
from cluster import INSTALLATIONS, TIMEOUT, Cluster, Load, Site, Visitor, eventually, running_cluster
from debian import DebianApache

from tests.apache.resources import kill

MPMS = [("worker", "pypi"), *(("prefork", name) for name in INSTALLATIONS)]
"""worker has threads as event has"""
LANES = ("fast", "python")
SLOW = (("fast", "GET"), ("python", "GET"), ("python", "POST"))
SIZE = 12 << 20
"""Bytes of an answer that no buffer on the way to a visitor holds."""
OLD_SECONDS = 10.0
"""within which a process ends after its last request, at a graceful restart: Apache looks once a second"""


class Patient(Visitor):
    """Sends a request of any method again, if a kept connection was closed before the answer began, as browsers do.

    Apache closes kept connections at a graceful restart, and a request may be on its way there. Had it been served,
    the visits would be counted wrong.
    """

    def get(self, page: str, method: str = "GET", **options: Any) -> requests.Response:
        try:
            return super().get(page, method, **options)
        except requests.ConnectionError:
            if not self._answered:
                raise
        return super().get(page, method, **options)


class PatientSite(Site):
    def visitor(self) -> Visitor:
        return Patient(self.url)


class Machine(NamedTuple):
    """An Apache, and two applications with a monitor each."""

    apache: DebianApache
    shop: Cluster
    board: Cluster

    def site(self, lane: str, mount: str = "") -> Site:
        """The shop's, where most requests take this lane."""
        site = PatientSite(self.shop, self.apache, "embedded", mount, lane == "fast")
        if lane == "python":
            site.url = site.url.replace(f":{self.apache.port}", f":{self.apache.python_port}")
            site.port = self.apache.python_port
        return site


@pytest.fixture(scope="module")
def clusters() -> Iterator[list[Cluster]]:
    with ExitStack() as stack:
        monitor = {"probe_interval": 0.1, "backoff_limit": 0.1}
        yield [
            stack.enter_context(
                running_cluster(appservers={"servers": servers}, application=application, monitor=monitor)
            )
            for servers, application in ((2, {}), (1, {"ticket_cookie": "__BOARD__"}))
        ]


@pytest.fixture(scope="module", params=MPMS, ids="-".join)
def machine(clusters: list[Cluster], request: pytest.FixtureRequest) -> Iterator[Machine]:
    """Set up as docs/howto/several-applications.md says, and a virtual host on a port of its own besides."""
    shop, board = clusters
    mpm, installation = request.param
    apache = DebianApache(shop.folder / f"{mpm}-{installation}", shop, mpm, installation)
    # Debian gives a body 10 s, and more for bytes that come (reqtimeout.conf): `Slow` waits for all others.
    apache.enable("slow-visitors", f"RequestReadTimeout body={TIMEOUT:.0f}\n")
    below = apache.file(board, "board-mount", "--mount", "/board")
    whole = apache.file(shop, "shop", "--keep-out", "/board")
    apache.host("www.example.com", apache.port, below, whole)
    apache.host("board.example.com", apache.port, apache.file(board, "board"))
    apache.host("www.example.com", apache.python_port, apache.file(shop, "python", "--lanes", "python"))
    shop.begin(apache)
    yield Machine(apache, shop, board)
    assert apache.took_the_fast_lane(apache.port)
    assert not apache.took_the_fast_lane(apache.python_port)
    apache.stop()  # now, not with the cluster: fewer processes for the next one


@pytest.mark.parametrize("lane", LANES)
def test_visitors_stay_and_only_those_of_a_killed_appserver_lose_their_session(machine: Machine, lane: str) -> None:
    site = machine.site(lane)
    unlucky, other = site.visitors(2)
    for visitor in (unlucky, other):
        home = visitor.count()["pid"]
        body = os.urandom(300_000)
        told = visitor.get("echo", "POST", data=body)
        assert (told.status_code, told.content) == (200, body)
        assert visitor.count(method="POST", data=body)["body"] == len(body)
        assert visitor.count()["pid"] == home
    kill(unlucky.tell("plain")["pid"])
    unlucky.forget()
    assert unlucky.count()["lost"]
    assert not unlucky.count()["lost"]
    assert not other.count()["lost"]
    for visitor in (unlucky, other):
        assert visitor.tell("logout")["known"]
        visitor.close()
    machine.shop.await_ok()


def test_each_path_and_each_name_has_its_own_application(machine: Machine) -> None:
    shop, by_path = (machine.site("fast", mount).visitor() for mount in ("", "/board"))
    by_name = machine.site("fast").visitor()
    by_name.http.headers["Host"] = "board.example.com"
    [board] = machine.board.status()["appservers"]
    for _ in range(2):
        for visitor, ours in ((shop, False), (by_path, True), (by_name, True)):
            assert (visitor.count()["pid"] == board["pid"]) == ours
            assert (visitor.count(method="POST")["pid"] == board["pid"]) == ours
    assert set(shop.http.cookies.keys()) == {"sid", "__PRT__"}
    for visitor in (by_path, by_name):
        assert set(visitor.http.cookies.keys()) == {"sid", "__BOARD__"}
    for visitor in (shop, by_path, by_name):
        assert visitor.tell("logout")["known"]
        visitor.close()


class Slow:
    """A visitor with a connection of their own, who does a part of a request, and the rest `at_last`."""

    def __init__(self, site: Site, method: str) -> None:
        self._method = method
        self._connection = socket.socket()
        self._connection.settimeout(TIMEOUT)
        self._connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        self._connection.connect(("127.0.0.1", site.port))
        page = f"/large?size={SIZE}" if method == "GET" else "/count"
        lines = [f"{method} {page} HTTP/1.1", "Host: www.example.com", "Connection: close"]
        if method == "POST":
            lines.append("Content-Length: 6000")
        self._connection.sendall("\r\n".join([*lines, "", ""]).encode() + b"b" * (3000 if method == "POST" else 0))
        self._answer = self._connection.recv(100) if method == "GET" else b""

    def at_last(self) -> None:
        if self._method == "POST":
            self._connection.sendall(b"b" * 3000)
        self._connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 20)
        with self._connection.makefile("rb") as rest:
            head, _, body = (self._answer + rest.read()).partition(b"\r\n\r\n")
        self._connection.close()
        assert head.startswith(b"HTTP/1.1 200 "), head
        assert b'"body": 6000' in body if self._method == "POST" else len(body) == SIZE


def test_a_graceful_restart_under_load_loses_nothing_and_the_old_processes_end(machine: Machine) -> None:
    apache = machine.apache
    log_size = apache.error_log.stat().st_size
    with ExitStack() as stack:
        loads = [
            stack.enter_context(Load(machine.site(lane), visitors=1, length=6, keep_alive=keep_alive))
            for lane in LANES
            for keep_alive in (True, False)
        ]
        slow = [Slow(machine.site(lane), method) for lane, method in SLOW]
        for load in loads:
            load.go_on(4)
        before = apache.children()
        apache.reload()
        eventually("new processes serve", lambda: apache.children() - before)
        for load in loads:
            load.go_on(8)
        assert before & apache.children(), "those with a slow visitor go on"
        for visitor in slow:
            visitor.at_last()
        eventually("the old processes end", lambda: before.isdisjoint(apache.children()), OLD_SECONDS)
        for load in loads:
            load.go_on(4)
    said = apache.error_log.read_bytes()[log_size:].decode().splitlines()
    assert not [line for line in said if ":notice]" not in line]


def private_memory(pid: int) -> int:
    """Bytes that a process shares with no other one."""
    lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    return 1024 * sum(int(line.split()[1]) for line in lines if line.startswith("Private_"))


def test_in_daemon_mode_apaches_own_processes_have_no_python(clusters: list[Cluster]) -> None:
    """As docs/howto/mpm.md says for prefork."""
    shop = clusters[0]
    apache = DebianApache(shop.folder / "prefork-daemon", shop, "prefork", "debian")
    apache.host("www.example.com", apache.port, apache.file(shop, "shop", "--mode", "daemon"))
    apache.enable("wsgi-daemon-only", "WSGIRestrictEmbedded On\n")
    shop.begin(apache)
    with contextlib.closing(Site(shop, apache, "daemon", "", True).visitor()) as visitor:
        home = visitor.count()["pid"]
        assert visitor.count(method="POST")["pid"] == visitor.count()["pid"] == home
        assert visitor.tell("logout")["known"]
    commands = {pid: Path(f"/proc/{pid}/cmdline").read_bytes() for pid in apache.children()}
    own = [pid for pid, command in commands.items() if command.startswith(b"apache2")]
    assert own
    assert max(map(private_memory, own)) < 4 << 20  # with a Python it is three times as much
    apache.stop()
