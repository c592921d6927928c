"""A problem is said when it begins, when it changes, and when it is over; never twice."""

from __future__ import annotations

import logging

import pytest

from monitor.policy.problems import MAX_LENGTH, MAX_PROBLEMS, Problems


@pytest.fixture
def log(caplog: pytest.LogCaptureFixture) -> pytest.LogCaptureFixture:
    caplog.set_level(logging.INFO, "lbmonitor")
    return caplog


def test_each_is_said_once_and_once_when_it_is_over(log: pytest.LogCaptureFixture) -> None:
    problems = Problems()
    problems.end("disk")
    for _ in range(3):
        problems.begin("disk", "the disk is full")
    assert list(problems) == ["the disk is full"]
    assert "disk" in problems
    problems.begin("disk", "the disk is read-only")
    for _ in range(3):
        problems.end("disk", "the disk takes files again")
    assert not list(problems)
    problems.say("disk", "the disk is full")
    problems.say("disk", "")
    assert log.messages == [
        *("the disk is full", "the disk is read-only", "the disk takes files again"),
        *("the disk is full", "over: the disk is full"),
    ]


def test_their_number_and_length_are_bounded() -> None:
    problems = Problems()
    for number in range(2 * MAX_PROBLEMS):
        problems.begin(str(number), "x" * 2 * MAX_LENGTH)
    assert [len(text) for text in problems] == [MAX_LENGTH] * MAX_PROBLEMS
