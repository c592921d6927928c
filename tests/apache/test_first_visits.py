"""First visits in the fast lane: which take it, to whom they go, and what happens where they cannot be served."""

from __future__ import annotations

import secrets
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pytest
from cluster import TIMEOUT, Cluster, eventually
from corpus import prepare
from fast_site import APP, FastSite, available, available_text, gone, holder, raw, replaced, undrain

from lbadaptor.adaptor.circuit_breaker import OPEN_DEATHS
from lbadaptor.contract.address import Identity, State
from tests.apache.resources import kill


@pytest.mark.parametrize("method", ["GET", "HEAD"])
def test_a_first_visit_begins_a_session_in_the_fast_lane_and_the_next_one_is_held(
    fast: FastSite, method: str
) -> None:
    visitor = fast.site.visitor()
    with available(fast.cluster, available_text(fast.cluster)):
        assert fast.ask(visitor, "count", method)[1] == "first"
    entry = holder(fast.cluster, visitor)
    answer, lane = fast.ask(visitor, "count")
    assert (answer.json()["visits"], answer.json()["slot"], lane) == (2, entry.identity.slot, "fast")
    assert fast.ask(visitor, "logout")[1] == "fast"
    assert visitor.ticket is None
    with available(fast.cluster, available_text(fast.cluster)):
        answer, lane = fast.ask(visitor, "count")
    assert (answer.json()["visits"], lane) == (1, "first")
    visitor.close()


def test_without_a_session_there_is_no_ticket(fast: FastSite) -> None:
    robot = fast.site.visitor()
    with available(fast.cluster, available_text(fast.cluster)):
        answer, lane = fast.ask(robot, "environ?a=b")
    assert (answer.json()["lost"], lane) == (False, "first")
    assert answer.json()["seen"]["QUERY_STRING"] == "a=b"
    assert not [name for name in answer.headers if name.lower().startswith(("lb", "set-cookie"))]
    assert not [name for name in answer.json()["seen"] if name.startswith("LBADAPTOR_")]
    robot.close()


COOKIES: dict[str, tuple[list[str], str]] = {
    "none": ([], "first"),
    "empty": (["Cookie:"], "first"),
    "others": (["Cookie: a=1; b=2"], "first"),
    "the name as a value": (["Cookie: a=__PRT__; __PRT__"], "first"),
    "two headers": (["Cookie: a=1", "Cookie: b=2"], "first"),
    "a longer name": (["Cookie: __PRT__x=1"], "first"),
    "another case": (["Cookie: __prt__=1"], "first"),
    "forged": ([f"Cookie: __PRT__=0.1763805600123.{43 * 'x'}"], "slow"),
    "nonsense": (["Cookie: __PRT__=x"], "slow"),
    "no value": (["Cookie: a=1; __PRT__="], "slow"),
    "with a space": (["Cookie: a=1; __PRT__ =1"], "slow"),
    "with a tab and a byte of white space": (["Cookie: __PRT__\t\xa0=1"], "slow"),
    "in another cookie": (["Cookie: a=__PRT__=1"], "slow"),
    "the end of another name": (["Cookie: x__PRT__=1"], "slow"),
    "in a second header": (["Cookie: a=1", "Cookie: __PRT__=1"], "slow"),
}


@pytest.mark.parametrize("name", COOKIES)
def test_only_who_brings_nothing_like_a_ticket_comes_for_the_first_time(embedded: FastSite, name: str) -> None:
    cookies, lane = COOKIES[name]
    tag = secrets.token_hex(8)
    lines = ("Host: x", "Connection: close", f"X-Tag: {tag}", *cookies)
    with available(embedded.cluster, available_text(embedded.cluster)):
        answer = raw(embedded.site, "GET /deep/mount/plain HTTP/1.1", *lines)
    assert answer.startswith(b"HTTP/1.1 200 OK"), answer
    assert embedded.lane(tag) == lane


def test_a_lost_session_is_told_by_the_python_lane(cluster: Cluster, embedded: FastSite) -> None:
    visitor = embedded.visitor()
    entry = holder(cluster, visitor)
    kill(int(visitor.tell("plain")["pid"]))
    replaced(cluster, entry)
    answer, lane = embedded.ask(visitor, "environ")
    assert (answer.json()["lost"], lane) == (True, "slow")
    visitor.close()


def test_a_post_takes_the_python_lane(fast: FastSite) -> None:
    visitor = fast.site.visitor()
    with available(fast.cluster, available_text(fast.cluster)):
        assert fast.ask(visitor, "count", "POST")[1] == "slow"
    assert fast.ask(visitor, "count")[1] == "fast"
    visitor.close()


