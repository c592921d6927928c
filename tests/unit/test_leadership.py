"""Who leads, with real threads and an application that is played."""

from __future__ import annotations

import functools
import random
import threading
import time
from collections.abc import Callable, Iterator

import pytest

from lbadaptor.appserver import leadership as schedule
from lbadaptor.appserver.leadership import Leadership

WAIT = 10.0


class Crew:
    """Threads that do what they are told, one deed at a time."""

    def __init__(self) -> None:
        self.leadership = Leadership()
        self.threads: list[threading.Thread] = []

    def start(self, deed: Callable[[], object]) -> threading.Thread:
        thread = threading.Thread(target=deed)
        self.threads.append(thread)
        thread.start()
        return thread

    def watched(self) -> Crew:
        self.start(self.leadership.watch)
        return self

    def waiting(self) -> threading.Event:
        """A thread that waits for the leadership, and is parked; the event tells that it leads."""
        leads = threading.Event()
        before = len(self.leadership._parked)

        def deed() -> None:
            if self.leadership.wait():
                leads.set()

        self.start(deed)
        until(lambda: len(self.leadership._parked) > before or leads.is_set())
        return leads


@pytest.fixture
def crew() -> Iterator[Crew]:
    made = Crew()
    yield made
    made.leadership.end()
    for thread in made.threads:
        thread.join(WAIT)
        assert not thread.is_alive()
    made.leadership.close()


def until(true: Callable[[], bool]) -> None:
    deadline = time.monotonic() + WAIT
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.0005)


def test_the_first_who_waits_leads_and_the_others_park(crew: Crew) -> None:
    assert crew.leadership.wait()
    one = crew.waiting()
    assert not one.is_set()


def test_who_parked_last_is_the_next_leader(crew: Crew) -> None:
    assert crew.leadership.wait()
    first, last = crew.waiting(), crew.waiting()
    crew.leadership.pass_on()
    assert last.wait(WAIT)
    assert not first.is_set()


def test_passed_on_to_nobody_the_next_who_waits_leads(crew: Crew) -> None:
    assert crew.leadership.wait()
    crew.leadership.pass_on()
    assert crew.leadership.wait()


def test_while_requests_are_short_the_leader_leads_on(crew: Crew) -> None:
    assert crew.leadership.wait()
    other = crew.waiting()
    for _ in range(100):
        assert crew.leadership.keep()
        assert crew.leadership.kept()
        crew.leadership.lasted(0.0001)
    assert not other.is_set()


def test_when_they_are_long_it_leads_no_more_before_it_serves_until_they_are_short_again(crew: Crew) -> None:
    assert crew.leadership.wait()
    for _ in range(50):
        crew.leadership.lasted(0.02)
    other = crew.waiting()
    assert not crew.leadership.keep()
    assert other.wait(WAIT)
    for _ in range(50):
        crew.leadership.lasted(0.00001)
    assert crew.leadership._lately < schedule.WORTH


def test_who_does_not_lead_can_give_nothing_up(crew: Crew) -> None:
    assert crew.leadership.wait()
    leads = crew.waiting()
    crew.start(crew.leadership.give_up).join()
    assert not leads.is_set()
    crew.leadership.give_up()
    assert leads.wait(WAIT)


def test_one_long_request_among_short_ones_is_forgotten_soon(crew: Crew) -> None:
    assert crew.leadership.wait()
    crew.leadership.lasted(0.02)
    short = 0
    while crew.leadership._lately > schedule.WORTH:
        crew.leadership.lasted(0.00005)
        short += 1
    assert 5 < short < 40


def test_who_serves_for_long_loses_the_leadership(crew: Crew) -> None:
    crew.watched()
    assert crew.leadership.wait()
    other = crew.waiting()
    assert crew.leadership.keep()
    assert other.wait(WAIT)
    assert not crew.leadership.kept()


def test_it_is_lost_even_with_nobody_there_to_take_it(crew: Crew) -> None:
    crew.watched()
    assert crew.leadership.wait()
    assert crew.leadership.keep()
    until(lambda: crew.leadership._leader == 0)
    assert not crew.leadership.kept()
    assert crew.waiting().wait(WAIT)


def test_nobody_watches_while_the_leader_rests(crew: Crew, monkeypatch: pytest.MonkeyPatch) -> None:
    looks: list[float] = []
    wait = crew.leadership._timer.wait

    def counted() -> None:
        wait()
        looks.append(time.monotonic())

    monkeypatch.setattr(crew.leadership._timer, "wait", counted)
    crew.watched()
    for number in range(1, 4):
        assert crew.leadership.wait()
        assert crew.leadership.keep()
        until(lambda: crew.leadership._leader == 0)  # a look, and the leadership is taken
        assert not crew.leadership.kept()
        assert crew.leadership.wait()
        crew.leadership.rest()
        rested = time.monotonic()
        time.sleep(5 * schedule.LONG)
        assert len([look for look in looks if look > rested]) <= 1  # one may have been under way
        assert len(looks) >= number
        crew.leadership.pass_on()


def test_at_the_end_nobody_waits(crew: Crew) -> None:
    crew.watched()
    assert crew.leadership.wait()
    parked = [crew.waiting() for _ in range(3)]
    crew.leadership.end()
    for thread in crew.threads:
        thread.join(WAIT)
        assert not thread.is_alive()
    assert not any(one.is_set() for one in parked)
    assert not crew.leadership.wait()


def test_whoever_leads_at_the_end_does_not_keep_the_watching_thread(crew: Crew) -> None:
    assert crew.leadership.wait()
    assert crew.leadership.keep()
    crew.leadership.end()
    assert crew.leadership.kept()
    crew.leadership.rest()
    assert crew.leadership.keep()
    watching = crew.start(crew.leadership.watch)
    watching.join(WAIT)
    assert not watching.is_alive()


@pytest.mark.parametrize("seed", range(4))
def test_somebody_always_leads_and_never_two(crew: Crew, seed: int) -> None:
    crew.watched()
    chance = random.Random(seed)
    durations = [chance.choice((0.0, 0.0, 0.0, 0.0001, 0.003, 0.006)) for _ in range(600)]
    leaders: list[int] = []
    wrong: list[str] = []
    lock = threading.Lock()

    def lead(me: int) -> None:
        leadership = crew.leadership
        while leadership.wait():
            leads = True
            while leads:
                with lock:
                    if leadership._leader != threading.get_ident():
                        wrong.append(f"{me} polls, and {leadership._leader} leads")
                    if not durations:
                        leadership.end()
                        return
                    duration = durations.pop()
                    leaders.append(me)
                began = time.monotonic()
                leads = leadership.keep()
                if duration:
                    time.sleep(duration)
                leadership.lasted(time.monotonic() - began)
                leads = leads and leadership.kept()

    for number in range(5):
        crew.start(functools.partial(lead, number))
    for thread in crew.threads:
        thread.join(WAIT)
        assert not thread.is_alive()
    assert not wrong
    assert len(leaders) == 600
    assert len(set(leaders)) > 1
