"""The sessions of real frameworks: begun, counted on, ended and drained, under a real httpd.

The lints of PEP 3333, wsgiref's and WebTest's, stand around adaptor and application.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import pytest
import requests
from cluster import LANES, Cluster, Visitor, eventually, running_cluster

from lbadaptor.contract.address import State
from tests.apache.resources import StoodStill, ended, kill, unless_it_stands_still

NewCluster = Callable[..., Cluster]


@dataclass
class Framework:
    app: str
    cookie: str
    count: str = ""
    """session_count; empty: its cookies tell"""
    store: str = ""
    rotates: bool = True
    """a login gives the session another name"""


FRAMEWORKS = {
    "Flask": Framework("flask_site", "session", "flask"),
    "Django": Framework("django_site", "sessionid", "django"),
    "CherryPy": Framework("cherrypy_site", "session_id", "cherrypy"),
    "Webware, Dynamic": Framework("webware_site", "_SID_", "webware", "Dynamic", rotates=False),
    "Webware, Memory": Framework("webware_site", "_SID_", "webware", "Memory", rotates=False),
    "Bottle and Beaker": Framework("bottle_site", "beaker.session.id"),
}


@pytest.fixture(scope="module", params=FRAMEWORKS)
def framework(request: pytest.FixtureRequest) -> Iterator[Framework]:
    found = FRAMEWORKS[request.param]
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SESSION_STORE", found.store)
        yield found


def settings(framework: Framework, idle: float = 3600.0) -> dict[str, Any]:
    return {
        "app": f"{framework.app}:application",
        "lint": True,
        "cookie": framework.cookie,
        "application": {"session_count": framework.count, "session_idle": idle},
        "appservers": {"servers": 2, "own_folder": "own"},
    }


@pytest.fixture(scope="module")
def shared(framework: Framework) -> Iterator[Cluster]:
    with running_cluster(**settings(framework)) as made:
        yield made


def cluster_of(new_cluster: NewCluster, framework: Framework, idle: float = 3600.0) -> Cluster:
    return new_cluster(**settings(framework, idle))


def sessions(cluster: Cluster) -> list[int]:
    """How many each AppServer says it has."""
    return sorted(server["sessions"] for server in cluster.status()["appservers"])


def drain(cluster: Cluster, ticket: str | None) -> int:
    """Drain the AppServer with this ticket; its process."""
    entry = cluster.entry(ticket)
    assert entry is not None
    slot = entry.identity.slot
    (pid,) = [server["pid"] for server in cluster.status()["appservers"] if server["slot"] == slot]
    cluster.lbctl("drain", str(slot))
    eventually("it is DYING", lambda: cluster.table().by_ticket[str(ticket)].state is State.DYING)
    eventually("Apache leads no first visit to it", lambda: str(slot) not in cluster.led_to())
    return int(pid)


class InUse:
    """A session that ends by itself after so many `seconds`; its visitor comes sooner again.

    All methods raise StoodStill where that was not to be.
    """

    def __init__(self, visitor: Visitor, seconds: float) -> None:
        self._visitor = visitor
        self._seconds = seconds
        self._last = time.monotonic()
        """when the last visit began"""
        self.home: int = visitor.count()["pid"]
        """the process that has it"""

    def come(self) -> None:
        began = time.monotonic()
        try:
            assert self._visitor.count()["pid"] == self.home
        finally:
            if time.monotonic() - self._last >= self._seconds:
                raise StoodStill
            self._last = began

    def is_counted(self, cluster: Cluster) -> bool:
        self.come()
        return 1 in sessions(cluster)

    def drain(self, cluster: Cluster) -> None:
        """Drain its AppServer."""
        with ThreadPoolExecutor(1) as pool:
            draining = pool.submit(drain, cluster, self._visitor.ticket)
            while not draining.done():
                self.come()
            assert draining.result() == self.home


@pytest.mark.parametrize("name", LANES)
def test_sessions_are_counted_on_outlive_a_login_end_with_a_logout_are_waited_for_and_begin_anew(
    shared: Cluster, framework: Framework, name: str
) -> None:
    cluster = shared
    site = cluster.site(name)
    anonymous = site.visitor()
    assert "Set-Cookie" not in anonymous.get("plain").headers
    one, other = site.visitors(2)
    homes = {visitor: visitor.count()["pid"] for visitor in (one, other)}
    eventually("both are counted, and those who logged out are not", lambda: sessions(cluster) == [1, 1])

    before = one.http.cookies[framework.cookie]
    one.tell("login/ada" if framework.rotates else "login?user=ada", method="POST")
    told = one.count()
    assert (told["user"], told["pid"]) == ("ada", homes[one])
    assert (one.http.cookies[framework.cookie] != before) == framework.rotates

    pid = drain(cluster, one.ticket)
    assert pid == homes[one]
    for _ in range(3):
        assert one.count()["pid"] == pid
        assert other.count()["pid"] == homes[other]
    for _ in range(4):
        newcomer = site.visitor()
        assert newcomer.count()["pid"] != pid
        newcomer.tell("logout")
        newcomer.close()
    assert not ended(pid)
    one.tell("logout")
    assert list(one.http.cookies) == []
    eventually("its last session has ended", lambda: ended(pid))
    assert other.count()["pid"] == homes[other]

    kill(homes[other])
    other.forget()
    assert other.count()["pid"] != homes[other], "a new session, and no error"
    assert other.count()["user"] is None
    other.tell("logout")
    cluster.await_ok()
    for visitor in (anonymous, one, other):
        visitor.close()


def test_a_session_that_ends_by_itself_is_not_waited_for(
    new_cluster: NewCluster, framework: Framework, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The framework's store says when; session_idle is longer, but for the one whose store cannot be asked."""
    monkeypatch.setenv("SESSION_SECONDS", "3")
    cluster = cluster_of(new_cluster, framework, idle=3600.0 if framework.count else 3.0)
    site = cluster.site("embedded-debian")

    def attempt() -> None:
        cluster.await_ok()
        with contextlib.closing(site.visitor()) as visitor:
            used = InUse(visitor, 2.0)  # some stores count whole seconds
            eventually("it is counted", lambda: used.is_counted(cluster))
            used.drain(cluster)
            eventually("the session ends", lambda: ended(used.home))
            visitor.forget()
            assert visitor.count()["pid"] != used.home

    unless_it_stands_still(attempt)


