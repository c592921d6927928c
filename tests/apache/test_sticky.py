"""The whole under a real Apache httpd: visitors, tickets, fail-over, limits, releases, and what passes through."""

from __future__ import annotations

import base64
import contextlib
import http.client
import json
import os
import re
import signal
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import requests
from cluster import INSTALLATIONS, LANES, SITES, Cluster, Load, Site, eventually, running_cluster

from lbadaptor.contract.address import State, Table, write
from monitor.demo import httpd

NewCluster = Callable[..., Cluster]

ONE_PROCESS = "StartServers 1\nServerLimit 1\nMaxRequestWorkers 25\n"
TICKET = re.compile(r"(\d+)\.(\d+)\.[A-Za-z0-9_-]{43}")


def raw(
    site: Site, target: str, method: str = "GET", headers: dict[str, Any] | None = None, body: Any = None
) -> tuple[int, http.client.HTTPMessage, bytes]:
    """A request exactly as it is given here."""
    connection = http.client.HTTPConnection("127.0.0.1", site.port, timeout=30)
    with contextlib.closing(connection):
        connection.putrequest(method, target, skip_host="Host" in (headers or {}), skip_accept_encoding=True)
        for name, value in (headers or {}).items():
            connection.putheader(name, value)
        connection.endheaders(body)
        answer = connection.getresponse()
        return answer.status, answer.headers, answer.read()


# Who goes where.


def test_four_visitors_keep_their_own_appservers(site: Site) -> None:
    visitors = site.visitors(4)
    homes = [visitor.ticket for visitor in visitors]
    for _ in range(3):
        for visitor, home in zip(visitors, homes, strict=True):
            told = visitor.count()
            assert home is not None
            assert home.startswith(f"{told['slot']}.{told['generation']}.")
            assert visitor.ticket == home
            assert told["lost"] is False
    for visitor in visitors:
        visitor.close()


@pytest.mark.parametrize(("page", "method"), [("plain", "GET"), ("plain", "HEAD"), ("nowhere", "GET")])
def test_a_visitor_without_a_session_gets_no_cookie(site: Site, page: str, method: str) -> None:
    with requests.Session() as http:
        http.trust_env = False
        answer = http.request(method, f"{site.url}/{page}", timeout=30)
    assert "Set-Cookie" not in answer.headers
    assert answer.status_code == (404 if page == "nowhere" else 200)


def test_a_ticket_holds_slot_generation_and_signature_and_nothing_else(site: Site) -> None:
    visitor = site.visitor()
    answer = visitor.get("count")
    cookies = answer.raw.headers.getlist("Set-Cookie")
    visitor.close()
    (ticket,) = [cookie for cookie in cookies if cookie.startswith("__PRT__=")]
    value, *attributes = ticket.removeprefix("__PRT__=").split("; ")
    entry = site.cluster.entry(value)
    found = TICKET.fullmatch(value)
    assert found is not None
    assert entry is not None
    assert found.groups() == (str(entry.identity.slot), str(entry.identity.generation))
    assert sorted(attributes) == ["HttpOnly", "Path=/"]
    assert "private" in answer.headers["Cache-Control"]


def test_a_ticket_goes_with_the_session_at_logout(site: Site) -> None:
    visitor = site.visitor()
    visitor.count()
    visitor.count()
    assert visitor.ticket
    assert visitor.tell("logout")["known"]
    assert list(visitor.http.cookies) == []
    visitor.forget()
    assert visitor.count()["new"]
    visitor.close()


@pytest.mark.parametrize(
    "cookie",
    [
        b"__PRT__=",
        b"__PRT__=garbage",
        b"__PRT__=0.1.AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA",
        b"__PRT__=99999999999999999999.1.AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA",
        b"__PRT__=" + b"x" * 8000,
        b"__PRT__=\xff\xfe\xc3\xa9; other=\xe9",
        b'__PRT__="0.1.x"; __PRT__=; __PRT__',
        b"; ".join(b"__PRT__=%d.1.x" % number for number in range(200)),
    ],
    ids=["empty", "garbage", "forged", "huge slot", "enormous", "not ASCII", "odd", "two hundred"],
)
def test_whatever_stands_in_the_ticket_cookie_the_visitor_is_served(site: Site, cookie: bytes) -> None:
    status, headers, body = raw(site, "/count", headers={"Cookie": cookie})
    told = json.loads(body)
    assert (status, told["visits"], told["lost"]) == (200, 1, False)
    assert any(value.startswith("__PRT__=") for value in headers.get_all("Set-Cookie", []))


