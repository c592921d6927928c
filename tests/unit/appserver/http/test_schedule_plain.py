"""The plain schedule where memory runs out, and at its end. The gateway's tests run with it, too."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import pytest

from lbadaptor.appserver.http.admission import Admission
from lbadaptor.appserver.http.own_errors import OwnErrors
from lbadaptor.appserver.http.schedule_plain import PlainSchedule

WAIT = 10.0


class Stage:
    """A schedule of one worker, with requests that are numbers. `poll` is called once the schedule has started."""

    def __init__(self, poll: Callable[[], object]) -> None:
        self.admission: Admission[int] = Admission(1, 10)
        self.served: list[int] = []
        self.given_up: list[int] = []
        self.wake = threading.Event()
        self.schedule = PlainSchedule(self.admission, poll, self.served.append, self.given_up.append, OwnErrors())

    def stop(self) -> None:
        self.schedule.stop()
        self.wake.set()
        for thread in self.schedule.threads:
            if thread.ident is not None:
                thread.join(WAIT)
        assert not any(thread.is_alive() for thread in self.schedule.threads)


def test_a_request_that_cannot_be_queued_is_given_up_and_the_next_one_is_served(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    stage = Stage(lambda: stage.wake.wait(WAIT))
    put = stage.schedule._queue.put
    fails = [True]

    class Queue:
        get = stage.schedule._queue.get

        @staticmethod
        def put(task: Any) -> None:
            if fails:
                fails.pop()
                raise MemoryError
            put(task)

    monkeypatch.setattr(stage.schedule, "_queue", Queue)
    for task in (1, 2):
        assert stage.admission.admit(task, known=False, held=False) is None
    stage.schedule.start()
    assert stage.admission.wait_idle(WAIT)
    stage.stop()
    assert (stage.given_up, stage.served) == ([1], [2])


def test_a_request_that_begins_while_the_schedule_stops_is_served(monkeypatch: pytest.MonkeyPatch) -> None:
    """The thread that polls has looked whether to go on, and the order to stop comes next."""
    polls = threading.Event()

    def poll() -> None:
        polls.set()
        stage.wake.wait(WAIT)

    stage = Stage(poll)
    begin = stage.admission.begin

    def begin_late() -> int | None:
        if polls.is_set() and not stopped.is_set():
            stage.schedule.stop()
            stage.wake.clear()
            assert stage.admission.admit(1, known=False, held=False) is None
            stopped.set()
        return begin()

    stopped = threading.Event()
    monkeypatch.setattr(stage.admission, "begin", begin_late)
    stage.schedule.start()
    assert polls.wait(WAIT)
    stage.wake.set()
    assert stopped.wait(WAIT)
    stage.stop()
    assert (stage.served, stage.admission.in_flight) == ([1], 0)


def test_a_schedule_that_has_not_started_whole_can_be_stopped(monkeypatch: pytest.MonkeyPatch) -> None:
    stage = Stage(lambda: stage.wake.wait(WAIT))

    def fail() -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(stage.schedule.threads[-1], "start", fail)
    with pytest.raises(RuntimeError):
        stage.schedule.start()
    stage.stop()
