"""Status: what every answer says, and when nothing is left."""

from __future__ import annotations

import os
import time

import pytest

from lbadaptor.appserver.http import status as module
from lbadaptor.appserver.http.admission import Admission
from lbadaptor.appserver.http.status import Status
from lbadaptor.appserver.wsgi.environ import Request


@pytest.fixture
def status() -> Status:
    return Status(slot=3, generation=17, admission=Admission(2, 256), max_requests=2)


def admit(status: Status) -> None:
    """A request begins."""
    assert status.admission.admit("task", known=False, held=False) is None
    assert status.admission.begin() == "task"


@pytest.mark.parametrize(
    ("dying", "stopping", "word"),
    [(False, False, "OK"), (True, False, "DYING"), (False, True, "DYING"), (True, True, "DYING")],
)
def test_every_answer_says_status_and_load(status: Status, dying: bool, stopping: bool, word: str) -> None:
    admit(status)
    status.admission.dying, status.admission.stopping, status.sessions = dying, stopping, 41
    assert status.headers() == f"LB-Status: {word}\r\nLB-Load: 1/2/41\r\n".encode()


@pytest.mark.parametrize(("served", "limit"), [(1, ""), (2, "requests"), (3, "requests")])
def test_past_the_number_of_requests(status: Status, served: int, limit: str) -> None:
    status.admission.served = served
    assert status.past_limit == limit


def test_past_an_age(monkeypatch: pytest.MonkeyPatch) -> None:
    status = Status(0, 1, Admission(2, 256), max_age=60.0)
    assert status.past_limit == ""
    now = time.monotonic()
    monkeypatch.setattr(module, "monotonic", lambda: now + 59)
    assert status.past_limit == ""
    monkeypatch.setattr(module, "monotonic", lambda: now + 60)
    assert status.past_limit == "age"


def test_past_a_resident_memory() -> None:
    resident = Status(0, 1, Admission(2, 256)).report()["memory"]
    assert Status(0, 1, Admission(2, 256), max_memory=resident * 2).past_limit == ""
    assert Status(0, 1, Admission(2, 256), max_memory=resident // 2).past_limit == "memory"


def test_a_memory_that_is_needed_from_the_start_is_no_limit(caplog: pytest.LogCaptureFixture) -> None:
    status = Status(0, 1, Admission(2, 256), max_memory=1000)
    status.warm()
    assert status.past_limit == ""
    assert "max_memory = 1000 is less than this AppServer needs from the start" in caplog.text


def test_what_the_warm_up_served_does_not_count(status: Status) -> None:
    assert status.report()["ready"] is False
    for _ in range(2):
        admit(status)
        status.admission.end(0.0)
    status.warm()
    assert (status.admission.served, status.past_limit) == (0, "")
    assert status.report()["ready"] is True


def test_no_number_of_requests_is_no_limit() -> None:
    status = Status(0, 1, Admission(2, 256))
    status.admission.served = 1_000_000
    assert status.past_limit == ""


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
    status: Status, dying: bool, in_flight: int, sessions: int, empty: bool
) -> None:
    status.admission.dying, status.admission.in_flight = dying, in_flight
    status.look(lambda: sessions)
    assert status.empty is empty
    assert status.sessions == sessions


def test_a_session_that_a_request_leaves_while_the_sessions_are_counted_is_not_overlooked(status: Status) -> None:
    admit(status)
    status.admission.dying = True

    def count_just_before_the_session_is_assigned() -> int:
        status.admission.end(0.0)
        return 0

    status.look(count_just_before_the_session_is_assigned)
    assert not status.empty


def test_the_report_of_a_request_that_ended_since_the_last_look_does_not_say_empty(status: Status) -> None:
    admit(status)
    status.admission.dying = True
    status.look(lambda: 0)
    status.admission.end(0.0)  # and it may have left a session
    assert status.report()["empty"] is False


def test_the_report_names_everything_a_probe_asks(status: Status) -> None:
    admit(status)
    status.oldest_session = 99.99
    status.sessions, status.longest_session, status.admission.served = 41, 12.34, 2
    report = status.report()
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
        "oldest_session": 100.0,
        "in_flight": 1,
        "threads": 2,
        "waiting": 0,
        "at_work": [],
        "served": 2,
        "durations": {},
        "cookies": {"name": "", "session": True, "answers": 0, "others": [], "framework": [], "refused": ""},
        "kept": None,
    }


def test_the_oldest_requests_at_work_are_told_without_their_queries(
    status: Status, monkeypatch: pytest.MonkeyPatch
) -> None:
    since = time.monotonic()
    for number, target in enumerate(["/a?token=secret", f"/{'x' * 300}", "/%9b;x=1", *"cdef"]):
        worker = status.admission.worker()
        worker.since, worker.task = since + number, (None, None, Request(f"POST {target} HTTP/1.1"))
    monkeypatch.setattr(module, "monotonic", lambda: since + 10)
    told = status.report()["at_work"]
    assert [one["seconds"] for one in told] == [10.0, 9.0, 8.0, 7.0, 6.0]
    assert [one["method"] for one in told] == ["POST"] * 5
    assert told[0]["path"] == "/a"
    assert told[1]["path"] == f"/{'x' * 199} …"
    assert told[2]["path"] == "/%9b;x=1"
    assert abs(time.time() - 10 - told[0]["since"]) < 5


def test_the_path_is_that_of_the_visitor_and_safe_for_a_terminal(status: Status) -> None:
    worker = status.admission.worker()
    worker.task = None, None, Request("GET /own HTTP/1.1\r\nLB-Request-Uri: /visitor%2520s%9B2J?key=secret")
    [told] = status.report()["at_work"]
    assert told["path"] == "/visitor%20s\\x9b2J"