def test_of_several_tickets_the_one_that_is_held_decides(site: Site) -> None:
    visitor = site.visitor()
    told = visitor.count()
    ticket, sid = visitor.ticket, visitor.http.cookies["sid"]
    visitor.close()
    slot, generation, signature = str(ticket).split(".")
    forged = f"{slot}.{int(generation) + 1}.{signature}"
    for tickets in ([forged, ticket], [ticket, forged], [forged, ticket, forged]):
        cookie = "; ".join([*(f"__PRT__={value}" for value in tickets), f"sid={sid}"])
        again = json.loads(raw(site, "/count", headers={"Cookie": cookie})[2])
        assert again["pid"] == told["pid"]
        assert not again["new"]


# What passes through.


@pytest.mark.parametrize("size", [0, 1, 70_000, 1_000_000])
def test_a_posted_body_reaches_the_application_whole(site: Site, size: int) -> None:
    body = os.urandom(size)
    status, headers, echo = raw(site, "/echo", "POST", {"Content-Length": str(size), "Content-Type": "x/y"}, body)
    assert (status, headers["X-Method"], headers["Content-Type"]) == (200, "POST", "x/y")
    assert echo == body


@pytest.mark.parametrize("size", [5, 1_000_000])
def test_a_chunked_body_reaches_the_application_whole(site: Site, size: int) -> None:
    body = os.urandom(size)
    pieces = (body[start : start + 100_000] for start in range(0, size, 100_000))
    visitor = site.visitor()
    answer = visitor.get("echo", "PUT", data=pieces)
    visitor.close()
    assert (answer.status_code, answer.headers["X-Method"]) == (200, "PUT")
    assert answer.content == body


def test_head_reaches_the_application_as_head_and_has_no_body(site: Site) -> None:
    connection = http.client.HTTPConnection("127.0.0.1", site.port, timeout=30)
    with contextlib.closing(connection):
        connection.request("HEAD", "/echo")
        head = connection.getresponse()
        assert (head.status, head.headers["X-Method"], head.read()) == (200, "HEAD", b"")
        connection.request("GET", "/plain")  # on the same connection: nothing of a body stands before it
        assert json.loads(connection.getresponse().read())["method"] == "GET"


def test_an_answer_without_content_stays_one(site: Site) -> None:
    connection = http.client.HTTPConnection("127.0.0.1", site.port, timeout=30)
    with contextlib.closing(connection):
        connection.request("GET", "/empty")
        answer = connection.getresponse()
        assert (answer.status, answer.headers["X-Page"], answer.read()) == (204, "empty", b"")
        assert answer.headers["Transfer-Encoding"] is None
        connection.request("GET", "/plain")
        assert connection.getresponse().status == 200


def test_the_applications_own_error_page_passes(site: Site) -> None:
    status, _, body = raw(site, "/nowhere")
    assert (status, body) == (404, b"no such page")


def test_a_streamed_answer_comes_as_it_is_made(site: Site) -> None:
    gate = site.cluster.gate()
    visitor = site.visitor()
    answer = visitor.get(f"stream?gate={gate.name}", stream=True)
    lines = answer.iter_lines(chunk_size=1)
    assert next(lines) == b"first"  # while the application still waits
    gate.reached()
    gate.open()
    assert list(lines) == [b"second"]
    visitor.close()


def test_a_visitors_lb_headers_do_not_reach_the_application(site: Site) -> None:
    forged = {
        "LB-Session": "lost",
        "LB-Remote-Addr": "6.6.6.6",
        "LB-Remote-User": "root",
        "LB-Script-Name": "/x",
        "LB-Path": "/x/y",
        "LB-Key": "0",
        "LB-Generation": "1",
        "LB-Probe": "0",
        "LB-Var-EVIL": "1",
        "LB_Var_EVIL": "1",
        "lb-request-method": "DELETE",
        "Connection": "LB-Key, LB-Generation, close",
        "Cookie": "sid=1",
    }
    status, headers, body = raw(site, "/environ", headers=forged)
    told = json.loads(body)["seen"]
    assert status == 200
    assert (told["REMOTE_ADDR"], told["PATH_INFO"], told["SCRIPT_NAME"]) == ("127.0.0.1", "/environ", "")
    assert (told["REQUEST_METHOD"], told["lbadaptor.session_lost"]) == ("GET", False)
    assert "REMOTE_USER" not in told
    assert [name for name in told if "EVIL" in name or name.startswith("HTTP_LB")] == []
    assert [name for name in headers if name.lower().startswith("lb-")] == []