def test_sessions_that_no_process_holds_outlive_it_and_a_drain_ends_by_idle_time(
    new_cluster: NewCluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SESSION_ENGINE", "django.contrib.sessions.backends.signed_cookies")
    cluster = cluster_of(new_cluster, Framework("django_site", "sessionid"), idle=2.0)
    cluster.await_said("the sessions are in django.contrib.sessions.backends.signed_cookies")
    site = cluster.site("embedded-debian")

    def attempt() -> None:
        cluster.await_ok()
        with contextlib.closing(site.visitor()) as visitor:
            used = InUse(visitor, 2.0)
            used.drain(cluster)
            used.come()
            eventually("nobody has used it for long enough", lambda: ended(used.home))
            assert visitor.count()["pid"] != used.home

    unless_it_stands_still(attempt)


@pytest.mark.parametrize("name", LANES)
def test_an_application_can_say_itself_who_has_a_session(new_cluster: NewCluster, name: str) -> None:
    cluster = cluster_of(new_cluster, Framework("spoken", "visitor"))
    site = cluster.site(name)
    anonymous = site.visitor()
    assert not anonymous.tell("plain")["living"]
    assert list(anonymous.http.cookies) == []
    one, other = site.visitor(), site.visitor()
    homes: dict[Visitor, int] = {}
    for visitor, name in ((one, "ada"), (other, "bob")):
        visitor.http.auth = (name, "secret")
        homes[visitor] = visitor.count()["pid"]
    assert "Set-Cookie" not in one.get("count").headers, "it has its ticket"
    eventually("both are counted", lambda: sum(sessions(cluster)) == 2)
    pid = drain(cluster, one.ticket)
    told = one.tell("count")
    assert told == {"pid": homes[one], "living": True, "visits": 3}
    assert anonymous.tell("plain")["pid"] != pid
    for visitor in (one, other):
        visitor.tell("logout")
        assert not visitor.ticket
    eventually("its last session has ended", lambda: ended(pid))
    for visitor in (anonymous, one, other):
        visitor.close()


@pytest.mark.parametrize("name", LANES)
def test_a_cookie_that_changes_with_each_answer_is_one_session(new_cluster: NewCluster, name: str) -> None:
    cluster = cluster_of(new_cluster, Framework("changing_site", "session"))
    site = cluster.site(name)
    visitor, other = site.visitors(2)
    home = visitor.count()["pid"]
    for number in range(5):
        with ThreadPoolExecutor(3) as pool:
            answers = list(pool.map(lambda _: in_parallel(visitor), range(3)))
        assert {answer.json()["pid"] for answer in answers} == {home}
        kept = answers[number % 3].cookies  # whichever arrives last
        assert kept["session"] not in (visitor.http.cookies["session"], answers[number % 3 - 1].cookies["session"])
        visitor.http.cookies.set("session", kept["session"], domain="127.0.0.1", path="/")
        visitor.visits += 3
    eventually("each visitor is counted once", lambda: sessions(cluster) == [1, 1])
    visitor.tell("clear")
    visitor.count()
    assert drain(cluster, visitor.ticket) == home
    visitor.tell("clear")
    assert visitor.count()["pid"] == home
    assert visitor.tell("logout")["known"]
    eventually("its last session has ended", lambda: ended(home))
    assert other.tell("logout")["known"]
    for one in (visitor, other):
        one.close()


def in_parallel(visitor: Visitor) -> requests.Response:
    """A request as a browser sends it that waits for no other; its answer's cookies are not kept yet."""
    cookies = dict(visitor.http.cookies)
    with requests.Session() as http:
        http.trust_env = False
        header = {"Cookie": "; ".join(f"{name}={value}" for name, value in cookies.items())}
        return http.get(f"{visitor.url}/count", headers=header, timeout=30)


def test_a_session_cookie_that_is_not_the_frameworks_is_said_at_the_start(new_cluster: NewCluster) -> None:
    cluster = cluster_of(new_cluster, Framework("flask_site", "sid"))
    said = "its framework names its session cookie `session`"
    cluster.await_said(said)
    eventually("the status says so", lambda: said in cluster.lbctl("status"))
    site = cluster.site("embedded-debian")
    visitor = site.visitor()
    visitor.tell("count")
    assert not visitor.ticket
    eventually("and what is set", lambda: "the application sets: session" in cluster.lbctl("status"))
    visitor.close()
