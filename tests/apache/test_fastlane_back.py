"""What comes back from the fast lane to the adaptor."""

from __future__ import annotations

import contextlib
import http.client
import itertools
import json
import os
import re
import secrets
import signal
import socket
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from cluster import TIMEOUT, Cluster, apache, eventually
from corpus import prepare
from fast_site import (
    APP,
    MODES,
    PASSWORD,
    FastSite,
    available,
    available_text,
    callers_keys,
    gone,
    holder,
    listens,
    raw,
    replaced,
    undrain,
)

from lbadaptor.contract.address import State
from monitor.apacheconfig.apache_check import NEEDED
from monitor.demo import httpd
from tests.apache.resources import kill


@pytest.mark.parametrize("method", ["GET", "HEAD"])
def test_when_its_holder_is_gone_a_visitor_goes_elsewhere(fast: FastSite, method: str) -> None:
    visitor = fast.visitor()
    with gone(fast.cluster, visitor) as pid:
        answer, lane = fast.ask(visitor, "environ/a%20b?x=%20y&z", method)
    assert (answer.status_code, lane) == (200, "back after 503")
    if method == "HEAD":
        assert answer.content == b""
        assert int(answer.headers["Content-Length"]) > 100
    else:
        told = answer.json()
        assert told["pid"] != pid
        assert told["lost"]
        seen = told["seen"]
        assert (seen["PATH_INFO"], seen["QUERY_STRING"]) == ("/environ/a b", "x=%20y&z")
        assert seen["REQUEST_URI"] == "/environ/a%20b?x=%20y&z"
        assert seen["REQUEST_METHOD"] == "GET"
        assert not [key for key in seen if "REDIRECT" in key or "LB_" in key]
    visitor.close()


PLACES = [
    "/environ/a%20b%25c%3Fd;e=f/%C3%A9?x=%20y&z?",
    "/environ/http:%2F%2Felsewhere%2F/x?http://elsewhere/",
    "/environ//a///b/",
    "//environ/./a/../b?",
    "/environ/%0A%0D/%7F%80%FF?lbadaptor",
    "/environ/'\"<>|^`{}?'\"<>|^`{}lbadaptor1",
]


def test_a_mount_and_what_is_encoded_survive_the_way_back(embedded: FastSite) -> None:
    visitor = embedded.visitor()
    with gone(embedded.cluster, visitor):
        answer, lane = embedded.ask(visitor, "environ/a%25b%3F;x=/%C3%A9?%3F?")
    assert lane == "back after 503"
    assert answer.status_code == 200, answer.text
    seen = answer.json()["seen"]
    assert (seen["SCRIPT_NAME"], seen["PATH_INFO"]) == ("/deep/mount", "/environ/a%b?;x=/\xc3\xa9")
    assert seen["QUERY_STRING"] == "%3F?"
    visitor.close()


def test_all_lanes_tell_the_application_the_same_place(fast: FastSite) -> None:
    visitor = fast.visitor()

    def seen(target: str, lane: str, header: str) -> dict[str, str]:
        tag = secrets.token_hex(8)
        lines = ("Host: x", "Connection: close", f"Cookie: __PRT__={visitor.ticket}", f"X-Tag: {tag}", header)
        answer = raw(fast.site, f"GET {target} HTTP/1.1", *lines)
        assert fast.lane(tag) == lane
        told = json.loads(answer.partition(b"\r\n\r\n")[2])["seen"]
        return {name: told[name] for name in ("SCRIPT_NAME", "PATH_INFO", "QUERY_STRING", "REQUEST_URI")}

    fast_lane = [seen(target, "fast", "X: y") for target in PLACES]
    slow_lane = [seen(target, "slow", "Upgrade: the/slow-lane") for target in PLACES]
    with gone(fast.cluster, visitor):
        way_back = [seen(target, "back after 503", "X: y") for target in PLACES]
    assert fast_lane == slow_lane
    assert way_back == slow_lane
    visitor.close()


def test_a_page_of_apaches_own_choice_opens_no_other(fast: FastSite) -> None:
    """ErrorDocument may lead to the application: from what was refused, too, and not to it."""
    visitor = fast.visitor()
    answer, lane = fast.ask(visitor, "environ/closed/x?lbadaptor")
    assert lane == "back after 403"
    assert answer.json()["seen"]["PATH_INFO"] == "/environ/sorry"
    visitor.close()