def test_the_probe_is_not_to_be_had_from_outside(site: Site) -> None:
    status, _, body = raw(site, "/__lb__/status", headers={"LB-Probe": "0"})
    assert (status, body) == (404, b"no such page")


def test_authorization_passes(site: Site) -> None:
    visitor = site.visitor()
    told = visitor.tell("environ", auth=("somebody", "secret"))["seen"]
    visitor.close()
    assert base64.b64decode(told["HTTP_AUTHORIZATION"].removeprefix("Basic ")) == b"somebody:secret"


# Under a mount.


@pytest.fixture(scope="module")
def one_appserver() -> Iterator[Cluster]:
    with running_cluster(appservers={"servers": 1}) as cluster:
        yield cluster


@pytest.fixture(scope="module", params=SITES)
def mounted(one_appserver: Cluster, request: pytest.FixtureRequest) -> Site:
    return one_appserver.site(request.param, "/app")


def test_a_mount_is_script_name_and_the_tickets_path_is_the_session_cookies(mounted: Site) -> None:
    visitor = mounted.visitor()
    told = visitor.tell("environ/x")["seen"]
    assert (told["SCRIPT_NAME"], told["PATH_INFO"]) == ("/app", "/environ/x")
    assert told["SERVER_PORT"] == str(mounted.port)
    for path, page in (("/app", "count"), ("/app/deep", "count?path=/app/deep")):
        visitor.http.cookies.clear()
        visitor.get(page)
        assert {(cookie.name, cookie.path) for cookie in visitor.http.cookies} == {("sid", path), ("__PRT__", path)}
    visitor.close()


def test_outside_the_mount_there_is_no_adaptor(mounted: Site) -> None:
    assert raw(mounted, "/elsewhere")[0] in (403, 404)


# An AppServer dies.


def test_a_killed_appservers_visitor_goes_on_elsewhere_and_the_others_notice_nothing(
    site: Site, record_property: Callable[[str, object], None]
) -> None:
    unlucky, *others = site.visitors(4)
    pid, home = unlucky.count()["pid"], unlucky.ticket
    entry = site.cluster.entry(home)
    assert entry is not None
    sid = unlucky.http.cookies["sid"]
    over = threading.Event()

    def go_on(visitor: Any) -> None:
        first = visitor.count()["pid"]
        while not over.is_set():
            assert visitor.count()["pid"] == first

    with ThreadPoolExecutor() as pool:
        goings = [pool.submit(go_on, visitor) for visitor in others]
        began = time.monotonic()
        os.kill(pid, signal.SIGKILL)
        try:
            told = unlucky.tell("count")
            assert (told["visits"], told["new"], told["lost"]) == (1, True, True)
            assert told["pid"] != pid
            eventually("the dead one's ticket is out of address.text", lambda: not site.cluster.entry(home))
            table = site.cluster.await_ok()
            back = (time.monotonic() - began) * 1000
        finally:
            over.set()
        for going in goings:
            going.result()
    record_property("slot_back_ms", round(back))
    print(f"{site.mode}: the slot is back after {back:.0f} ms")
    (again,) = [one for one in table.entries if one.identity.slot == entry.identity.slot]
    assert again.identity.generation > entry.identity.generation
    assert unlucky.http.cookies["sid"] != sid
    told = unlucky.tell("count")  # lost once, at home again
    assert (told["visits"], told["lost"]) == (2, False)
    for visitor in (unlucky, *others):
        visitor.close()


def test_parallel_requests_of_a_visitor_who_lost_their_appserver_go_to_one_appserver(site: Site) -> None:
    visitor = site.visitor()
    pid, home = visitor.count()["pid"], visitor.ticket
    os.kill(pid, signal.SIGKILL)
    eventually("the dead one is out of address.text", lambda: not site.cluster.entry(home))
    site.cluster.await_ok()
    cookie = f"__PRT__={home}; sid={visitor.http.cookies['sid']}"
    visitor.close()
    with ThreadPoolExecutor(12) as pool:
        answers = list(pool.map(lambda _: raw(site, "/plain", headers={"Cookie": cookie}), range(12)))
    told = [json.loads(body) for _, _, body in answers]
    assert len({one["pid"] for one in told}) == 1
    assert all(one["lost"] for one in told)


