"""Affinity without session: applications with a cache in their process, and a server of long polling."""

from __future__ import annotations

import contextlib
import itertools
import re
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from chatters import Member
from cluster import LANES, SITES, TIMEOUT, Cluster, Site, Visitor, eventually, running_cluster

from lbadaptor.contract.address import State
from tests.apache.resources import StoodStill, kill, unless_it_stands_still

NewCluster = Callable[..., Cluster]

IDLE = 2.0
AFFINITY = {"affinity": True, "session_idle": IDLE}
CACHE = {
    "app": "warm:application",
    "cookie": "",
    "lint": True,
    "application": AFFINITY,
    "monitor": {"drain_limit": 60},
}
EMBEDDED = "embedded-debian"


@pytest.fixture(scope="module")
def cache() -> Iterator[Cluster]:
    with running_cluster(**CACHE) as cluster:
        yield cluster


@pytest.fixture(scope="module", params=SITES)
def warm(cache: Cluster, request: pytest.FixtureRequest) -> Site:
    return cache.site(request.param)


@pytest.fixture
def visitor(warm: Site) -> Iterator[Visitor]:
    with contextlib.closing(warm.visitor()) as made:
        yield made


def state_of(cluster: Cluster, ticket: str | None) -> State | None:
    entry = cluster.entry(ticket)
    return entry.state if entry else None


def drain(cluster: Cluster, ticket: str | None) -> None:
    """Replace an AppServer, and wait until it is DYING. A holder has to come meanwhile, or it may be gone."""
    cluster.lbctl("drain", str(ticket).partition(".")[0])
    eventually("it is DYING", lambda: state_of(cluster, ticket) is State.DYING)


# No session, but a cache.


def test_the_first_answer_has_the_ticket_and_the_cache_is_found_again(visitor: Visitor) -> None:
    first = visitor.get("?below=2000&cache=public,max-age=60")
    (cookie,) = [value for name, value in first.headers.items() if name == "Set-Cookie"]
    assert re.fullmatch(r"__PRT__=\d+\.\d+\.[\w-]{43}; Path=/; SameSite=Lax; HttpOnly", cookie)
    assert first.headers["Cache-Control"] == "private, max-age=60"
    for _ in range(5):
        again = visitor.get("?below=2000&cache=public")
        assert (again.json()["pid"], again.json()["cached"]) == (first.json()["pid"], True)
        assert "Set-Cookie" not in again.headers
        assert again.headers["Cache-Control"] == "public"


def test_a_forged_ticket_is_replaced_by_a_good_one(warm: Site, visitor: Visitor) -> None:
    told = visitor.tell("", headers={"Cookie": "__PRT__=0.1." + "x" * 43})
    assert not told["lost"]
    assert warm.cluster.entry(visitor.ticket)


@pytest.mark.parametrize("name", LANES)
def test_visitors_are_counted_by_address_and_browser(new_cluster: NewCluster, name: str) -> None:
    cluster = new_cluster(**CACHE | {"appservers": {"servers": 1}, "application": {"affinity": True}})
    site = cluster.site(name)

    def visitors() -> list[int]:
        return [server["sessions"] for server in cluster.status()["appservers"]]

    eventually("who waited for the httpd to be up counts", lambda: visitors() == [1])
    for agent in ("one", "another", "one"):
        with contextlib.closing(site.visitor()) as visitor:
            visitor.tell("", headers={"User-Agent": agent})
    eventually("they are counted", lambda: visitors() >= [3])
    assert visitors() == [3]


@pytest.mark.parametrize("name", LANES)
def test_mounted_the_ticket_is_for_the_mount(new_cluster: NewCluster, name: str) -> None:
    site = new_cluster(**CACHE | {"appservers": {"servers": 1}}).site(name, "/shop")
    with contextlib.closing(site.visitor()) as visitor:
        assert "; Path=/shop; " in visitor.get("").headers["Set-Cookie"]
        assert "Set-Cookie" not in visitor.get("").headers


def test_a_dying_appserver_keeps_its_holders_until_none_came_for_the_idle_time(warm: Site) -> None:
    cluster = warm.cluster

    def attempt() -> None:
        cluster.await_ok()
        with contextlib.closing(warm.visitor()) as visitor:
            pid, home = visitor.tell("")["pid"], visitor.ticket
            slot = str(home).partition(".")[0]
            with Coming(lambda: visitor.tell("")["pid"]) as coming:
                drain(cluster, home)
                eventually("Apache leads no first visit to it", lambda: slot not in cluster.led_to())
                coming.go_on_for(1.5 * IDLE)
                with contextlib.closing(warm.visitor()) as stranger:
                    assert stranger.tell("")["pid"] != pid
                assert coming.seen == {pid}
                assert visitor.ticket == home
                assert state_of(cluster, home) is State.DYING
            eventually("it leaves", lambda: not cluster.entry(home))
            assert "no session left" in cluster.said()
            told = visitor.tell("")
            assert (told["pid"] != pid, told["lost"], visitor.ticket != home) == (True, True, True)
            assert not visitor.tell("")["lost"]

    unless_it_stands_still(attempt)


