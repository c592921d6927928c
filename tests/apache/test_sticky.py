"""The whole under a real Apache httpd: visitors, tickets, fail-over, and what passes through."""

from __future__ import annotations

import base64
import contextlib
import http.client
import json
import os
import re
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import requests
from cluster import LANES, SITES, Cluster, Site, eventually, running_cluster

from tests.apache.resources import kill
from tests.apache.visitors import raw

NewCluster = Callable[..., Cluster]

TICKET = re.compile(r"(\d+)\.(\d+)\.[A-Za-z0-9_-]{43}")


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
        kill(pid)
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
    kill(pid)
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
    kill(pid)
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
            kill(pid)
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


# Who may know.


def test_only_apache_can_read_the_keys(site: Site) -> None:
    status = site.cluster.settings.key_file.stat()
    assert status.st_mode & 0o777 == 0o640
    if site.httpd.user is not None:
        assert status.st_gid == site.httpd.user.pw_gid
