"""The whole under a real Apache httpd: limits, releases, drains and graceful restarts."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from pathlib import Path

import pytest
from cluster import SITES, Cluster, Load, Site, eventually

from lbadaptor.contract.address import State, Table
from tests.apache.visitors import raw

NewCluster = Callable[..., Cluster]


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
        eventually("Apache leads no first visit to it", lambda: str(home).split(".")[0] not in cluster.led_to())
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
    visitors, length, visits = (2, 3, 10) if quiet_site.mode == "cgi" else (4, 6, 20)  # as CGI each starts a Python
    with Tables(cluster) as tables, Load(quiet_site, visitors=visitors, length=length) as load:
        load.go_on(visits)
        assert "replacing 4 AppServers" in cluster.lbctl("restart")
        eventually(
            "the old ones are gone", lambda: before.isdisjoint(entry.identity for entry in cluster.table().entries)
        )
        load.go_on(visits)
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

    # A visitor's kept connection is closed by httpd, as it may be at any time; so each visit has its own.
    with Load(site, visitors=4, length=6, keep_alive=False) as load:
        for _ in range(2):
            load.go_on(10)
            before = site.children()
            site.httpd.reload()
            eventually("its processes are new ones", lambda before=before: before.isdisjoint(site.children()))
            load.go_on(20)
