"""Which thread leads, with real threads and a simulated application."""

from __future__ import annotations

import functools
import itertools
import os
import random
import resource
import threading
import time
from collections.abc import Callable, Iterator

import pytest

from lbadaptor.appserver.http import schedule_fast
from lbadaptor.appserver.http.schedule_fast import Leadership, Token

WAIT = 10.0


class Crew:
    """Threads that do one action at a time."""

    def __init__(self) -> None:
        self.leadership = Leadership()
        self.threads: list[threading.Thread] = []
        self.token: Token = []

    def start(self, action: Callable[[], object]) -> threading.Thread:
        thread = threading.Thread(target=action)
        self.threads.append(thread)
        thread.start()
        return thread

    def begin_serving(self) -> bool:
        """This thread is about to serve as the leader."""
        token = self.leadership.begin_serving(time.monotonic())
        if token is not None:
            self.token = token
        return token is not None

    def serve_shortly(self) -> None:
        """A request that nobody finds long, even if this thread stands still within it."""
        token = self.leadership.begin_serving(time.monotonic() + WAIT)
        assert token is not None
        assert self.leadership.end_serving(token)

    def end_serving(self) -> bool:
        return self.leadership.end_serving(self.token)

    def watched(self) -> Crew:
        self.start(self.leadership.watch)
        return self

    def waiting(self) -> threading.Event:
        """A thread that waits for the leadership, and is parked; the event tells that it leads."""
        leads = threading.Event()
        before = len(self.leadership._parked)

        def action() -> None:
            if self.leadership.wait():
                leads.set()

        self.start(action)
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


def test_the_first_thread_that_waits_leads_and_the_others_park(crew: Crew) -> None:
    assert crew.leadership.wait()
    one = crew.waiting()
    assert not one.is_set()


def test_who_parked_last_is_the_next_leader(crew: Crew) -> None:
    assert crew.leadership.wait()
    first, last = crew.waiting(), crew.waiting()
    crew.leadership.pass_on()
    assert last.wait(WAIT)
    assert not first.is_set()


def test_without_a_parked_thread_the_next_one_that_waits_leads(crew: Crew) -> None:
    assert crew.leadership.wait()
    crew.leadership.pass_on()
    assert crew.leadership.wait()


def test_while_requests_are_short_the_leader_leads_on(crew: Crew) -> None:
    assert crew.leadership.wait()
    other = crew.waiting()
    for _ in range(100):
        assert crew.begin_serving()
        assert crew.end_serving()
        crew.leadership.record(0.0001)
    assert not other.is_set()


def test_when_they_are_long_it_leads_no_more_before_it_serves_until_they_are_short_again(crew: Crew) -> None:
    assert crew.leadership.wait()
    for _ in range(50):
        crew.leadership.record(0.02)
    other = crew.waiting()
    assert not crew.begin_serving()
    assert other.wait(WAIT)
    for _ in range(100):
        crew.leadership.record(0.00001)
    assert crew.leadership._average < schedule_fast.WORTH_A_THREAD


def test_who_does_not_lead_can_give_nothing_up(crew: Crew) -> None:
    assert crew.leadership.wait()
    leads = crew.waiting()
    crew.start(crew.leadership.give_up).join()
    assert not leads.is_set()
    crew.leadership.give_up()
    assert leads.wait(WAIT)


def test_a_single_long_request_among_short_ones_changes_nothing(crew: Crew) -> None:
    assert crew.leadership.wait()
    for _ in range(20):
        crew.leadership.record(1.0)
        assert crew.begin_serving()
        assert crew.end_serving()
        for _ in range(20):
            crew.leadership.record(0.00005)


def test_from_a_request_that_had_to_be_taken_the_leadership_others_need_not_wait_to_be_found_out(crew: Crew) -> None:
    crew.watched()
    assert crew.leadership.wait()
    assert crew.begin_serving()
    until(lambda: crew.leadership._leader == 0)
    assert not crew.end_serving()
    assert crew.leadership.wait()
    assert not crew.begin_serving()
    short = 0
    while crew.leadership._average > schedule_fast.WORTH_A_THREAD:
        crew.leadership.record(0.00005)
        short += 1
    assert 5 < short < 50


def test_who_serves_for_long_loses_the_leadership(crew: Crew) -> None:
    crew.watched()
    assert crew.leadership.wait()
    other = crew.waiting()
    assert crew.begin_serving()
    assert other.wait(WAIT)
    assert not crew.end_serving()


def test_it_is_lost_even_without_a_parked_thread(crew: Crew) -> None:
    crew.watched()
    assert crew.leadership.wait()
    assert crew.begin_serving()
    until(lambda: crew.leadership._leader == 0)
    assert not crew.end_serving()
    assert crew.waiting().wait(WAIT)


