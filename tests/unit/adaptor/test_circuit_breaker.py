"""Which requests AppServers die of."""

from __future__ import annotations

import pytest

from lbadaptor.adaptor.circuit_breaker import (
    FORGOTTEN,
    MOST,
    NOT_REPEATED,
    REFUSAL,
    REFUSED,
    TOGETHER,
    Suspects,
    keys,
)

PAGE = keys("GET", "/page", "")


@pytest.fixture
def suspects() -> Suspects:
    return Suspects()


def die(suspects: Suspects, times: int, now: float = 0.0, kinds: tuple[bytes, ...] = PAGE) -> int:
    """So many AppServers, one a second."""
    return [suspects.died(kinds, f"{kinds} {now} {number}", now + number) for number in range(times)][-1]


def test_as_long_as_nobody_died_nobody_need_ask(suspects: Suspects) -> None:
    assert not suspects
    assert suspects.refused(PAGE, 0.0) == 0
    suspects.answered(PAGE)
    die(suspects, 1)
    assert suspects
    suspects.answered(PAGE)
    assert not suspects


def test_deaths_in_a_row_are_counted(suspects: Suspects) -> None:
    assert [suspects.died(PAGE, str(number), float(number)) for number in range(3)] == [1, 2, 3]
    suspects.answered(PAGE)
    assert suspects.died(PAGE, "other", 10.0) == 1


def test_an_appserver_dies_but_once(suspects: Suspects) -> None:
    assert [suspects.died(PAGE, life, now) for life, now in (("a", 0.0), ("a", 1.0), ("b", 2.0), ("a", 3.0))] == [
        *(1, 1, 2, 2),
    ]


def test_those_that_were_killed_together_count_once(suspects: Suspects) -> None:
    assert [suspects.died(PAGE, str(number), TOGETHER * number / 10) for number in range(9)] == [1] * 9
    assert suspects.died(PAGE, "9", 2 * TOGETHER) == 2


def test_a_request_that_was_there_when_another_one_died_is_repeated_all_the_same(suspects: Suspects) -> None:
    """Somebody kills one after the other from outside, all of which have such a request."""
    assert suspects.died(PAGE, "a", 10.0, 1.0) == 1
    assert suspects.died(PAGE, "a", 10.1, 2.0) == 1
    assert suspects.died(PAGE, "b", 11.0, 2.0) == 0
    assert suspects.died(PAGE, "b", 11.0, 10.1) == 2  # it came when the first was dead
    assert suspects.died(PAGE, "b", 11.1, 2.0) == 0  # whoever is told first
    assert suspects.died(PAGE, "a", 11.1, 3.0) == 0
    assert suspects.died(PAGE, "c", 12.0, 10.2) == 0
    assert suspects.died(PAGE, "d", 13.0, 12.1) == 4
    assert suspects.died(PAGE, "e", 14.0, 1.0) == REFUSED  # they may die of it after a while: an end to it
    assert suspects.refused(PAGE, 14.1) == REFUSED


def test_what_was_long_ago_is_forgotten(suspects: Suspects) -> None:
    assert die(suspects, REFUSED) == REFUSED
    last = REFUSED - 1.0
    assert suspects.died(PAGE, "other", last + FORGOTTEN - 1) == REFUSED + 1
    last += FORGOTTEN - 1
    assert suspects.died(PAGE, "another", last + FORGOTTEN) == 1


def test_at_five_they_are_refused_for_a_while_and_then_one_is_let_through(suspects: Suspects) -> None:
    die(suspects, REFUSED - 1)
    assert suspects.refused(PAGE, 10.0) == 0
    last = 10.0
    assert suspects.died(PAGE, "fifth", last) == REFUSED
    assert suspects.refused(PAGE, last + REFUSAL - 1) == REFUSED
    assert suspects.refused(PAGE, last + REFUSAL) == 0
    assert suspects.refused(PAGE, last + REFUSAL + 1) == REFUSED  # the one is under way
    suspects.died(PAGE, "sixth", last + REFUSAL + 2)
    assert suspects.refused(PAGE, last + 2 * REFUSAL + 1) == REFUSED + 1
    assert suspects.refused(PAGE, last + 2 * REFUSAL + 2) == 0
    suspects.answered(PAGE)
    assert [suspects.refused(PAGE, last + 2 * REFUSAL + 3) for _ in range(3)] == [0, 0, 0]


def test_a_query_of_its_own_is_a_kind_of_its_own(suspects: Suspects) -> None:
    bad, good = keys("GET", "/page", "id=7"), keys("GET", "/page", "id=8")
    for number in range(REFUSED):
        die(suspects, 1, 100.0 * number, bad)
        suspects.answered(good)
    now = 100.0 * REFUSED - 99
    assert suspects.refused(bad, now) == REFUSED
    assert suspects.refused(good, now) == 0
    assert suspects.refused(keys("GET", "/other", "id=7"), now) == 0
    assert suspects.refused(keys("HEAD", "/page", "id=7"), now) == 0


def test_another_query_each_time_is_found_by_the_path(suspects: Suspects) -> None:
    counts = [die(suspects, 1, float(number), keys("GET", "/page", f"x={number}")) for number in range(REFUSED)]
    assert counts == [1, 2, 3, 4, 5]
    assert NOT_REPEATED in counts
    assert suspects.refused(keys("GET", "/page", "x=new"), 5.0) == REFUSED


def test_no_more_are_remembered_than_the_bound_and_the_oldest_go(suspects: Suspects) -> None:
    for number in range(3 * MOST):
        suspects.died(keys("GET", f"/{number}", ""), "life", float(number))
    assert len(suspects._deaths) == MOST
    assert suspects.died(keys("GET", f"/{3 * MOST - 1}", ""), "other", 3.0 * MOST) == 2
    assert suspects.died(keys("GET", "/0", ""), "other", 3.0 * MOST) == 1


def test_of_one_kind_no_more_lives_are_remembered_than_the_bound(suspects: Suspects) -> None:
    die(suspects, 1000)
    assert len(suspects._deaths[PAGE[0]].lives) <= 16


def test_nothing_of_a_request_is_kept() -> None:
    kinds = keys("GET", "/page", "token=secret\xe4\u20ac")
    assert all(isinstance(kind, bytes) and len(kind) == 8 for kind in kinds)