def test_the_program_of_an_error_document_is_not_told_the_callers_key(cluster: Cluster) -> None:
    fast = FastSite(cluster, "embedded-debian")  # in CGI, the adaptor gets that page, too
    visitor, robot = fast.visitor(), fast.site.visitor()
    keys = callers_keys(cluster)
    assert len(keys) == 2
    with available(cluster, available_text(cluster)):
        told = [fast.ask(one, "environ/told-closed/x?a=b") for one in (visitor, robot)]
    with gone(cluster, visitor):
        told.append(fast.ask(visitor, "environ/told-gone/x"))
    assert [lane for _, lane in told] == ["back after 403", "back after 403", "back after 503"]
    for answer, _ in told:
        assert "\nREDIRECT_LBADAPTOR_GENERATION=" in answer.text
        assert not [key for key in keys if key in answer.text]
        assert "KEY=" not in answer.text
    for one in (visitor, robot):
        one.close()


def test_who_was_authorised_is_so_after_coming_back(fast: FastSite) -> None:
    visitor = fast.visitor()
    with gone(fast.cluster, visitor):
        assert fast.ask(visitor, "environ/private/x")[0].status_code == 401
        answer, lane = fast.ask(visitor, "environ/private/x", headers=PASSWORD)
    seen = answer.json()["seen"]
    assert (seen["REMOTE_USER"], seen["AUTH_TYPE"], lane) == ("somebody", "Basic", "back after 503")
    visitor.close()


def test_one_whose_process_dies_under_it_is_asked_again_elsewhere(fast: FastSite) -> None:
    visitor = fast.visitor()
    entry = holder(fast.cluster, visitor)
    pid = int(visitor.tell("plain")["pid"])
    visitor.http.close()  # of a later request on its connection, Apache says nothing, and browsers ask again
    gate = fast.cluster.gate()
    with ThreadPoolExecutor() as pool:
        asking = pool.submit(fast.ask, visitor, f"plain?gate={gate.name}")
        gate.reached()
        kill(pid)
        eventually("its port is free", lambda: not listens(entry.address))
        gate.reached()
        gate.open()
        answer, lane = asking.result(TIMEOUT)
    assert (answer.status_code, lane) == (200, "back after 502")
    assert answer.json()["pid"] != pid
    replaced(fast.cluster, entry)
    visitor.close()


def test_a_dying_one_still_gets_its_holders_and_refuses_the_others(fast: FastSite) -> None:
    visitor, robot = fast.visitor(), fast.site.visitor()
    entry = holder(fast.cluster, visitor)
    robot.http.cookies.set("__PRT__", entry.ticket)  # a ticket, and no session
    fast.cluster.lbctl("drain", str(entry.identity.slot))
    eventually("it is DYING", lambda: holder(fast.cluster, visitor).state is State.DYING)
    answer, lane = fast.ask(visitor, "count")
    assert (answer.json()["visits"], lane) == (2, "fast")
    # address.text says so a moment before the AppServer has got the order.
    eventually("it refuses the robot", lambda: fast.ask(robot, "plain")[1] == "back after 421")
    answer, lane = fast.ask(robot, "plain")
    assert (answer.status_code, lane) == (200, "back after 421")
    assert answer.json()["slot"] != entry.identity.slot
    undrain(fast.cluster, entry)
    fast.ask(visitor, "logout")
    for one in (visitor, robot):
        one.close()


@contextlib.contextmanager
def moved_to(path: str, identity: object) -> Iterator[list[str]]:
    """Who asks at this Unix socket is told that the session is at another AppServer.

    Yields the heads that came with a ticket. What httpd was waited for with brings none, and may be late.
    """
    heads: list[str] = []
    refusal = "\r\n".join(
        (
            "HTTP/1.1 421 Misdirected Request",
            *("LB-Refused: MOVED", f"LB-Moved-To: {identity}", "LB-Status: DYING", "LB-Load: 0/2/0"),
            *("Content-Length: 0", "Connection: close", "", ""),
        )
    )

    def serve(listener: socket.socket) -> None:
        while True:
            with contextlib.suppress(ConnectionError), listener.accept()[0] as caller:
                head = b""
                while b"\r\n\r\n" not in head and (more := caller.recv(65536)):
                    head += more
                if b"\r\nCookie: " in head:  # the monitor may think what it likes
                    heads.append(head.decode("latin-1"))
                caller.sendall(refusal.encode())

    found = os.stat(path)
    os.unlink(path)
    with socket.socket(socket.AF_UNIX) as listener, ThreadPoolExecutor(1) as pool:
        listener.bind(path)
        os.chown(path, found.st_uid, found.st_gid)
        os.chmod(path, found.st_mode)
        listener.listen()
        pool.submit(serve, listener)
        try:
            yield heads
        finally:
            listener.shutdown(socket.SHUT_RDWR)  # accept raises OSError


