"""Who decides how many sessions live."""

from __future__ import annotations

import logging

import pytest

from lbadaptor.appserver.sessions.count import PAUSE, Count, at_most, by_application, by_cookies, by_store
from lbadaptor.appserver.sessions.table import SessionTable


class Stage:
    """A table with two sessions, a count that says `number` after `cost` seconds, and a clock."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.number: int | None = 0
        self.cost = 0.0
        self.asked = 0
        self.table = SessionTable(3600.0)
        for value in "ab":
            self.table.assign(value, (), self.now)

    def count(self) -> int:
        self.asked += 1
        self.now += self.cost
        if self.number is None:
            raise KeyError("no store")
        return self.number

    def clock(self) -> float:
        return self.now


@pytest.fixture
def stage() -> Stage:
    return Stage()


def test_cookies(stage: Stage) -> None:
    assert by_cookies(stage.table, stage.clock)() == 2


@pytest.mark.parametrize(("number", "counted"), [(0, 0), (1, 1), (2, 2), (5, 5), (-1, 0)])
def test_the_applications_own_count_alone_decides(stage: Stage, number: int, counted: int) -> None:
    stage.number = number
    assert by_application(stage.count, stage.table, stage.clock)() == counted


@pytest.mark.parametrize(("number", "counted"), [(0, 0), (1, 1), (2, 2), (5, 2)])
def test_of_store_and_table_the_smaller_counts(stage: Stage, number: int, counted: int) -> None:
    stage.number = number
    assert by_store(stage.count, stage.table, stage.clock)() == counted


@pytest.mark.parametrize("way", [by_application, by_store])
def test_while_it_fails_the_cookies_decide_and_that_is_said_once(
    stage: Stage, caplog: pytest.LogCaptureFixture, way: type
) -> None:
    counted: Count = way(stage.count, stage.table, stage.clock)
    with caplog.at_level(logging.ERROR, "lbadaptor.appserver"):
        for stage.number in (None, None, 1, None):
            assert counted() == (2 if stage.number is None else 1)
    assert len(caplog.records) == 2


@pytest.mark.parametrize("way", [by_application, by_store])
def test_a_slow_count_is_asked_less_often(stage: Stage, way: type) -> None:
    counted: Count = way(stage.count, stage.table, stage.clock)
    stage.number, stage.cost = 1, 0.1
    assert counted() == 1
    stage.number = 2
    stage.now += PAUSE * stage.cost - 0.1
    assert counted() == 1
    assert stage.asked == 1
    stage.now += 0.11
    assert counted() == 2
    assert stage.asked == 2


@pytest.mark.parametrize("way", [by_application, by_store])
def test_none_is_never_an_old_answer(stage: Stage, way: type) -> None:
    counted: Count = way(stage.count, stage.table, stage.clock)
    stage.cost = 0.1
    assert counted() == 0
    stage.number = 1
    assert counted() == 1


def test_a_cookie_without_a_session_in_the_store_is_not_waited_for() -> None:
    for told, kept in ((3, 2), (2, 3)):
        assert at_most(lambda told=told: told, lambda kept=kept: kept)() == 2  # type: ignore[misc]