def test_without_the_old_session_cookie_no_loss_is_reported(site: Site) -> None:
    visitor = site.visitor()
    pid, home = visitor.count()["pid"], visitor.ticket
    os.kill(pid, signal.SIGKILL)
    del visitor.http.cookies["sid"]
    told = visitor.tell("count")
    assert (told["new"], told["lost"]) == (True, False)
    assert visitor.ticket not in ("", home)
    visitor.close()
    site.cluster.await_ok()


def test_a_get_that_was_at_work_when_its_appserver_died_is_repeated_elsewhere_and_a_post_is_not(site: Site) -> None:
    visitor = site.visitor()
    pid = visitor.count()["pid"]
    gates = [site.cluster.gate() for _ in range(2)]
    with ThreadPoolExecutor() as pool:
        answers = [
            pool.submit(visitor.get, f"plain?gate={gate.name}", method)
            for gate, method in zip(gates, ("GET", "POST"), strict=True)
        ]
        try:
            for gate in gates:
                gate.reached()
            os.kill(pid, signal.SIGKILL)
            assert answers[1].result().status_code == 502
            eventually("it is gone, and has let go of the gate", lambda: not Path(f"/proc/{pid}").exists())
            gates[0].reached()  # once more
            gates[0].open()
            told = answers[0].result().json()
        finally:
            for gate in gates:
                gate.open()
    assert told["pid"] != pid
    assert told["lost"]
    visitor.close()
    site.cluster.await_ok()


@pytest.mark.parametrize("name", ["embedded-debian", "embedded-pypi", "fast-debian"])
def test_a_visitor_can_tell_that_an_answer_broke_off(new_cluster: NewCluster, name: str) -> None:
    cluster = new_cluster(appservers={"servers": 2})
    site = cluster.site(name)
    gate = cluster.gate()
    with contextlib.closing(http.client.HTTPConnection("127.0.0.1", site.port, timeout=30)) as connection:
        connection.request("GET", f"/break?gate={gate.name}")
        answer = connection.getresponse()
        assert answer.read(6) == b"first\n"
        gate.reached()
        gate.open()
        with pytest.raises((http.client.IncompleteRead, ConnectionError)):
            answer.read()
    if not site.fast:  # there Apache cuts it
        eventually("the log says so", lambda: "an answer broke off, the visitor's connection is cut" in site.log())
    cluster.await_ok()


@pytest.mark.parametrize("name", LANES)
def test_a_request_that_crashes_its_process_crashes_two_at_most(new_cluster: NewCluster, name: str) -> None:
    cluster = new_cluster()
    site = cluster.site(name)
    before = {entry.identity for entry in cluster.table().entries}
    assert raw(site, "/crash")[0] == 502
    crashed = eventually(
        "two are out of address.text",
        lambda: (gone := before - {entry.identity for entry in cluster.table().entries}) and len(gone) >= 2 and gone,
    )
    cluster.await_ok()
    assert len(before - {entry.identity for entry in cluster.table().entries}) == len(crashed) == 2


# address.text is not as it should be.


@pytest.mark.parametrize("state", ["missing", "empty", "malformed", "half written", "not text"])
@pytest.mark.parametrize("name", ["embedded-debian", "embedded-pypi", "fast-debian"])
def test_a_bad_address_text_changes_nothing_for_an_adaptor_that_has_read_a_good_one(
    broken: dict[str, Site], name: str, state: str
) -> None:
    site = broken[name]
    visitor = site.visitor()
    visitor.count()
    visitor.count(method="POST")  # by the adaptor, which has read none before
    with site.cluster.stopped_monitor():
        good = site.cluster.address_file.read_text()
        site.cluster.write_addresses(damaged(good)[state])
        try:
            for _ in range(3):
                visitor.count()
            assert raw(site, "/plain")[0] == 200
        finally:
            site.cluster.write_addresses(good)
        visitor.count()
    visitor.close()