def test_who_has_moved_comes_back_to_the_adaptor_and_follows(new_cluster: Callable[..., Cluster]) -> None:
    cluster = new_cluster(app=APP, appservers={"servers": 2})
    prepare(cluster.folder)
    before, now = cluster.table().entries
    cookies = f"__PRT__={before.ticket}; sid=abc"
    socket_ = cluster.settings.unix_socket(before.identity.slot)
    with cluster.stopped_monitor(), moved_to(socket_, now.identity) as heads:
        for fast, method in itertools.product([FastSite(cluster, name) for name in MODES], ("GET", "HEAD")):
            heads.clear()
            visitor = fast.site.visitor()
            answer, lane = fast.ask(visitor, "plain?a=%20b", method, headers={"Cookie": cookies})
            assert (answer.status_code, lane) == (200, "back after 421")
            assert [name for name in answer.headers if name.lower().startswith("lb")] == []
            if method == "GET":
                assert answer.json()["slot"] == now.identity.slot
            assert ["\r\nLB-Variables: " in head for head in heads] == [True, False]  # the fast lane's first
            for head in heads:
                assert head.startswith(f"{method} ")
                assert "?a=%20b HTTP/1.1\r\n" in head
                assert f"\r\nCookie: {cookies}\r\n" in head
                assert "\r\nLB-Session: held\r\n" in head
            visitor.close()


@pytest.mark.parametrize("maps", [True, False])
def test_a_file_of_an_earlier_release_goes_on_working(new_cluster: Callable[..., Cluster], maps: bool) -> None:
    cluster = new_cluster(app=APP, appservers={"servers": 2})
    port = cluster.settings.appservers.base_port
    text = Path(__file__).with_name("earlier_fast_lane.conf").read_text()
    words = {"RUN": cluster.settings.run_folder, "SHARE": httpd.SHARE, "PORT0": port, "PORT1": port + 1}
    for name, word in words.items():
        text = text.replace(f"@{name}@", str(word))
    text = text if maps else text.replace("<IfFile ", "<IfFile !")
    log = cluster.folder / "earlier.log"
    modules = "".join(f"LoadModule {name}_module {apache('debian').modules}/mod_{name}.so\n" for name in NEEDED)
    extra = f'{modules}{text}CustomLog {log} "%U %{{LBADAPTOR_GENERATION}}e"\n'
    before, now = cluster.table().entries
    socket_ = cluster.settings.unix_socket(before.identity.slot)
    with cluster.stopped_monitor(), moved_to(socket_, now.identity) as heads:
        site = cluster.site("embedded-debian", extra=extra)
        robot = site.visitor()
        assert (
            robot.tell("plain", headers={"Cookie": f"__PRT__={before.ticket}; sid=abc"})["slot"] == now.identity.slot
        )
    assert "\r\nLB-Variables: " in heads[0]
    assert "\r\nLB-Session: held\r\n" in heads[0]
    visitor = site.visitor()
    assert visitor.count()["visits"] == 1
    assert visitor.count()["visits"] == 2
    eventually("all are logged", lambda: log.read_text().count("/count ") == 2)
    assert re.findall(r"/count (-|\d)", log.read_text()) == ["-", "1"]
    for one in (visitor, robot):
        one.close()


