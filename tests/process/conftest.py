"""Fixture: a monitor for one test. The report of a failed test ends with what the monitor and its AppServers said."""

from __future__ import annotations

from collections.abc import Generator, Iterator
from pathlib import Path

import pytest
from monitor_fixture import SLOTS, Site, free_ports

MAX_LOG = 20_000
"""Characters of a log in a report."""


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    """Not started yet. Whatever a test does to it, nothing is left of it."""
    with free_ports(SLOTS) as base_port:
        site = Site(tmp_path, base_port)
        try:
            yield site
        finally:
            site.clear()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    site = getattr(item, "funcargs", {}).get("site")
    if report.failed and isinstance(site, Site):
        report.sections.append(("monitor's log", site.said[-MAX_LOG:]))
    return report