def test_a_former_leader_does_not_take_it_from_the_next_one_that_serves(crew: Crew) -> None:
    crew.watched()
    assert crew.leadership.wait()
    assert crew.begin_serving()
    until(lambda: crew.leadership._leader == 0)
    crew.leadership._average = 0.0
    mine = crew.token
    serves, ended = threading.Event(), threading.Event()
    keeps: list[bool] = []

    def next_one() -> None:
        assert crew.leadership.wait()
        token = crew.leadership.begin_serving(time.monotonic() + WAIT)  # nobody finds this one long
        assert token is not None
        serves.set()
        ended.wait(WAIT)
        keeps.append(crew.leadership.end_serving(token))

    following = crew.start(next_one)
    assert serves.wait(WAIT)
    assert not crew.leadership.end_serving(mine)
    ended.set()
    following.join(WAIT)
    assert keeps == [True]


class Rings:
    """When the watching thread was woken."""

    def __init__(self, crew: Crew, monkeypatch: pytest.MonkeyPatch) -> None:
        self.times: list[float] = []
        wait = crew.leadership._timer.wait

        def counted() -> None:
            wait()
            self.times.append(time.monotonic())

        monkeypatch.setattr(crew.leadership._timer, "wait", counted)


def test_while_requests_are_short_the_watching_thread_is_not_woken(
    crew: Crew, monkeypatch: pytest.MonkeyPatch
) -> None:
    set_at: list[float] = []
    monkeypatch.setattr(crew.leadership._timer, "set", lambda: set_at.append(now))
    assert crew.leadership.wait()
    now = 100.0
    for _ in range(1000):
        token = crew.leadership.begin_serving(now)
        assert token is not None
        assert crew.leadership.end_serving(token)
        assert now - set_at[-1] < schedule_fast.SET_AGAIN, "it would ring too late for this one"
        now += 0.0003
    steps = [later - earlier for earlier, later in itertools.pairwise(set_at)]
    assert min(steps) >= schedule_fast.SET_AGAIN
    assert max(steps) < schedule_fast.CHECK_AFTER, "it would ring meanwhile"


def test_the_watching_thread_sleeps_while_the_leader_waits(crew: Crew, monkeypatch: pytest.MonkeyPatch) -> None:
    rings = Rings(crew, monkeypatch)
    crew.watched()
    assert crew.leadership.wait()
    for _ in range(3):
        rings.times.clear()
        crew.serve_shortly()
        until(lambda: bool(rings.times))
        time.sleep(5 * schedule_fast.CHECK_AFTER)
        assert len(rings.times) == 1


def test_who_begins_when_the_watch_has_ended_is_watched(crew: Crew, monkeypatch: pytest.MonkeyPatch) -> None:
    rings = Rings(crew, monkeypatch)
    crew.watched()
    for _ in range(30):
        rings.times.clear()
        assert crew.leadership.wait()
        crew.serve_shortly()
        until(lambda: bool(rings.times))
        assert crew.begin_serving()
        until(lambda: crew.leadership._leader == 0)
        assert not crew.end_serving()
        crew.leadership._average = 0.0


def test_one_that_computes_for_long_loses_the_leadership(crew: Crew) -> None:
    crew.watched()
    assert crew.leadership.wait()
    other = crew.waiting()
    assert crew.begin_serving()
    until_computed = time.thread_time() + 0.1
    while time.thread_time() < until_computed:
        pass
    assert not crew.end_serving()
    assert other.wait(WAIT)


def test_one_that_gets_no_processor_keeps_the_leadership(crew: Crew, monkeypatch: pytest.MonkeyPatch) -> None:
    looks = threading.Semaphore(0)

    def runs(state: int) -> bool:
        looks.release()
        return False

    monkeypatch.setattr(schedule_fast, "_waits", runs)
    crew.watched()
    assert crew.leadership.wait()
    other = crew.waiting()
    assert crew.begin_serving()
    for _ in range(5):
        assert looks.acquire(timeout=WAIT)  # this thread sleeps, and computes nothing
    assert crew.end_serving()
    assert not other.is_set()


def test_a_thread_that_waits_is_told_from_one_that_computes() -> None:
    me = threading.get_native_id()
    mine = os.open(f"/proc/self/task/{me}/stat", os.O_RDONLY)
    assert not schedule_fast._waits(mine)
    asleep = threading.Event()
    found: list[int] = []
    thread = threading.Thread(target=lambda: (found.append(threading.get_native_id()), asleep.wait(WAIT)))
    thread.start()
    until(lambda: bool(found))
    its = os.open(f"/proc/self/task/{found[0]}/stat", os.O_RDONLY)
    until(lambda: schedule_fast._waits(its))
    asleep.set()
    thread.join()
    before = schedule_fast._computed(me)
    until(lambda: time.thread_time() > before + 0.01)
    assert schedule_fast._computed(me) > before
    assert schedule_fast._computed(found[0]) == 0.0
    for descriptor in (mine, its):
        os.close(descriptor)
    assert schedule_fast._waits(-1), "where it cannot be told, the leadership is rather taken"