def test_one_that_is_failing_is_the_adaptors_business(new_cluster: Callable[..., Cluster]) -> None:
    monitor = {"probe_interval": 0.1, "probe_timeout": 0.3, "fall": 2, "failing_limit": 20}
    cluster = new_cluster(app=APP, appservers={"servers": 2}, monitor=monitor)
    prepare(cluster.folder)
    with no_unix_sockets(cluster):  # the adaptor goes by TCP, of which one can see what nobody has read
        fast = FastSite(cluster, "embedded-debian")
        visitor = fast.site.visitor()
        visitor.count(method="POST")
    pid = int(visitor.tell("plain")["pid"])
    keys = cluster.settings.caller_keys_file
    eventually("its key is there", lambda: holder(cluster, visitor).ticket in keys.read_text())
    os.kill(pid, signal.SIGSTOP)
    eventually("it is FAILING", lambda: holder(cluster, visitor).state is State.FAILING)
    eventually("its key is taken away", lambda: holder(cluster, visitor).ticket not in keys.read_text())
    with ThreadPoolExecutor() as pool:
        asking = pool.submit(fast.ask, visitor, "count")
        eventually("the adaptor asks it", lambda: unread(holder(cluster, visitor).address))
        os.kill(pid, signal.SIGCONT)
        answer, lane = asking.result(TIMEOUT)
    assert (answer.json()["visits"], lane) == (2, "slow")
    eventually("it is OK again, and Apache asks it", lambda: fast.ask(visitor, "count")[1] == "fast")
    visitor.close()


@contextlib.contextmanager
def no_unix_sockets(cluster: Cluster) -> Iterator[None]:
    """Nobody who connects meanwhile finds them."""
    folder = cluster.settings.socket_folder
    hidden = folder.rename(folder.with_name("hidden"))
    yield
    hidden.rename(folder)


def unread(address: tuple[str, int]) -> bool:
    """Whether bytes that nobody has read wait at an address."""
    port = f":{address[1]:04X}"
    for line in Path("/proc/net/tcp").read_text().splitlines()[1:]:
        fields = line.split()
        if fields[1].endswith(port) and int(fields[4].partition(":")[2], 16):
            return True
    return False


def test_no_answer_in_time_is_not_asked_again(new_cluster: Callable[..., Cluster]) -> None:
    monitor = {"probe_interval": 0.1, "probe_timeout": 0.2, "fall": 3, "failing_limit": 0.5}
    cluster = new_cluster(app=APP, appservers={"servers": 1}, adaptor={"answer_timeout": 2}, monitor=monitor)
    prepare(cluster.folder)
    with cluster.stopped_monitor():  # with so short limits it would end one that stands still for a moment
        fast = FastSite(cluster, "embedded-debian")
        visitor = fast.visitor()
        visitor.http.close()
        gate = cluster.gate()
        answer, lane = fast.ask(visitor, f"plain?gate={gate.name}")
        assert (answer.status_code, lane) == (504, "back after 502")
        gate.reached()
        gate.open()
        visitor.close()


def test_a_release_costs_no_request_and_needs_no_reload(cluster: Cluster) -> None:
    fast = FastSite(cluster, "embedded-debian")
    visitor = fast.visitor()
    before = visitor.count()["pid"]
    cluster.lbctl("restart")
    eventually("everybody is replaced", lambda: not cluster.status()["release"])
    assert visitor.count()["pid"] == before
    visitor.tell("logout")
    visitor.forget()
    assert visitor.count()["pid"] != before
    assert fast.ask(visitor, "count")[1] == "fast"
    visitor.close()


def test_made_up_tickets_leave_nothing(embedded: FastSite) -> None:
    """mod_rewrite remembers what it did not find, until address.text is written anew; and that is never long."""

    def resident() -> int:
        parent = embedded.site.httpd.pid
        children = Path(f"/proc/{parent}/task/{parent}/children").read_text().split()
        return max(int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * 4096 for pid in children)

    def ask(first: int) -> None:
        for number in range(first, first + 500):
            ticket = {"Cookie": f"__PRT__=0.{number}.{'x' * 43}"}
            robot.request("HEAD", "/deep/mount/plain", headers=ticket)
            with robot.getresponse() as answer:
                assert answer.status == 200

    robot = http.client.HTTPConnection("127.0.0.1", embedded.site.port, timeout=TIMEOUT)
    with contextlib.closing(robot):
        ask(10**12)
        before = resident()
        for turn in range(1, 5):
            ask(10**12 + 500 * turn)
        assert resident() - before < 4 * 1024 * 1024
