"""Fixtures: clusters that several tests share, and clusters of a test's own."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from cluster import SITES, Cluster, Site, running_cluster
from corpus import prepare
from demo_fixture import Demo
from fast_site import APP, MODES, FastSite

from tests.apache.resources import short_folder


@pytest.fixture(scope="module")
def random_cluster() -> Iterator[Cluster]:
    """Four AppServers; visitors come to any of them, at random. The tests of each site kill some of them."""
    with running_cluster(adaptor={"policy": "random"}, monitor={"backoff_limit": 0.1}) as made:
        yield made


@pytest.fixture(scope="module", params=SITES)
def site(random_cluster: Cluster, request: pytest.FixtureRequest) -> Site:
    """An httpd before them, for each way to run the adaptor, and for the fast lane."""
    return random_cluster.site(request.param)


@pytest.fixture(scope="module")
def quiet_cluster() -> Iterator[Cluster]:
    """Four AppServers, the less loaded preferred, for tests in which every session ends in order."""
    with running_cluster(monitor={"backoff_limit": 0.1}) as made:
        yield made


@pytest.fixture(scope="module", params=SITES)
def quiet_site(quiet_cluster: Cluster, request: pytest.FixtureRequest) -> Site:
    """An httpd before them, in each of those ways."""
    return quiet_cluster.site(request.param)


@pytest.fixture
def new_cluster() -> Iterator[Callable[..., Cluster]]:
    """Makes clusters for one test alone."""
    with contextlib.ExitStack() as stack:
        yield lambda **settings: stack.enter_context(running_cluster(**settings))


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    """Two AppServers for the tests of the fast lane."""
    servers = {"servers": 2, "threads": 2}
    monitor = {"probe_interval": 0.1, "backoff_limit": 0.1}
    with running_cluster(app=APP, appservers=servers, adaptor={"wait": 10}, monitor=monitor) as made:
        prepare(made.folder)
        yield made


@pytest.fixture(scope="module", params=MODES)
def fast(request: pytest.FixtureRequest, cluster: Cluster) -> FastSite:
    """A fast lane before each way to run the adaptor."""
    return FastSite(cluster, request.param)


@pytest.fixture(scope="module")
def embedded(cluster: Cluster) -> FastSite:
    """A fast lane to a mount."""
    return FastSite(cluster, "embedded-debian", "/deep/mount")


@pytest.fixture
def folder() -> Iterator[Path]:
    with short_folder() as made:
        yield made


@pytest.fixture
def demo(folder: Path) -> Iterator[Callable[..., Demo]]:
    """Starts demos, in a folder each."""
    with contextlib.ExitStack() as stack:

        def start(*words: str, **options: Any) -> Demo:
            started = Demo(folder, *words, **options)
            stack.callback(started.clear)
            return started

        yield start
