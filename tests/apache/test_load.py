"""Weights and a hot standby, under a real Apache httpd."""

from __future__ import annotations

import contextlib
import errno
import socket
from collections import Counter
from collections.abc import Callable

import pytest
from cluster import LANES, Cluster, Site, eventually

from lbadaptor.contract.address import Address
from tests.apache.resources import kill

NewCluster = Callable[..., Cluster]


def slots(site: Site, visitors: int) -> Counter[int]:
    """Where new visitors come to."""
    found: Counter[int] = Counter()
    for _ in range(visitors):
        with contextlib.closing(site.visitor()) as visitor:
            visitor.count()
            entry = site.cluster.entry(visitor.ticket)
            assert entry is not None
            found[entry.identity.slot] += 1
    return found


def refuses(address: Address) -> bool:
    """Whether nobody listens there any more."""
    with socket.socket() as trial:
        return trial.connect_ex(address) == errno.ECONNREFUSED


@pytest.mark.parametrize("name", LANES)
def test_the_standby_gets_visitors_when_no_other_is_ok_and_not_before(new_cluster: NewCluster, name: str) -> None:
    cluster = new_cluster(appservers={"servers": 2, "standby": 1, "warm_up": ["/plain"]})
    site = cluster.site(name)
    eventually("the standby is OK, too", lambda: len(cluster.table().ok) == 3)
    assert set(slots(site, 40)) == {0, 1}
    old = set(cluster.table().by_ticket)
    pids = {appserver["slot"]: appserver["pid"] for appserver in cluster.status()["appservers"]}
    with cluster.stopped_monitor():  # nobody replaces them meanwhile
        for slot in (0, 1):
            kill(pids[slot])
        gone = [entry.address for entry in cluster.table().ok if entry.weight]
        eventually("they are gone", lambda: all(map(refuses, gone)))
        assert slots(site, 20) == {2: 20}

    def others() -> set[int]:
        return {entry.identity.slot for entry in cluster.table().ok if entry.weight and entry.ticket not in old}

    replaced = eventually("they are replaced", lambda: others() if len(others()) == 2 else None)
    assert set(slots(site, 40)) == replaced


@pytest.mark.parametrize("name", LANES)
def test_visitors_come_by_weight(new_cluster: NewCluster, name: str) -> None:
    cluster = new_cluster(appservers={"servers": 2, "weights": [100, 25]}, adaptor={"policy": "random"})
    site = cluster.site(name)
    found = slots(site, 400)
    assert 40 < found[1] < 130  # 80 of 400 are its share; farther off is less likely than 1 in 10,000,000
