"""Fixtures of the gateway's tests."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
from gateway_stage import ASSIGNMENT, Application, Harness

from lbadaptor.appserver.http import schedule
from lbadaptor.appserver.process.messages import Assignment


@pytest.fixture(autouse=True, params=["fast", "plain"])
def schedule_name(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Every test runs with both schedules."""
    name = str(request.param)
    monkeypatch.setenv(schedule.VARIABLE, name)
    return name


@pytest.fixture
def serve() -> Iterator[Callable[..., Harness]]:
    harnesses: list[Harness] = []

    def start(application: Application, threads: int = 2, assignment: Assignment = ASSIGNMENT) -> Harness:
        harnesses.append(Harness(application, threads, assignment))
        return harnesses[-1]

    yield start
    for harness in harnesses:
        harness.end()