def test_a_look_at_the_leader_needs_no_descriptor(crew: Crew) -> None:
    """It is just when there is none that a request may sleep for long."""
    crew.watched()
    assert crew.leadership.wait()
    other = crew.waiting()
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (3, limits[1]))
    try:
        assert crew.begin_serving()
        assert other.wait(WAIT)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)
    assert not crew.end_serving()


def test_a_request_that_begins_by_an_old_clock_is_watched(crew: Crew, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its clock was read before it waited for a lock; the timer that was set then has rung meanwhile, in vain."""
    waits = threading.Semaphore(0)
    wait = crew.leadership._timer.wait

    def counted() -> None:
        waits.release()
        wait()

    monkeypatch.setattr(crew.leadership._timer, "wait", counted)
    crew.watched()
    assert crew.leadership.wait()
    other = crew.waiting()
    assert waits.acquire(timeout=WAIT)
    now = time.monotonic()
    token = crew.leadership.begin_serving(now)
    assert token is not None
    assert crew.leadership.end_serving(token)
    assert waits.acquire(timeout=WAIT)  # it has looked, and sleeps again
    token = crew.leadership.begin_serving(now + schedule_fast.SET_AGAIN / 2)
    assert token is not None
    assert other.wait(WAIT), "nobody polls until its end"
    assert not crew.leadership.end_serving(token)


def test_a_request_that_begins_during_the_look_at_the_one_before_is_watched(
    crew: Crew, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The look at one request comes to its end when that is over and the next one has begun."""
    looks, looked = threading.Event(), threading.Event()
    monkeypatch.setattr(schedule_fast, "_waits", lambda state: looks.set() or looked.wait(WAIT))
    crew.watched()
    assert crew.leadership.wait()
    other = crew.waiting()
    assert crew.begin_serving()
    assert looks.wait(WAIT)
    assert crew.end_serving()
    token = crew.leadership.begin_serving(crew.leadership._set_at + schedule_fast.SET_AGAIN / 2)
    assert token is not None
    looked.set()
    assert other.wait(WAIT)
    assert not crew.leadership.end_serving(token)


def test_a_request_at_work_when_the_watch_begins_anew_is_watched(crew: Crew) -> None:
    assert crew.leadership.wait()
    other = crew.waiting()
    assert crew.begin_serving()
    crew.leadership._timer.wait()  # one that had an error takes the ring along
    crew.watched()
    assert other.wait(WAIT)


def test_at_the_end_no_thread_waits(crew: Crew) -> None:
    crew.watched()
    assert crew.leadership.wait()
    parked = [crew.waiting() for _ in range(3)]
    crew.leadership.end()
    for thread in crew.threads:
        thread.join(WAIT)
        assert not thread.is_alive()
    assert not any(one.is_set() for one in parked)
    assert not crew.leadership.wait()


def test_a_leader_at_the_end_does_not_keep_the_watching_thread(crew: Crew) -> None:
    assert crew.leadership.wait()
    assert crew.begin_serving()
    crew.leadership.end()
    assert crew.end_serving()
    assert crew.begin_serving()
    watching = crew.start(crew.leadership.watch)
    watching.join(WAIT)
    assert not watching.is_alive()


@pytest.mark.parametrize("seed", range(4))
def test_there_is_always_one_leader_and_never_two(crew: Crew, seed: int) -> None:
    crew.watched()
    chance = random.Random(seed)
    few_long = 0.003 if seed % 2 else 0.0
    durations = [chance.choice((0.0, 0.0, 0.0, 0.0001, few_long, 0.006)) for _ in range(600)]
    leaders: list[int] = []
    wrong: list[str] = []
    lock = threading.Lock()

    def lead(me: int) -> None:
        leadership = crew.leadership
        while leadership.wait():
            leads = True
            while leads:
                with lock:
                    if leadership._leader != threading.get_native_id():
                        wrong.append(f"{me} polls, and {leadership._leader} leads")
                    if not durations:
                        leadership.end()
                        return
                    duration = durations.pop()
                    leaders.append(me)
                began = time.monotonic()
                token = leadership.begin_serving(began)
                if duration:
                    time.sleep(duration)
                leadership.record(time.monotonic() - began)
                leads = token is not None and leadership.end_serving(token)

    for number in range(5):
        crew.start(functools.partial(lead, number))
    for thread in crew.threads:
        thread.join(WAIT)
        assert not thread.is_alive()
    assert not wrong
    assert len(leaders) == 600
    assert len(set(leaders)) > 1
