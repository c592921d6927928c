"""Fixtures: clusters that several tests share, and clusters of a test's own."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator

import pytest
from cluster import SITES, Cluster, Site, running_cluster


@pytest.fixture(scope="module", params=SITES)
def site(request: pytest.FixtureRequest) -> Iterator[Site]:
    """Four AppServers behind one httpd, for each way to run the adaptor. Visitors come to any of them, at random."""
    with running_cluster(adaptor={"policy": "random"}) as made:
        yield made.site(request.param)


@pytest.fixture(scope="module", params=SITES)
def quiet_site(request: pytest.FixtureRequest) -> Iterator[Site]:
    """The same, the less loaded preferred, for tests in which every session ends in order."""
    with running_cluster() as made:
        yield made.site(request.param)


@pytest.fixture
def new_cluster() -> Iterator[Callable[..., Cluster]]:
    """Makes clusters for one test alone."""
    with contextlib.ExitStack() as stack:
        yield lambda **settings: stack.enter_context(running_cluster(**settings))