@pytest.mark.parametrize("state", ["missing", "empty", "malformed", "half written", "not text", "no entries"])
def test_who_has_read_no_good_address_text_answers_503_until_it_is_mended(
    broken: dict[str, Site], state: str
) -> None:
    site = broken["cgi-debian"]  # a new process for each request has never read one
    visitor = site.visitor()
    visitor.count()
    with site.cluster.stopped_monitor():
        good = site.cluster.address_file.read_text()
        site.cluster.write_addresses(damaged(good)[state])
        try:
            answer = visitor.get("count")
            assert answer.status_code == 503
            assert int(answer.headers["Retry-After"]) > 0
            assert "Set-Cookie" not in answer.headers
        finally:
            site.cluster.write_addresses(good)
        visitor.count()
    visitor.close()


@pytest.mark.parametrize("name", ["embedded-debian", "embedded-pypi", "fast-debian"])
def test_an_address_text_without_entries_is_a_503_until_the_next_one(broken: dict[str, Site], name: str) -> None:
    site = broken[name]
    visitor = site.visitor()
    visitor.count()
    with site.cluster.stopped_monitor():
        good = site.cluster.address_file.read_text()
        site.cluster.write_addresses(damaged(good)["no entries"])
        try:
            answer = visitor.get("count")
            assert (answer.status_code, answer.headers["Retry-After"]) == (503, "5")
            assert visitor.ticket
        finally:
            site.cluster.write_addresses(good)
        visitor.count()
    visitor.close()


@pytest.mark.parametrize("name", LANES)
def test_who_waits_for_an_appserver_goes_to_their_holder_when_address_text_names_it(
    new_cluster: NewCluster, name: str
) -> None:
    cluster = new_cluster(appservers={"servers": 2}, adaptor={"wait": 25, "waiters": 1})
    site = cluster.site(name, extra=ONE_PROCESS)
    visitor = site.visitor()
    pid = visitor.count()["pid"]
    with cluster.stopped_monitor(), ThreadPoolExecutor() as pool:
        good = cluster.address_file.read_text()
        cluster.write_addresses(damaged(good)["no entries"])
        try:
            requests_ = [pool.submit(visitor.get, "plain") for _ in range(2)]
            eventually("one waits, the other may not", lambda: any(one.done() for one in requests_))
        finally:
            cluster.write_addresses(good)
        refused, served = sorted((one.result() for one in requests_), key=lambda answer: -answer.status_code)
    visitor.close()
    assert (refused.status_code, served.status_code) == (503, 200)
    assert (served.json()["pid"], served.json()["lost"]) == (pid, False)


def damaged(good: str) -> dict[str, str | bytes | None]:
    """What may become of an address.text."""
    lines = good.splitlines(keepends=True)
    return {
        "missing": None,
        "empty": "",
        "malformed": good.replace("127.0.0.1", "127.0.0.1 :"),
        "half written": good[: -len(lines[-1]) // 2],
        "not text": b"\xff\xfe\0" + good.encode(),
        "no entries": write(Table(10**9), "a test", "now"),
    }


@pytest.fixture(scope="module")
def broken() -> Iterator[dict[str, Site]]:
    """One process of each kind before the AppServers, so that it is known what it has read."""
    with running_cluster(appservers={"servers": 2}, adaptor={"wait": 0.2}) as cluster:
        names = ("embedded-debian", "embedded-pypi", "cgi-debian", "fast-debian")
        yield {name: cluster.site(name, extra=ONE_PROCESS) for name in names}


# Limits and releases.


class Tables:
    """Every address.text that was seen while it was watched."""

    def __init__(self, cluster: Cluster) -> None:
        self.seen: list[Table] = []
        self._cluster = cluster
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._watch)

    def __enter__(self) -> Tables:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()

    def _watch(self) -> None:
        last = None
        while not self._over.wait(0.001):
            file = self._cluster.address_file.stat()
            version = (file.st_ino, file.st_mtime_ns)  # each one is a new file
            if version != last:
                table = self._cluster.table()
                if not self.seen or table.serial != self.seen[-1].serial:
                    self.seen.append(table)
                last = version


