"""Fixture: a monitor for one test."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from monitor_fixture import SLOTS, Site, free_ports


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    """Not started yet. Whatever a test does to it, nothing is left of it."""
    with free_ports(SLOTS) as base_port:
        site = Site(tmp_path, base_port)
        try:
            yield site
        finally:
            site.clear()