# To whom they go.


def test_each_appserver_gets_its_share(cluster: Cluster) -> None:
    fast = FastSite(cluster, "embedded-debian")
    one, other = (entry.identity.slot for entry in cluster.table().ok)
    robot = fast.site.visitor()
    with available(cluster, available_text(cluster, {one: 3, other: 1})):
        came = Counter(robot.tell("plain")["slot"] for _ in range(200))
        assert fast.ask(robot, "plain")[1] == "first"
    assert 120 <= came[one] <= 178  # 150; less often wrong than once in a million
    assert came[one] + came[other] == 200
    with available(cluster, available_text(cluster, {other: 1})):
        assert {robot.tell("plain")["slot"] for _ in range(20)} == {other}
    robot.close()


USELESS = {
    "missing": None,
    "empty": "",
    "a comment": "# nobody\n",
    "no appserver": "__PRT__  0\n",
    "another cookie": "other  0\n0  127.0.0.1:1;key;0;1763805600123\n",
    "another port": "__PRT__  0\n0  127.0.0.1:1;key;0;1763805600123\n",
    "another host": "__PRT__  0\n0  elsewhere.example:80;key;0;1763805600123\n",
    "nonsense": "__PRT__  __PRT__\n\0\n  \n0\n0  ;;;\n__PRT__",
    "binary": "\x7f\x01\x02 __PRT__ \r\n" * 100,
    "long": f"__PRT__  {'0|' * 3000}0\n",
}


@pytest.mark.parametrize("name", USELESS)
def test_where_nobody_is_to_be_found_they_take_the_python_lane(
    cluster: Cluster, embedded: FastSite, name: str
) -> None:
    robot = embedded.site.visitor()
    with available(cluster, USELESS[name]):
        answer, lane = embedded.ask(robot, "plain")
    assert (answer.status_code, lane) == (200, "slow")
    robot.close()


# What comes back.


def test_when_the_appserver_is_gone_another_one_serves(fast: FastSite) -> None:
    visitor, robot = fast.visitor(), fast.site.visitor()
    text = available_text(fast.cluster, {holder(fast.cluster, visitor).identity.slot: 1})
    with gone(fast.cluster, visitor) as pid, available(fast.cluster, text):
        for method in ("HEAD", "GET"):
            answer, lane = fast.ask(robot, "environ/a%20b?x=%20y&z", method)
            assert (answer.status_code, lane) == (200, "back after 503")
            assert (answer.content == b"") is (method == "HEAD")
    told = answer.json()
    assert (told["pid"] != pid, told["lost"]) == (True, False)
    assert told["seen"]["REQUEST_URI"] == "/environ/a%20b?x=%20y&z"
    assert not [name for name in told["seen"] if "REDIRECT" in name or "LBADAPTOR_" in name]
    for one in (visitor, robot):
        one.close()


def test_one_that_is_to_leave_refuses(cluster: Cluster, embedded: FastSite) -> None:
    visitor, robot = embedded.visitor(), embedded.site.visitor()
    entry = holder(cluster, visitor)
    text = available_text(cluster, {entry.identity.slot: 1})
    cluster.lbctl("drain", str(entry.identity.slot))
    eventually("it is DYING", lambda: holder(cluster, visitor).state is State.DYING)
    ticket = {"Cookie": f"__PRT__={entry.ticket}"}  # and no session
    # address.text says so a moment before the AppServer has got the order.
    eventually("it refuses", lambda: embedded.ask(robot, "plain", headers=ticket)[1] == "back after 421")
    with available(cluster, text):
        answer, lane = embedded.ask(robot, "plain")
    assert (answer.status_code, lane) == (200, "back after 421")
    assert answer.json()["slot"] != entry.identity.slot
    undrain(cluster, entry)
    embedded.ask(visitor, "logout")
    for one in (visitor, robot):
        one.close()


def test_an_earlier_process_in_the_slot_is_not_mistaken(cluster: Cluster, embedded: FastSite) -> None:
    visitor, robot = embedded.visitor(), embedded.site.visitor()
    entry = holder(cluster, visitor)
    text = available_text(cluster, {entry.identity.slot: 1})
    kill(int(visitor.tell("plain")["pid"]))
    replaced(cluster, entry)
    with available(cluster, text):
        answer, lane = embedded.ask(robot, "plain")
    assert (answer.status_code, lane[:10]) == (200, "back after")
    for one in (visitor, robot):
        one.close()


