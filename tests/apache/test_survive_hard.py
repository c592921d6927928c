"""Sessions outlive their process where more goes wrong at once: two applications, an old address.text, preload."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from cluster import SNIPPETS, Cluster, Site, Visitor, eventually, running_cluster
from test_survive import twenty_at_once

from tests.apache.resources import ended, kill
from tests.folders import delete

SECONDS = 10.0
"""within which an AppServer that leaves is gone, on a busy machine too; its session_idle is half an hour"""
SURVIVES = {"survive": "anything", "save": "visits:save", "load": "visits:load"}

NewCluster = Callable[..., Cluster]


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    with running_cluster(sessions=SURVIVES, appservers={"servers": 2, "preload": True}) as running:
        yield running


@pytest.fixture(scope="module", params=["embedded-debian", "daemon-debian", "cgi-debian", "fast-debian"])
def site(cluster: Cluster, request: pytest.FixtureRequest) -> Site:
    return cluster.site(request.param)


def drain(cluster: Cluster, told: dict[str, Any]) -> None:
    """Order the AppServer that has answered this to leave, and wait until it is gone."""
    cluster.lbctl("drain", str(told["slot"]))
    eventually("the old process is gone", lambda: ended(told["pid"]), SECONDS)


def moved(visitor: Visitor) -> dict[str, Any]:
    """A visit that is counted on in another process."""
    told = visitor.count()
    assert (told["lost"], told["moved"]) == (False, True)
    return told


def settle(cluster: Cluster, ticket: str | None) -> None:
    """Wait until the monitor has written that this one is gone, and another one has come."""
    eventually("address.text does not name it", lambda: cluster.entry(ticket) is None)
    cluster.await_ok()


def test_apache_goes_by_an_old_address_text(cluster: Cluster, site: Site) -> None:
    """It names an AppServer that has moved its sessions and is gone, and does not name the one that has come."""
    visitor = site.visitor()
    first, ticket = visitor.count(), visitor.ticket
    old = cluster.address_file.read_bytes()
    drain(cluster, first)
    settle(cluster, ticket)
    with cluster.stopped_monitor():
        cluster.write_addresses(old)
        assert moved(visitor)["pid"] != first["pid"]
    settle(cluster, ticket)


def test_killed_and_address_text_is_not_written_meanwhile(cluster: Cluster, site: Site) -> None:
    visitor = site.visitor()
    visitor.http.headers["Connection"] = "close"  # else the fast lane leaves it to the browser to repeat
    first, ticket = visitor.count(), visitor.ticket
    with cluster.stopped_monitor():
        kill(first["pid"], signal.SIGSEGV)
        again = moved(visitor)
        assert again["pid"] != first["pid"]
        assert visitor.count()["pid"] == again["pid"]
    settle(cluster, ticket)


def test_twenty_at_once_after_a_kill_are_all_at_one_with_the_session(cluster: Cluster, site: Site) -> None:
    visitor = site.visitor()
    kill(visitor.count()["pid"])
    ticket = visitor.ticket
    answers = twenty_at_once(site, visitor)
    assert len({answer["pid"] for answer in answers}) == 1
    settle(cluster, ticket)


def test_two_applications_on_one_apache_keep_theirs_apart(new_cluster: NewCluster) -> None:
    """Each has a folder of its own; what becomes of one is nothing to the other."""
    shop = new_cluster(sessions=SURVIVES, appservers={"servers": 2})
    board = new_cluster(
        application={"ticket_cookie": "__BOARD__"}, sessions=SURVIVES, appservers={"servers": 2, "preload": True}
    )
    more = (
        f"Define LBADAPTOR_CONFIG {board.config}\nDefine LBADAPTOR_MOUNT /board\n"
        f"Include ${{LBADAPTOR_SHARE}}/{SNIPPETS['embedded']}\n"
    )
    site = shop.site("embedded-debian", mount="/shop", extra=more)
    one = site.visitor()
    other = Visitor(site.url.replace("/shop", "/board"))
    other.http = one.http
    here, there = one.count(), other.count()
    kill(here["pid"])
    drain(board, there)
    here, there = moved(one), moved(other)
    shop.order_to_stop()
    shop.await_end()
    assert other.count()["pid"] == there["pid"]
    shop.start()
    moved(one)
    assert other.count()["pid"] == there["pid"]
    one.tell("logout")
    kill(there["pid"])
    moved(other)
    assert shop.settings.session_folder != board.settings.session_folder


def test_a_deleted_folder_and_key_file_cost_no_session_that_lives(new_cluster: NewCluster) -> None:
    cluster = new_cluster(sessions=SURVIVES, appservers={"servers": 2})
    site = cluster.site("embedded-debian")
    visitor = site.visitor()
    first = visitor.count()
    folder = Path(cluster.settings.session_folder)
    delete(folder)
    eventually("it is made anew", lambda: list(folder.glob("at.*/lock")), SECONDS)
    keys = cluster.settings.key_file
    keys.rename(keys.with_name("gone"))
    try:
        site.httpd.reload()
        drain(cluster, first)
    finally:
        keys.with_name("gone").rename(keys)
    told = eventually("Apache has its keys again", lambda: counted(visitor))
    assert (told["visits"], told["lost"], told["moved"]) == (2, False, True)


def counted(visitor: Visitor) -> dict[str, Any] | None:
    """What a visit tells; None: 503 for the moment."""
    answer = visitor.get("count")
    found: dict[str, Any] | None = answer.json() if answer.status_code == 200 else None
    return found
