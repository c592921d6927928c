"""Sessions outlive their process, under a real httpd: drains, releases, kills, a stop and a start of everything."""

from __future__ import annotations

import contextlib
import os
import signal
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from cluster import Cluster, Load, Site, Visitor, eventually, running_cluster
from test_frameworks import FRAMEWORKS

from lbadaptor.contract.address import Entry, State
from tests.apache.resources import ended, kill

SITES = ["embedded-debian", "embedded-pypi", "daemon-debian", "cgi-debian", "fast-debian"]
OWN = {"save": "visits:save", "load": "visits:load"}
SECONDS = 10.0
"""within which an AppServer that leaves is gone, on a busy machine too; its session_idle is half an hour"""

NewCluster = Callable[..., Cluster]


def settings(mode: str, **sections: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """Of a cluster whose application says itself how its sessions are saved."""
    return {"sessions": {"survive": mode, **OWN}, **sections}


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    """With survive = "anything"."""
    with running_cluster(**settings("anything")) as running:
        yield running


@pytest.fixture(scope="module", params=SITES)
def site(cluster: Cluster, request: pytest.FixtureRequest) -> Site:
    return cluster.site(request.param)


def home(cluster: Cluster, visitor: Visitor) -> Entry:
    """The AppServer that a visitor's ticket names."""
    entry = cluster.entry(visitor.ticket)
    assert entry is not None
    return entry


def living(cluster: Cluster) -> int:
    """An AppServer's process; the status may still name one that was killed."""

    def look() -> int | None:
        pids = (server["pid"] for server in cluster.status()["appservers"])
        return next((pid for pid in pids if pid and not ended(pid)), None)

    pid: int = eventually("one lives", look)
    return pid


def two_at_one(site: Site) -> tuple[Visitor, Visitor, int]:
    """Two visitors with a session at one AppServer, and its process."""
    one, other = site.visitor(), site.visitor()
    pid = one.count()["pid"]
    while other.count()["pid"] != pid:
        other.tell("logout")
        other.forget()
    return one, other, pid


def twenty_at_once(site: Site, visitor: Visitor) -> list[dict[str, Any]]:
    """The answers to 20 requests of a visitor's session, which has been counted once: all of them find it."""
    cookies = dict(visitor.http.cookies)

    def ask(_: int) -> dict[str, Any]:
        with contextlib.closing(site.visitor()) as one:
            one.http.cookies.update(cookies)
            return one.tell("count")

    with ThreadPoolExecutor(20) as pool:
        answers = list(pool.map(ask, range(20)))
    assert not [answer for answer in answers if answer["new"] or answer["lost"]]
    assert sorted(answer["visits"] for answer in answers) == list(range(2, 22))
    return answers


def drain(cluster: Cluster, visitor: Visitor) -> None:
    cluster.lbctl("drain", str(home(cluster, visitor).identity.slot))


def test_a_drained_one_is_gone_in_seconds_and_its_session_goes_on_elsewhere(cluster: Cluster, site: Site) -> None:
    visitor = site.visitor()
    before = visitor.count()
    old = visitor.ticket
    drain(cluster, visitor)
    eventually("the old process is gone", lambda: ended(before["pid"]), SECONDS)
    told = visitor.count()
    assert told["pid"] != before["pid"]
    assert (told["lost"], told["moved"]) == (False, True)
    assert visitor.ticket not in (None, old)
    again = visitor.count()
    assert (again["pid"], again["lost"], again["moved"]) == (told["pid"], False, False)


def test_a_killed_one_has_lost_no_session(cluster: Cluster, site: Site) -> None:
    visitor = site.visitor()
    before = visitor.count()
    for method in ("GET", "POST"):
        pid = visitor.count(method=method)["pid"]
        kill(pid)
        told = visitor.count(method="GET")
        assert told["pid"] not in (before["pid"], pid)
        assert (told["lost"], told["moved"]) == (False, True)
    cluster.await_ok()


def test_after_a_logout_nothing_comes_back(cluster: Cluster, site: Site) -> None:
    visitor = site.visitor()
    pid = visitor.count()["pid"]
    cookies = dict(visitor.http.cookies)
    assert visitor.tell("logout")["known"]
    kill(pid)
    visitor.http.cookies.update(cookies)
    assert visitor.tell("count")["new"]
    cluster.await_ok()


def test_parallel_requests_within_a_move_all_find_the_session(cluster: Cluster, site: Site) -> None:
    visitor = site.visitor()
    visitor.count()
    drain(cluster, visitor)
    ticket = visitor.ticket

    def leaves() -> bool:
        entry = cluster.entry(ticket)
        return entry is None or entry.state is State.DYING

    eventually("it leaves", leaves)
    twenty_at_once(site, visitor)
    cluster.await_ok()


def test_a_request_that_lasts_holds_its_own_session_only(cluster: Cluster) -> None:
    site = cluster.site("embedded-debian")
    one, other, pid = two_at_one(site)
    gate = cluster.gate()
    with ThreadPoolExecutor(1) as pool:
        long = pool.submit(one.count, params={"gate": gate.name})
        gate.reached()
        drain(cluster, one)
        eventually("the other session has moved", lambda: other.count()["pid"] != pid, SECONDS)
        assert not ended(pid)
        gate.open()
        assert long.result()["pid"] == pid
    eventually("the old process is gone", lambda: ended(pid), SECONDS)
    assert one.count()["moved"]


def test_while_a_stop_waits_for_a_request_the_other_sessions_go_on_elsewhere(new_cluster: NewCluster) -> None:
    cluster = new_cluster(**settings("leaving", appservers={"servers": 2}))
    site = cluster.site("embedded-debian")
    one, other, pid = two_at_one(site)
    gate = cluster.gate()
    with ThreadPoolExecutor(2) as pool:
        long = pool.submit(one.count, params={"gate": gate.name})
        gate.reached()
        restart = pool.submit(cluster.lbctl, "restart", "--now")
        eventually("the other session is elsewhere", lambda: other.count()["pid"] != pid, SECONDS)
        assert not ended(pid)
        gate.open()
        assert long.result()["pid"] == pid
        restart.result()
    assert one.count()["moved"]


def test_a_release_under_load_loses_nothing(cluster: Cluster) -> None:
    site = cluster.site("fast-debian")
    before = {server["pid"] for server in cluster.status()["appservers"]}
    with Load(site, 4, 20) as load:
        load.go_on(20)
        cluster.lbctl("restart")
        eventually("the old ones are gone", lambda: all(map(ended, before)), SECONDS)
        load.go_on(20)


def test_kills_under_load_lose_no_session_and_fail_no_get(cluster: Cluster) -> None:
    site = cluster.site("embedded-debian")
    over = threading.Event()
    visits = [0] * 4

    def come(number: int) -> None:
        visitor = site.visitor()
        while not over.is_set():
            told = visitor.tell("count")
            # A GET whose AppServer was killed is repeated, and may have been counted and saved before.
            assert visits[number] < told["visits"] <= visits[number] + 2, told
            visits[number] = told["visits"]
        visitor.close()

    with ThreadPoolExecutor(4) as pool:
        coming = [pool.submit(come, number) for number in range(4)]
        try:
            for _ in range(4):
                before = sum(visits)
                eventually("visitors come", lambda before=before: sum(visits) >= before + 20)
                kill(living(cluster))
            cluster.await_ok()
        finally:
            over.set()
        for one in coming:
            one.result()


@pytest.mark.parametrize("preload", [False, True], ids=["alone", "preload"])
@pytest.mark.parametrize("mode", ["leaving", "anything"])
def test_everything_is_stopped_and_started_and_sessions_are_there(
    new_cluster: NewCluster, mode: str, preload: bool
) -> None:
    cluster = new_cluster(**settings(mode, appservers={"servers": 2, "preload": preload}))
    site = cluster.site("embedded-debian")
    visitors = [site.visitor() for _ in range(4)]
    for visitor in visitors:
        visitor.count()
    cluster.order_to_stop()
    cluster.await_end()
    cluster.start()
    for visitor in visitors:
        told = visitor.count()
        assert (told["lost"], told["moved"]) == (False, True)


def test_all_killed_at_once_with_their_monitor(new_cluster: NewCluster) -> None:
    cluster = new_cluster(**settings("anything", appservers={"servers": 2}))
    site = cluster.site("embedded-debian")
    visitors = [site.visitor() for _ in range(4)]
    pids = {visitor.count()["pid"] for visitor in visitors}
    cluster.kill_monitor()
    for pid in pids:
        kill(pid)
    cluster.start()
    for visitor in visitors:
        told = visitor.count()
        assert (told["lost"], told["moved"]) == (False, True)


def test_adopted_ones_move_their_sessions_too(new_cluster: NewCluster) -> None:
    cluster = new_cluster(**settings("leaving", appservers={"servers": 2}))
    site = cluster.site("embedded-debian")
    visitor = site.visitor()
    pid = visitor.count()["pid"]
    cluster.kill_monitor()
    cluster.start()
    eventually("it is adopted", lambda: cluster.said().count("is adopted") == 2)
    drain(cluster, visitor)
    eventually("the old process is gone", lambda: ended(pid), SECONDS)
    assert visitor.count()["moved"]


def test_an_application_that_says_its_sessions_itself_hands_their_content_along(new_cluster: NewCluster) -> None:
    cluster = new_cluster(
        app="spoken:application",
        cookie="visitor",
        sessions={"survive": "anything", "save": "spoken:save", "load": "spoken:load"},
        appservers={"servers": 2},
    )
    site = cluster.site("embedded-debian")
    visitor = site.visitor()
    visitor.http.auth = ("ada", "secret")
    pid = visitor.count()["pid"]
    drain(cluster, visitor)
    eventually("the old process is gone", lambda: ended(pid), SECONDS)
    pid = visitor.count()["pid"]
    kill(pid)
    visitor.count()


def test_with_leaving_a_kill_is_told_as_a_loss(new_cluster: NewCluster) -> None:
    cluster = new_cluster(**settings("leaving", appservers={"servers": 2}))
    site = cluster.site("embedded-debian")
    visitor = site.visitor()
    pid = visitor.count()["pid"]
    kill(pid)
    told = visitor.tell("count")
    assert (told["new"], told["lost"], told["moved"]) == (True, True, False)


def test_without_survive_everything_is_as_before(new_cluster: NewCluster) -> None:
    cluster = new_cluster(appservers={"servers": 2})
    site = cluster.site("embedded-debian")
    visitor = site.visitor()
    pid = visitor.count()["pid"]
    drain(cluster, visitor)
    eventually("it is DYING", lambda: home(cluster, visitor).state is State.DYING)
    assert visitor.count()["pid"] == pid
    assert not Path(cluster.settings.session_folder).exists()


@pytest.mark.parametrize("name", FRAMEWORKS)
def test_the_sessions_of_frameworks_outlive_a_drain_a_kill_a_login_and_end_with_a_logout(
    new_cluster: NewCluster, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    framework = FRAMEWORKS[name]
    monkeypatch.setenv("SESSION_STORE", framework.store)
    cluster = new_cluster(
        app=f"{framework.app}:application",
        cookie=framework.cookie,
        sessions={"survive": "anything"},
        appservers={"servers": 2, "own_folder": "own"},
    )
    site = cluster.site("embedded-debian")
    for _ in range(6):  # CherryPy sets a cookie with an error page, and keeps no session: nobody waits for it
        with contextlib.closing(site.visitor()) as lost:
            lost.get("no-such-page")
    visitor = site.visitor()
    pid = visitor.count()["pid"]
    visitor.tell("login/ada" if framework.rotates else "login?user=ada", method="POST")
    drain(cluster, visitor)
    eventually("the old process is gone", lambda: ended(pid), SECONDS)
    for _ in range(2):
        told = visitor.count()
        assert told["user"] == "ada"
        cluster.await_ok()  # another one is there to go on
        kill(told["pid"])
    told = visitor.count()
    assert told["user"] == "ada"
    cookies = dict(visitor.http.cookies)
    visitor.tell("logout")
    cluster.await_ok()
    kill(told["pid"])
    visitor.http.cookies.update(cookies)
    visitor.forget()
    assert visitor.count()["user"] is None
    cluster.await_ok()
    cluster.await_said('survive = "anything": the sessions in ')


def test_one_that_hangs_and_is_ended_by_the_monitor_has_lost_no_session(new_cluster: NewCluster) -> None:
    quick = {"probe_timeout": 0.4, "fall": 2, "failing_limit": 0.5, "stop_grace": 2.0}
    cluster = new_cluster(**settings("anything", appservers={"servers": 2}, monitor=quick))
    site = cluster.site("embedded-debian")
    visitor = site.visitor()
    pid = visitor.count()["pid"]
    os.kill(pid, signal.SIGSTOP)
    eventually("the monitor has ended it", lambda: ended(pid))
    told = eventually("the session is elsewhere", lambda: site_answers(visitor))
    assert (told["visits"], told["lost"], told["moved"]) == (2, False, True)


def site_answers(visitor: Visitor) -> dict[str, Any] | None:
    """What a visit tells; None: 503 for the moment."""
    answer = visitor.get("count")
    found: dict[str, Any] | None = answer.json() if answer.status_code == 200 else None
    return found
