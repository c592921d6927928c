"""Three machines for each module, healthy before each test. The tests' names say where the machines live."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from tests.machines.site import Site, running_site


@pytest.fixture(scope="module", params=["namespaces" if os.geteuid() == 0 else "loopback"])
def running(request: pytest.FixtureRequest) -> Iterator[Site]:
    """With the module's own SETTINGS, if it has some."""
    with running_site(getattr(request.module, "SETTINGS", {})) as made:
        yield made


@pytest.fixture
def site(running: Site) -> Iterator[Site]:
    running.await_health()
    try:
        yield running
    finally:
        running.restore()