@pytest.mark.parametrize("name", LANES)
def test_a_holder_who_comes_again_and_again_delays_a_drain_to_its_limit_and_no_longer(
    new_cluster: NewCluster, name: str
) -> None:
    cluster = new_cluster(**CACHE | {"monitor": {"drain_limit": 1.5, "probe_interval": 0.1}})
    with contextlib.closing(cluster.site(name).visitor()) as visitor:
        pid, home = visitor.tell("")["pid"], visitor.ticket
        with Coming(lambda: visitor.tell("")["pid"], idle=float("inf")) as coming:  # the limit comes sooner
            drain(cluster, home)
            eventually("it is ended", lambda: not cluster.entry(home))
            eventually("its holder is elsewhere", lambda: coming.seen - {pid})
        assert "session: it has been DYING for 1.5 s" in cluster.said()
        assert len(coming.seen) == 2


def test_those_who_lose_their_appserver_spread_over_the_others_by_load(warm: Site) -> None:
    cluster = warm.cluster
    cluster.await_ok()
    with contextlib.closing(warm.visitor()) as first, contextlib.ExitStack() as stack:
        pid = first.tell("")["pid"]
        lost = [stack.enter_context(contextlib.closing(warm.visitor())) for _ in range(12)]
        for visitor in lost:
            visitor.http.cookies.update(first.http.cookies)
            assert visitor.tell("")["pid"] == pid
        kill(pid)
        eventually("it is gone", lambda: not cluster.entry(first.ticket))
        cluster.await_ok()
        told = [visitor.tell("") for visitor in lost]
        again = [visitor.tell("") for visitor in lost]
    assert all(each["lost"] for each in told)
    assert [(each["pid"], each["lost"]) for each in again] == [(each["pid"], False) for each in told]
    assert len({each["pid"] for each in told}) > 1


class Coming:
    """A visitor who comes all the time, while this is open; every visit must succeed.

    In the end it raises StoodStill, if they did not come for the idle time.
    """

    def __init__(self, visit: Callable[[], Any], idle: float = IDLE) -> None:
        self.seen: set[Any] = set()
        """what the visits told"""
        self.visits = 0
        self._visit = visit
        self._idle = idle
        self._last = 0.0
        """when the last visit began; monotonic seconds"""
        self._longest = 0.0
        """seconds that may have passed between two visits, as the AppServer sees them"""
        self._over = threading.Event()
        self._failures: list[BaseException] = []
        self._thread = threading.Thread(target=self._come)

    def go_on_for(self, seconds: float) -> None:
        assert not self._over.wait(seconds), self._failures

    def go_on(self, visits: int) -> None:
        goal = self.visits + visits
        eventually("visits go on", lambda: self.visits >= goal or self._failures)

    def _come(self) -> None:
        try:
            while not self._over.wait(0.05):
                began = time.monotonic()
                self.seen.add(self._visit())
                self.visits += 1
                self._pause_ends()
                self._last = began
        except BaseException as failure:
            self._failures.append(failure)
            self._over.set()

    def _pause_ends(self) -> None:
        self._longest = max(self._longest, time.monotonic() - self._last)

    def __enter__(self) -> Coming:
        self._last = time.monotonic()
        self.seen.add(self._visit())
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join(TIMEOUT)
        self._pause_ends()
        if self._longest >= self._idle:
            raise StoodStill
        assert self._failures == []


# Dash: the page, then what its JavaScript asks for.

DASH = CACHE | {"app": "dashboard:application"}


def show(visitor: Visitor, name: str) -> str:
    """Choose a dataset; what Dash shows of it."""
    asked = {
        "output": "..graph.figure...told.children..",
        "outputs": [{"id": "graph", "property": "figure"}, {"id": "told", "property": "children"}],
        "inputs": [{"id": "name", "property": "value", "value": name}],
        "changedPropIds": ["name.value"],
    }
    response = visitor.tell("_dash-update-component", method="POST", json=asked)["response"]
    assert len(response["graph"]["figure"]["data"][0]["y"]) == 20
    shown: str = response["told"]["children"]
    return shown


@pytest.fixture(scope="module")
def dashboard() -> Iterator[Cluster]:
    """Each of its AppServers takes a second of processor time to import Dash."""
    with running_cluster(**DASH | {"appservers": {"servers": 3}}) as cluster:
        yield cluster


@pytest.mark.parametrize("name", ["daemon-pypi", *LANES])
def test_a_dash_application_finds_its_cache_again(dashboard: Cluster, name: str) -> None:
    site, numbers = dashboard.site(name), itertools.count()

    def attempt() -> None:
        dashboard.await_ok()
        find_again(site, f"wind {next(numbers)} at {name}")

    unless_it_stands_still(attempt)


