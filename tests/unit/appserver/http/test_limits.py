"""Whose connection has a time limit, and how many strangers there may be; with a clock of the tests' own."""

from __future__ import annotations

from typing import Any

import pytest

from lbadaptor.appserver.http import limits as module
from lbadaptor.appserver.http.limits import TIME_LIMIT, Callers
from lbadaptor.http1.states import IDLE, REQUEST, State

PORT, UNIX = 3, 4


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


class Fake:
    """A connection, as far as it matters here."""

    last = 10

    def __init__(self, unfinished: int = 0) -> None:
        Fake.last += 1
        self.number = Fake.last
        self.socket = self
        self.state: State = IDLE
        self.unfinished = unfinished

    def fileno(self) -> int:
        return self.number


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def callers(clock: Clock) -> Callers:
    return Callers(clock, most=3)


def add(callers: Callers, listener: int = PORT, unfinished: int = 0) -> Any:
    connection: Any = Fake(unfinished)
    assert callers.add(connection, listener) is None
    return connection


def test_a_new_caller_has_a_time_limit_to_show_a_key(callers: Callers, clock: Clock) -> None:
    first = add(callers)
    clock.now += 1
    second = add(callers)
    assert callers.next_end() == 100 + TIME_LIMIT
    clock.now = 100 + TIME_LIMIT
    assert callers.ended() == [first]
    callers.remove(first)
    assert callers.next_end() == 101 + TIME_LIMIT
    clock.now += 1
    assert callers.ended() == [second]


def test_a_caller_that_has_shown_a_key_may_be_idle_for_ever(callers: Callers, clock: Clock) -> None:
    connection = add(callers)
    callers.showed_key(connection)
    clock.now += 1e6
    assert (callers.ended(), callers.next_end(), callers.is_unknown(connection)) == ([], None, False)
    assert list(callers.idle()) == [connection]


def test_a_caller_is_idle_when_the_thread_that_served_it_has_changed_its_state(callers: Callers) -> None:
    connection = add(callers)
    callers.showed_key(connection)
    connection.state = REQUEST
    connection.request = None  # the last step but one of `RequestReader.answered`
    assert list(callers.idle()) == []
    connection.state = IDLE
    assert list(callers.idle()) == [connection]


def test_the_eldest_caller_of_the_same_listening_socket_makes_room(
    callers: Callers,
) -> None:
    at_unix = [add(callers, UNIX) for _ in range(3)]
    at_port = [add(callers, PORT) for _ in range(3)]
    new: Any = Fake()
    assert callers.add(new, PORT) is at_port[0]
    callers.remove(at_port[0])
    callers.showed_key(at_unix[0])
    add(callers, UNIX)
    assert callers.eldest_unknown() is at_unix[1]


def test_the_time_limit_of_half_a_head_begins_with_its_first_byte(callers: Callers, clock: Clock) -> None:
    connection = add(callers)
    callers.showed_key(connection)
    connection.unfinished = 10
    clock.now += 50
    assert callers.began(connection)
    end = clock.now + TIME_LIMIT
    for _ in range(5):
        clock.now += 1
        connection.unfinished += 1
        assert callers.began(connection)
    assert callers.next_end() == end, "not from its last"
    assert list(callers.idle()) == []
    callers.finished(connection)
    assert callers.next_end() is None


def test_an_unknown_callers_time_limit_stays_whatever_it_sends(callers: Callers, clock: Clock) -> None:
    connection = add(callers)
    for _ in range(5):
        clock.now += 1
        connection.unfinished = 10
        assert callers.began(connection)
        callers.finished(connection)
        assert not callers.goes_on(connection)
    assert callers.next_end() == 100 + TIME_LIMIT


def test_a_known_caller_that_sends_on_after_its_answer_gets_a_new_time_limit_each_time(
    callers: Callers, clock: Clock
) -> None:
    connection = add(callers)
    callers.showed_key(connection)
    assert callers.limit(connection), "whoever polls has to be told of the first one"
    clock.now += 5
    assert callers.goes_on(connection)
    assert callers.next_end() == 105 + TIME_LIMIT


def test_all_unfinished_heads_together_are_bounded_and_unknown_callers_are_closed_first(
    callers: Callers, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "MAX_UNFINISHED", 100)
    known, first, second = (add(callers, unfinished=size) for size in (40, 20, 40))
    callers.showed_key(known)
    assert callers.unfinished_unknown(known) is None
    assert all(callers.began(connection) for connection in (known, first, second))
    known.unfinished = 50
    assert not callers.began(known)
    assert callers.unfinished_unknown(known) is first
    assert callers.unfinished_unknown(first) is second
    callers.remove(first)
    assert callers.began(known)
    callers.finished(known)
    second.unfinished = 100
    assert callers.began(second)
    assert callers.unfinished_unknown(second) is None