def test_one_that_is_busy_refuses(new_cluster: Callable[..., Cluster]) -> None:
    cluster = new_cluster(app=APP, appservers={"servers": 2, "threads": 1, "queue": 0})
    prepare(cluster.folder)
    fast = FastSite(cluster, "embedded-debian")
    busy, other = (entry.identity.slot for entry in cluster.table().ok)
    gate = cluster.gate()
    one, robot = fast.site.visitor(), fast.site.visitor()
    with available(cluster, available_text(cluster, {busy: 1})), ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(fast.ask, one, f"plain?gate={gate.name}")
        gate.reached()
        answer, lane = fast.ask(robot, "plain")
        gate.open()
        assert (answer.json()["slot"], lane) == (other, "back after 421")
        answer, lane = waiting.result(TIMEOUT)
        assert (answer.json()["slot"], lane) == (busy, "first")
    for visitor in (one, robot):
        visitor.close()


def test_a_request_that_ends_its_process_each_time_meets_the_circuit_breaker(
    new_cluster: Callable[..., Cluster],
) -> None:
    monitor = {"probe_interval": 0.1, "backoff_limit": 0.1}
    cluster = new_cluster(app=APP, appservers={"servers": 3}, adaptor={"wait": 10}, monitor=monitor)
    one_process = "StartServers 1\nServerLimit 1\nMaxRequestWorkers 25\n"  # each has a circuit breaker of its own
    site = cluster.site("embedded-debian", extra=one_process, fast_lane=cluster.settings.slots)
    killer, other = site.visitor(), site.visitor()

    ever: set[Identity] = set()

    def dead() -> int:
        there = {entry.identity for entry in cluster.table().entries}
        ever.update(there)
        return len(ever - there)

    assert dead() == 0
    told = []
    for most in (2, 3, 4, 5, 6, 6, 6):  # the first time one in the fast lane, and one more in the Python lane
        status = killer.get("crash", headers={"Connection": "close"}).status_code
        eventually("they have left address.text", lambda most=most: dead() >= most)
        eventually("first visits take the Python lane", lambda: not cluster.led_to())
        assert other.tell("plain")
        cluster.await_ok()
        told.append((status, dead()))
    assert told == [(502, 2), (502, 3), (502, 4), (502, 5), (502, 1 + OPEN_DEATHS), (503, 6), (503, 6)]
    for one in (killer, other):
        one.close()


# Other settings.


def test_it_is_the_monitor_that_says_where_they_go(new_cluster: Callable[..., Cluster]) -> None:
    cluster = new_cluster(app=APP, appservers={"servers": 2})
    prepare(cluster.folder)
    fast = FastSite(cluster, "embedded-debian")
    visitors = [fast.site.visitor() for _ in range(20)]
    slots = set()
    for visitor in visitors:
        answer, lane = fast.ask(visitor, "count")
        assert lane == "first"
        slots.add(answer.json()["slot"])
    assert len(slots) == 2
    robot = fast.site.visitor()
    # A configuration that was written for another ticket cookie finds nobody.
    with available(cluster, available_text(cluster).replace("__PRT__", "other")):
        assert fast.ask(robot, "plain")[1] == "slow"
    eventually(
        "the monitor has written it again", lambda: "\n__PRT__ " in cluster.settings.available_file.read_text()
    )
    assert fast.ask(robot, "plain")[1] == "first"
    # What has killed an AppServer is to meet the adaptor's circuit breaker.
    entry = holder(cluster, visitors[0])
    kill(int(visitors[0].tell("plain")["pid"]))
    replaced(cluster, entry)
    assert not cluster.led_to()
    assert fast.ask(robot, "plain")[1] == "slow"
    for one in (*visitors, robot):
        one.close()


# By IPv6 and by TCP.


@pytest.mark.parametrize("sockets", [True, False])
def test_they_go_to_an_ipv6_address_and_by_tcp(new_cluster: Callable[..., Cluster], sockets: bool) -> None:
    run_folder = "run" if sockets else "r'un a"  # no Unix sockets by such a path
    cluster = new_cluster(app=APP, appservers={"servers": 1, "host": "::1"}, files={"run_folder": run_folder})
    prepare(cluster.folder)
    fast = FastSite(cluster, "embedded-debian")
    visitor = fast.site.visitor()
    assert fast.ask(visitor, "count")[1] == "first"
    assert fast.ask(visitor, "count")[1] == "fast"
    visitor.close()