def find_again(site: Site, dataset: str) -> None:
    """`dataset`: one that none has loaded before."""
    cluster = site.cluster
    with contextlib.closing(site.visitor()) as visitor:
        page = visitor.get("")
        assert "<title>dashboard</title>" in page.text
        assert page.headers["Cache-Control"] == "private"
        home = cluster.entry(visitor.ticket)
        assert home
        (pid,) = [server["pid"] for server in cluster.status()["appservers"] if server["slot"] == home.identity.slot]
        for source in re.findall(r'<script src="/([^"]+)"', page.text):
            assert visitor.get(source).status_code == 200
        assert visitor.get("_dash-layout").status_code == visitor.get("_dash-dependencies").status_code == 200
        assert show(visitor, dataset) == f"loaded by {pid}"
        with Coming(lambda: show(visitor, dataset)) as coming:
            drain(cluster, home.ticket)
            coming.go_on(3)
        assert coming.seen == {f"from the cache by {pid}"}
        eventually("it leaves", lambda: not cluster.entry(home.ticket))
        assert show(visitor, dataset) != f"from the cache by {pid}"


# python-socketio, by long polling.


def members(site: Site, count: int, stack: contextlib.ExitStack) -> list[Member]:
    """So many clients, each at an AppServer of their own."""
    found: dict[int, Member] = {}
    for _ in range(100):
        member = Member(site)
        if found.setdefault(member.say(), member) is member:
            stack.callback(member.close)
        else:
            member.close()
        if len(found) == count:
            return list(found.values())
    raise AssertionError(f"100 clients came to only {len(found)} AppServers")


def chat(cluster: NewCluster, monkeypatch: pytest.MonkeyPatch, drain_limit: float, **application: Any) -> Cluster:
    """Three AppServers, which ask every client each second whether it is there."""
    monkeypatch.setenv("CHAT_PING_INTERVAL", "1")
    return cluster(
        app="chat:application",
        lint=True,
        cookie=application.pop("session_cookie", ""),
        application=application,
        appservers={"servers": 3, "threads": 16},
        monitor={"drain_limit": drain_limit, "probe_interval": 0.1},
    )


@pytest.mark.parametrize("name", LANES)
def test_a_socketio_client_stays_connected_while_other_appservers_are_recycled_and_killed(
    new_cluster: NewCluster, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    site = chat(new_cluster, monkeypatch, drain_limit=60, **AFFINITY).site(name)
    unless_it_stands_still(lambda: stay_connected(site))


def stay_connected(site: Site) -> None:
    cluster = site.cluster
    cluster.await_ok()
    with contextlib.ExitStack() as stack:
        staying, leaving, third = members(site, 3, stack)
        pid, home, sid = staying.say(), staying.ticket, staying.client.sid
        recycled, killed = leaving.ticket, third.say()
        with leaving.in_use(IDLE):
            drain(cluster, recycled)
            leaving.await_ticks(5)
            leaving.say()
            leaving.assert_unbroken()
        leaving.close()
        while cluster.entry(recycled):
            assert staying.say() == pid
            staying.await_ticks(1)
        cluster.await_ok()
        kill(killed)
        eventually("its client is elsewhere", lambda: third.happened[-1] == "connect" and len(third.happened) > 1)
        third.said = 0
        assert third.say() != killed
        cluster.await_ok()
        for _ in range(5):
            staying.await_ticks(2)
            assert staying.say() == pid
        staying.assert_unbroken()
        assert (staying.ticket, staying.client.sid) == (home, sid)


@pytest.mark.parametrize("name", LANES)
def test_a_socketio_client_whose_appserver_is_ended_connects_anew_by_itself(
    new_cluster: NewCluster, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    cluster = chat(new_cluster, monkeypatch, drain_limit=2, **AFFINITY)
    with contextlib.ExitStack() as stack:
        (member,) = members(cluster.site(name), 1, stack)
        pid, home = member.say(), member.ticket
        drain(cluster, home)
        while cluster.entry(home):
            member.await_ticks(1)
        eventually("it is elsewhere", lambda: member.happened[-1] == "connect" and len(member.happened) > 1)
        member.said = 0
        assert member.say() != pid
        assert member.ticket != home


@pytest.mark.parametrize("name", LANES)
def test_with_a_cookie_of_its_own_socketio_has_sessions_and_a_drain_ends_with_the_last_client(
    new_cluster: NewCluster, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.setenv("CHAT_COOKIE", "io")
    cluster = chat(new_cluster, monkeypatch, drain_limit=0, session_cookie="io", session_count="chat:connected")
    with contextlib.ExitStack() as stack:
        staying, leaving = members(cluster.site(name), 2, stack)
        pid, home = staying.say(), leaving.ticket
        drain(cluster, home)
        leaving.await_ticks(5)
        leaving.say()
        leaving.assert_unbroken()
        assert state_of(cluster, home) is State.DYING
        leaving.close()
        eventually("it leaves", lambda: not cluster.entry(home))
        assert "no session left" in cluster.said()
        assert staying.say() == pid
        staying.assert_unbroken()
