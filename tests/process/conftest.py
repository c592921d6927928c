"""Fixtures: a monitor for one test, and AppServers without one. A failed test reports what the monitor has said."""

from __future__ import annotations

import textwrap
from collections.abc import Generator, Iterator
from pathlib import Path
from typing import Any

import pytest
from appserver_fixture import SITE, AppServer, Start
from monitor_fixture import SLOTS, Site

from lbadaptor.appserver.process.messages import Assignment
from tests.ports import held_ports

MAX_LOG = 20_000
"""Characters of a log in a report."""


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    """Not started yet. Whatever a test does to it, nothing is left of it."""
    with held_ports(SLOTS) as base_port:
        site = Site(tmp_path, base_port)
        try:
            yield site
        finally:
            site.clear()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "site_.py").write_text(textwrap.dedent(SITE))
    return tmp_path


@pytest.fixture
def start(folder: Path) -> Iterator[Start]:
    started: list[AppServer] = []

    def run(app: str, environment: dict[str, str] | None = None, **assignment: Any) -> AppServer:
        made = Assignment(
            f"site_:{app}" if ":" not in app else app,
            **{
                "session_cookie": "_SID_",
                "generation": 17,
                "ticket": "3.17.x",
                "caller_key": "caller's",
                "probe_key": "probe's",
                **assignment,
            },
        )
        started.append(AppServer(folder, made, [], **(environment or {})))
        return started[-1]

    yield run
    for appserver in started:
        appserver.close()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    site = getattr(item, "funcargs", {}).get("site")
    if report.failed and isinstance(site, Site):
        report.sections.append(("monitor's log", site.said[-MAX_LOG:]))
    return report
