"""Admission: who may begin, who waits, who is at work."""

from __future__ import annotations

import random
import threading

import pytest

from lbadaptor.appserver.http.admission import Admission
from lbadaptor.contract.headers import Refusal

THREADS, QUEUE = 2, 3


@pytest.fixture
def admission() -> Admission[str]:
    return Admission(THREADS, QUEUE)


def admit(admission: Admission[str], *tasks: str, known: bool = False, held: bool = False) -> None:
    for task in tasks:
        assert admission.admit(task, known, held) is None


def test_requests_begin_in_the_order_of_their_coming(admission: Admission[str]) -> None:
    admit(admission, "a", "b", "c")
    assert [admission.begin(), admission.begin()] == ["a", "b"]
    assert admission.begin() is None
    assert admission.end(0.0) == "c"
    assert admission.end(0.0) is None
    assert admission.end(0.0) is None
    assert admission.begin() is None


def test_ticket_holders_come_first(admission: Admission[str]) -> None:
    admit(admission, "a", "b")
    admit(admission, "c", "d", held=True)
    assert [admission.begin(), admission.begin(), admission.end(0.0), admission.end(0.0)] == ["c", "d", "a", "b"]


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
def test_who_is_admitted(
    admission: Admission[str], dying: bool, stopping: bool, known: bool, refusal: Refusal | None
) -> None:
    admission.dying, admission.stopping = dying, stopping
    assert admission.admit("a", known, held=False) == (None if refusal is None else ("a", refusal))
    assert admission.in_flight == (refusal is None)
    assert admission.begin() == (None if refusal else "a")


def test_beyond_the_queue_a_request_is_refused_as_busy(admission: Admission[str]) -> None:
    admit(admission, *"abcde")
    assert admission.admit("f", known=True, held=False) == ("f", Refusal.BUSY)
    assert admission.in_flight == THREADS + QUEUE
    assert [admission.begin(), admission.end(0.0)] == ["a", "b"]
    admit(admission, "f")


def test_a_ticket_holder_takes_the_place_of_the_newest_request_that_may_go_elsewhere(
    admission: Admission[str],
) -> None:
    admit(admission, *"abcde")
    assert admission.admit("f", known=True, held=True) == ("e", Refusal.BUSY)
    assert admission.admit("g", known=True, held=True) == ("d", Refusal.BUSY)
    assert admission.in_flight == THREADS + QUEUE
    for _ in "cba":
        assert admission.admit("h", known=True, held=True) is not None
    assert admission.admit("i", known=True, held=True) == ("i", Refusal.BUSY)


def test_a_request_is_in_flight_until_its_end_and_then_served(admission: Admission[str]) -> None:
    admit(admission, "a")
    assert (admission.in_flight, admission.served) == (1, 0)
    admission.begin()
    assert (admission.in_flight, admission.served) == (1, 0)
    admission.end(0.004)
    assert (admission.in_flight, admission.served) == (0, 1)
    assert admission.durations.told() == {"0.0047": 1}
    admission.forget_served()
    assert admission.served == 0
    assert admission.durations.told() == {}


def test_those_that_wait_for_a_thread_are_counted(admission: Admission[str]) -> None:
    admit(admission, "a", "b", "c")
    admit(admission, "d", held=True)
    assert admission.waiting == 4
    admission.begin()
    admission.begin()
    assert (admission.waiting, admission.in_flight) == (2, 4)


def test_waiting_requests_can_be_dismissed(admission: Admission[str]) -> None:
    admit(admission, "a", "b", "c")
    admit(admission, "d", held=True)
    assert admission.begin() == "d"
    assert admission.dismiss() == ["a", "b", "c"]
    assert admission.in_flight == 1
    assert admission.end(0.0) is None
    assert admission.wait_idle(0.0)


def test_wait_idle_returns_at_the_end_of_the_last_request(admission: Admission[str]) -> None:
    admit(admission, "a", "b")
    for _ in "ab":
        admission.begin()
    assert not admission.wait_idle(0.0)
    idle: list[bool] = []
    waiter = threading.Thread(target=lambda: idle.append(admission.wait_idle(10.0)))
    waiter.start()
    admission.end(0.0)
    assert not idle
    admission.end(0.0)
    waiter.join(10.0)
    assert idle == [True]


@pytest.mark.parametrize("seed", range(3))
def test_no_request_is_forgotten_and_no_more_are_at_work_than_may_be(seed: int) -> None:
    """One admits and begins what it can, as a leader does; others end what they do, and go on with what waits."""
    admission: Admission[int] = Admission(THREADS, 10**9)
    chance = random.Random(seed)
    done: list[int] = []
    wrong: list[int] = []
    at_work = threading.Semaphore(THREADS)

    def work(task: int | None) -> None:
        while task is not None:
            if not at_work.acquire(blocking=False):
                wrong.append(task)
            done.append(task)
            at_work.release()
            task = admission.end(0.0)

    threads = []
    for number in range(2000):
        assert admission.admit(number, False, chance.random() < 0.5) is None
        if (task := admission.begin()) is not None:
            threads.append(threading.Thread(target=work, args=(task,)))
            threads[-1].start()
    assert admission.wait_idle(10.0)
    for thread in threads:
        thread.join(10.0)
    assert sorted(done) == list(range(2000))
    assert admission.served == 2000
    assert not wrong