@pytest.mark.parametrize("name", ["embedded-debian", "daemon-pypi", "cgi-debian", "fast-debian"])
def test_an_appserver_past_its_limit_gets_its_replacement_then_drains_and_leaves_after_its_last_session(
    new_cluster: NewCluster, name: str
) -> None:
    cluster = new_cluster(appservers={"servers": 2, "max_requests": 8})
    site = cluster.site(name)
    with Tables(cluster) as tables:
        one, other = site.visitors(2)
        pid, home = one.count()["pid"], one.ticket
        for _ in range(8):
            one.count()
        eventually("it is DYING", lambda: cluster.table().by_ticket[str(home)].state is State.DYING)
        newcomers = {json.loads(raw(site, "/plain")[2])["pid"] for _ in range(8)}
        assert pid not in newcomers
        told = one.count()
        assert (told["pid"], told["lost"], one.ticket) == (pid, False, home)
        other.count()
        assert cluster.entry(home), "it waits for its last session"
        one.tell("logout")
        eventually("it leaves", lambda: not cluster.entry(home))
        eventually("its process ends", lambda: not Path(f"/proc/{pid}").exists())
        one.forget()
        assert one.count()["pid"] != pid
        other.count()
    for visitor in (one, other):
        visitor.close()
    first = next(table for table in tables.seen if any(entry.state is State.DYING for entry in table.entries))
    assert len(first.ok) == 2, "its replacement was OK before it was DYING"
    assert min(len(table.ok) for table in tables.seen) == 2


def test_a_release_under_load_fails_no_request_and_loses_no_session(quiet_site: Site) -> None:
    cluster = quiet_site.cluster
    before = {entry.identity for entry in cluster.await_ok().entries}
    visitors, length = (2, 3) if quiet_site.mode == "cgi" else (4, 6)  # as CGI each visit starts a Python
    with Tables(cluster) as tables, Load(quiet_site, visitors=visitors, length=length) as load:
        load.go_on(20)
        assert "replacing 4 AppServers" in cluster.lbctl("restart")
        eventually(
            "the old ones are gone", lambda: before.isdisjoint(entry.identity for entry in cluster.table().entries)
        )
        load.go_on(20)
    assert load.sessions > 4
    assert min(len(table.ok) for table in tables.seen) >= 4
    eventually("the release is over", lambda: not cluster.status()["release"])
    assert "release" not in cluster.lbctl("status")


def test_a_release_from_a_new_template_fails_no_request_and_loses_no_session(
    new_cluster: NewCluster,
) -> None:
    cluster = new_cluster(lint=True, appservers={"preload": True})
    site = cluster.site(SITES[0])
    before = {entry.identity for entry in cluster.await_ok().entries}
    template = eventually("there is a template", lambda: cluster.status()["template"])
    with Load(site, visitors=4, length=6) as load:
        load.go_on(20)
        cluster.lbctl("restart")
        eventually(
            "the old ones are gone", lambda: before.isdisjoint(entry.identity for entry in cluster.table().entries)
        )
        load.go_on(20)
    assert load.sessions > 4
    assert cluster.status()["template"] not in (None, template)


def test_a_drained_appserver_keeps_its_visitors_and_undrain_gives_it_new_ones(quiet_site: Site) -> None:
    cluster = quiet_site.cluster
    visitor = quiet_site.visitor()
    pid, home = visitor.count()["pid"], visitor.ticket
    entry = cluster.entry(home)
    assert entry is not None
    cluster.lbctl("drain", str(entry.identity.slot))
    eventually("it is DYING", lambda: cluster.table().by_ticket[str(home)].state is State.DYING)
    assert visitor.count()["pid"] == pid
    cluster.lbctl("undrain", str(entry.identity.slot))
    eventually("it is OK", lambda: cluster.table().by_ticket[str(home)].state is State.OK)
    assert visitor.count()["pid"] == pid
    visitor.tell("logout")
    visitor.close()
    eventually("the surplus is drained", lambda: len(cluster.table().ok) == 4)


@pytest.mark.parametrize("name", ["embedded-pypi", "fast-debian"])  # half of the visits are the Python lane's
def test_a_graceful_restart_of_httpd_under_load_fails_no_request(new_cluster: NewCluster, name: str) -> None:
    site = new_cluster(appservers={"servers": 2}).site(name)

    def children() -> set[int]:
        tasks = Path(f"/proc/{site.httpd.pid}/task")
        return {int(pid) for task in tasks.iterdir() for pid in (task / "children").read_text().split()}

    # A visitor's kept connection is closed by httpd, as it may be at any time; so each visit has its own.
    with Load(site, visitors=4, length=6, keep_alive=False) as load:
        for _ in range(2):
            load.go_on(10)
            before = children()
            site.httpd.reload()
            eventually("its processes are new ones", lambda before=before: before.isdisjoint(children()))
            load.go_on(20)


# What the administrator may do wrong, and what is possible besides.


