"""Which requests AppServers die of."""

from __future__ import annotations

import pytest

from lbadaptor.adaptor.circuit_breaker import (
    FORGET_SECONDS,
    MAX_KINDS,
    NO_RETRY_DEATHS,
    OPEN_DEATHS,
    OPEN_SECONDS,
    TOGETHER_SECONDS,
    CircuitBreaker,
    kinds,
)

PAGE = kinds("GET", "/page", "")


@pytest.fixture
def breaker() -> CircuitBreaker:
    return CircuitBreaker()


def die(breaker: CircuitBreaker, times: int, now: float = 0.0, kinds: tuple[bytes, ...] = PAGE) -> int:
    """So many AppServers, one a second."""
    return [breaker.record_death(kinds, f"{kinds} {now} {number}", now + number) for number in range(times)][-1]


def test_it_remembers_no_deaths_as_long_as_no_appserver_died(breaker: CircuitBreaker) -> None:
    assert not breaker.deaths
    assert breaker.refuses(PAGE, 0.0) == 0
    breaker.record_answer(PAGE)
    die(breaker, 1)
    assert breaker.deaths
    breaker.record_answer(PAGE)
    assert not breaker.deaths


def test_deaths_in_a_row_are_counted(breaker: CircuitBreaker) -> None:
    assert [breaker.record_death(PAGE, str(number), float(number)) for number in range(3)] == [1, 2, 3]
    breaker.record_answer(PAGE)
    assert breaker.record_death(PAGE, "other", 10.0) == 1


def test_an_appserver_dies_but_once(breaker: CircuitBreaker) -> None:
    assert [
        breaker.record_death(PAGE, life, now) for life, now in (("a", 0.0), ("a", 1.0), ("b", 2.0), ("a", 3.0))
    ] == [
        *(1, 1, 2, 2),
    ]


def test_those_that_were_killed_together_count_once(breaker: CircuitBreaker) -> None:
    assert [breaker.record_death(PAGE, str(number), TOGETHER_SECONDS * number / 10) for number in range(9)] == [1] * 9
    assert breaker.record_death(PAGE, "9", 2 * TOGETHER_SECONDS) == 2


def test_a_request_that_was_there_when_another_one_died_is_repeated_all_the_same(breaker: CircuitBreaker) -> None:
    """Somebody kills one after the other from outside, all of which have such a request."""
    assert breaker.record_death(PAGE, "a", 10.0, 1.0) == 1
    assert breaker.record_death(PAGE, "a", 10.1, 2.0) == 1
    assert breaker.record_death(PAGE, "b", 11.0, 2.0) == 0
    assert breaker.record_death(PAGE, "b", 11.0, 10.1) == 2  # it came when the first was dead
    assert breaker.record_death(PAGE, "b", 11.1, 2.0) == 0  # whoever is told first
    assert breaker.record_death(PAGE, "a", 11.1, 3.0) == 0
    assert breaker.record_death(PAGE, "c", 12.0, 10.2) == 0
    assert breaker.record_death(PAGE, "d", 13.0, 12.1) == 4
    assert breaker.record_death(PAGE, "e", 14.0, 1.0) == OPEN_DEATHS  # they may die of it after a while: an end to it
    assert breaker.refuses(PAGE, 14.1) == OPEN_DEATHS


def test_what_was_long_ago_is_forgotten(breaker: CircuitBreaker) -> None:
    assert die(breaker, OPEN_DEATHS) == OPEN_DEATHS
    last = OPEN_DEATHS - 1.0
    assert breaker.record_death(PAGE, "other", last + FORGET_SECONDS - 1) == OPEN_DEATHS + 1
    last += FORGET_SECONDS - 1
    assert breaker.record_death(PAGE, "another", last + FORGET_SECONDS) == 1


def test_at_five_they_are_refused_for_some_time_and_then_one_is_let_through(breaker: CircuitBreaker) -> None:
    die(breaker, OPEN_DEATHS - 1)
    assert breaker.refuses(PAGE, 10.0) == 0
    last = 10.0
    assert breaker.record_death(PAGE, "fifth", last) == OPEN_DEATHS
    assert breaker.refuses(PAGE, last + OPEN_SECONDS - 1) == OPEN_DEATHS
    assert breaker.refuses(PAGE, last + OPEN_SECONDS) == 0
    assert breaker.refuses(PAGE, last + OPEN_SECONDS + 1) == OPEN_DEATHS  # the one is under way
    breaker.record_death(PAGE, "sixth", last + OPEN_SECONDS + 2)
    assert breaker.refuses(PAGE, last + 2 * OPEN_SECONDS + 1) == OPEN_DEATHS + 1
    assert breaker.refuses(PAGE, last + 2 * OPEN_SECONDS + 2) == 0
    breaker.record_answer(PAGE)
    assert [breaker.refuses(PAGE, last + 2 * OPEN_SECONDS + 3) for _ in range(3)] == [0, 0, 0]


def test_a_query_of_its_own_is_a_kind_of_its_own(breaker: CircuitBreaker) -> None:
    bad, good = kinds("GET", "/page", "id=7"), kinds("GET", "/page", "id=8")
    for number in range(OPEN_DEATHS):
        die(breaker, 1, 100.0 * number, bad)
        breaker.record_answer(good)
    now = 100.0 * OPEN_DEATHS - 99
    assert breaker.refuses(bad, now) == OPEN_DEATHS
    assert breaker.refuses(good, now) == 0
    assert breaker.refuses(kinds("GET", "/other", "id=7"), now) == 0
    assert breaker.refuses(kinds("HEAD", "/page", "id=7"), now) == 0


def test_another_query_each_time_is_found_by_the_path(breaker: CircuitBreaker) -> None:
    counts = [die(breaker, 1, float(number), kinds("GET", "/page", f"x={number}")) for number in range(OPEN_DEATHS)]
    assert counts == [1, 2, 3, 4, 5]
    assert NO_RETRY_DEATHS in counts
    assert breaker.refuses(kinds("GET", "/page", "x=new"), 5.0) == OPEN_DEATHS


def test_no_more_are_remembered_than_the_bound_and_the_oldest_go(breaker: CircuitBreaker) -> None:
    for number in range(3 * MAX_KINDS):
        breaker.record_death(kinds("GET", f"/{number}", ""), "life", float(number))
    assert len(breaker.deaths) == MAX_KINDS
    assert breaker.record_death(kinds("GET", f"/{3 * MAX_KINDS - 1}", ""), "other", 3.0 * MAX_KINDS) == 2
    assert breaker.record_death(kinds("GET", "/0", ""), "other", 3.0 * MAX_KINDS) == 1


def test_of_one_kind_no_more_lives_are_remembered_than_the_bound(breaker: CircuitBreaker) -> None:
    die(breaker, 1000)
    assert len(breaker.deaths[PAGE[0]].tickets) <= 16


def test_nothing_of_a_request_is_kept() -> None:
    found = kinds("GET", "/page", "token=secret\xe4\u20ac")
    assert all(isinstance(kind, bytes) and len(kind) == 8 for kind in found)
