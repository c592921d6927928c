"""Vitals: who is admitted, what every answer says, and when nothing is left."""

from __future__ import annotations

import os
import threading
import time

import pytest

from lbadaptor.appserver import vitals as module
from lbadaptor.appserver.vitals import Vitals
from lbadaptor.headers import Refusal


@pytest.fixture
def vitals() -> Vitals:
    return Vitals(slot=3, generation=17, threads=2, max_requests=2)


@pytest.mark.parametrize(
    ("dying", "stopping", "known", "refusal"),
    [
        (False, False, False, None),
        (False, False, True, None),
        (True, False, True, None),
        (True, False, False, Refusal.DYING),
        (False, True, False, Refusal.DYING),
        (False, True, True, Refusal.DYING),
        (True, True, True, Refusal.DYING),
    ],
)
def test_who_is_admitted(vitals: Vitals, dying: bool, stopping: bool, known: bool, refusal: Refusal | None) -> None:
    vitals.dying, vitals.stopping = dying, stopping
    assert vitals.admit(known) is refusal
    assert vitals.in_flight == (refusal is None)


def test_beyond_the_queue_a_request_is_refused_as_busy(vitals: Vitals) -> None:
    for _ in range(vitals.threads + vitals.queue):
        assert vitals.admit(False) is None
    assert vitals.admit(True) is Refusal.BUSY
    vitals.end()
    assert vitals.admit(False) is None


def test_a_request_is_in_flight_until_its_end_and_then_served(vitals: Vitals) -> None:
    vitals.admit(False)
    assert (vitals.in_flight, vitals.served) == (1, 0)
    vitals.end()
    assert (vitals.in_flight, vitals.served) == (0, 1)


def test_wait_idle_returns_at_the_end_of_the_last_request(vitals: Vitals) -> None:
    vitals.admit(False)
    vitals.admit(False)
    assert not vitals.wait_idle(0.0)
    idle: list[bool] = []
    waiter = threading.Thread(target=lambda: idle.append(vitals.wait_idle(10.0)))
    waiter.start()
    vitals.end()
    assert not idle
    vitals.end()
    waiter.join(10.0)
    assert idle == [True]


@pytest.mark.parametrize(
    ("dying", "stopping", "status"),
    [(False, False, "OK"), (True, False, "DYING"), (False, True, "DYING"), (True, True, "DYING")],
)
def test_every_answer_says_status_and_load(vitals: Vitals, dying: bool, stopping: bool, status: str) -> None:
    vitals.admit(False)
    vitals.dying, vitals.stopping, vitals.sessions = dying, stopping, 41
    assert vitals.headers() == f"LB-Status: {status}\r\nLB-Load: 1/2/41\r\n"


@pytest.mark.parametrize(("served", "limit"), [(1, ""), (2, "requests"), (3, "requests")])
def test_past_the_number_of_requests(vitals: Vitals, served: int, limit: str) -> None:
    vitals.served = served
    assert vitals.past_limit == limit


def test_past_an_age(monkeypatch: pytest.MonkeyPatch) -> None:
    vitals = Vitals(0, 1, 2, max_age=60.0)
    assert vitals.past_limit == ""
    now = time.monotonic()
    monkeypatch.setattr(module.time, "monotonic", lambda: now + 59)
    assert vitals.past_limit == ""
    monkeypatch.setattr(module.time, "monotonic", lambda: now + 60)
    assert vitals.past_limit == "age"


def test_past_a_resident_memory() -> None:
    resident = Vitals(0, 1, 2).report()["memory"]
    assert Vitals(0, 1, 2, max_memory=resident * 2).past_limit == ""
    assert Vitals(0, 1, 2, max_memory=resident // 2).past_limit == "memory"


def test_a_memory_that_is_needed_from_the_start_is_no_limit(caplog: pytest.LogCaptureFixture) -> None:
    vitals = Vitals(0, 1, 2, max_memory=1000)
    vitals.warm()
    assert vitals.past_limit == ""
    assert "max_memory = 1000 is less than it needs from the start" in caplog.text


def test_what_the_warm_up_served_does_not_count(vitals: Vitals) -> None:
    assert vitals.report()["ready"] is False
    for _ in range(2):
        vitals.admit(False)
        vitals.end()
    vitals.warm()
    assert (vitals.served, vitals.past_limit) == (0, "")
    assert vitals.report()["ready"] is True


def test_no_number_of_requests_is_no_limit() -> None:
    vitals = Vitals(0, 1, 2)
    vitals.served = 1_000_000
    assert vitals.past_limit == ""


@pytest.mark.parametrize(
    ("dying", "in_flight", "sessions", "empty"),
    [
        (True, 0, 0, True),
        (False, 0, 0, False),
        (True, 1, 0, False),
        (True, 0, 1, False),
    ],
)
def test_empty_is_dying_with_no_session_and_nothing_in_flight(
    vitals: Vitals, dying: bool, in_flight: int, sessions: int, empty: bool
) -> None:
    vitals.dying, vitals.in_flight = dying, in_flight
    vitals.look(lambda: sessions)
    assert vitals.empty is empty
    assert vitals.sessions == sessions


def test_a_session_that_a_request_leaves_while_the_sessions_are_counted_is_not_overlooked(vitals: Vitals) -> None:
    vitals.admit(False)
    vitals.dying = True

    def count_just_before_the_session_is_assigned() -> int:
        vitals.end()
        return 0

    vitals.look(count_just_before_the_session_is_assigned)
    assert not vitals.empty


def test_the_report_of_a_request_that_ended_since_the_last_look_does_not_say_empty(vitals: Vitals) -> None:
    vitals.admit(False)
    vitals.dying = True
    vitals.look(lambda: 0)
    vitals.end()  # and it may have left a session
    assert vitals.report()["empty"] is False


def test_the_report_names_everything_a_probe_asks(vitals: Vitals) -> None:
    vitals.admit(False)
    vitals.sessions, vitals.longest_session, vitals.served = 41, 12.34, 2
    report = vitals.report()
    assert report.pop("memory") > 1_000_000
    assert report.pop("cpu") > 0
    assert 0 <= report.pop("uptime") < 60
    assert report == {
        "status": "OK",
        "ready": False,
        "past_limit": "requests",
        "empty": False,
        "slot": 3,
        "generation": 17,
        "pid": os.getpid(),
        "sessions": 41,
        "longest_session": 12.3,
        "in_flight": 1,
        "threads": 2,
        "served": 2,
    }