def test_a_bad_lbadaptor_toml_is_a_503_with_the_reason_in_apaches_log(new_cluster: NewCluster) -> None:
    cluster = new_cluster(appservers={"servers": 1})
    good = cluster.config.read_text()
    cluster.order_to_stop()
    cluster.await_end()  # and with the monitor goes what it had accepted
    cluster.config.write_text(good.replace("[adaptor]", "[adaptor]\npolcy = 1"))
    site = cluster.site("embedded-debian")
    status, headers, _ = raw(site, "/plain")
    assert (status, headers["Retry-After"]) == (503, "5")
    assert "unknown setting [adaptor] polcy; did you mean policy?" in site.log()
    cluster.config.write_text(good)
    cluster.start()
    assert raw(site, "/plain")[0] == 200


def test_a_key_file_that_apache_may_not_read_is_a_503_with_the_reason_in_apaches_log(new_cluster: NewCluster) -> None:
    cluster = new_cluster(appservers={"servers": 1})
    cluster.settings.key_file.chmod(0)
    site = cluster.site("embedded-debian")
    status, headers, _ = raw(site, "/plain")
    assert (status, headers["Retry-After"]) == (503, "5")
    assert f"key file {cluster.settings.key_file}: Permission denied" in site.log()
    cluster.settings.key_file.chmod(0o640)
    assert raw(site, "/plain")[0] == 200


def test_only_apache_can_read_the_keys(site: Site) -> None:
    status = site.cluster.settings.key_file.stat()
    assert status.st_mode & 0o777 == 0o640
    if site.httpd.user is not None:
        assert status.st_gid == site.httpd.user.pw_gid


def test_two_applications_share_one_httpd(new_cluster: NewCluster) -> None:
    first, second = (new_cluster(appservers={"servers": 2}) for _ in range(2))
    # The second one's lbadaptor.toml is to be read by Apache's user too.
    again = f"Define LBADAPTOR_CONFIG {second.config}\nDefine LBADAPTOR_MOUNT /two\n"
    for name in INSTALLATIONS:
        site = first.site(f"embedded-{name}", "/one", f"{again}Include {httpd.SHARE}/lbadaptor.conf\n")
        visitors = [site.visitor(), site.visitor()]
        visitors[1].url = visitors[0].url.replace("/one", "/two")
        pids = [visitor.count()["pid"] for visitor in visitors]
        for _ in range(3):
            assert [visitor.count()["pid"] for visitor in visitors] == pids
        for visitor, cluster in zip(visitors, (first, second), strict=True):
            assert cluster.entry(visitor.ticket)
            visitor.close()


# Webware's own example site.


@pytest.mark.parametrize("name", ["embedded-pypi", "fast-debian"])
def test_webwares_example_counts_the_visits_of_each_visitor_over_three_appservers(
    new_cluster: NewCluster, name: str
) -> None:
    cluster = new_cluster(
        appservers={"servers": 3},
        application={
            "app": "lbadaptor.examples.webware_site:application",
            "session_cookie": "_SID_",
            "session_count": "webware",
        },
    )
    site = cluster.site(name)

    def visit(visitor: Any) -> tuple[str, int]:
        answer = visitor.get("CountVisits")
        assert answer.status_code == 200
        found = re.search(r"<strong[^>]*>&nbsp;(\d+)&nbsp;</strong>", answer.text)
        assert found is not None
        return answer.headers["X-AppServer"], int(found[1])

    homes: dict[str, Any] = {}
    for _ in range(200):
        visitor = site.visitor()
        where, count = visit(visitor)
        assert count == 1
        if where in homes:
            visitor.close()
        homes.setdefault(where, visitor)
        if len(homes) == 3:
            break
    for count in (2, 3, 4):
        assert [visit(visitor) for visitor in homes.values()] == [(where, count) for where in homes]
    where, unlucky = homes.popitem()
    slot = int(str(unlucky.ticket).partition(".")[0])
    (pid,) = [server["pid"] for server in cluster.status()["appservers"] if server["slot"] == slot]
    os.kill(pid, signal.SIGKILL)
    assert visit(unlucky)[1] == 1
    assert "a visitor's session is lost: the process that held it has ended" in cluster.said()
    assert [visit(visitor) for visitor in homes.values()] == [(where, 5) for where in homes]
    for visitor in (unlucky, *homes.values()):
        visitor.close()
    cluster.await_ok()
