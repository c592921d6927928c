"""Generations with and without the number of a machine."""

from __future__ import annotations

from functools import partial

import pytest

from lbadaptor.contract.generation import made_at, number_of, with_number, without_number
from lbadaptor.contract.ticket import Keys

WALL = 1_763_805_600_000
NUMBERED = 1_763_805_600_000_123
KEYS = Keys(["k" * 48])


def test_without_a_number_it_is_unix_time_in_ms_as_ever() -> None:
    assert without_number(0, WALL, 3) == WALL
    assert without_number(WALL, WALL, 3) == WALL + 1
    assert without_number(WALL + 5, WALL, 3) == WALL + 6


@pytest.mark.parametrize("number", [0, 1, 7, 500, 999])
def test_with_a_number_it_has_16_digits_in_which_the_number_is_found_by_the_key_alone(number: int) -> None:
    made = [with_number(number, KEYS.mask, 0, WALL + later, slot) for later in range(50) for slot in range(4)]
    assert {len(str(one)) for one in made} == {16}
    found = [number_of(one, place % 4, KEYS.mask) for place, one in enumerate(made)]
    assert set(found) == {number}
    shown = {one % 1000 for one in made}
    assert len(shown) > 100, "the number does not show"
    others = {number_of(one, place % 4, Keys(["x" * 48]).mask) for place, one in enumerate(made)}
    assert len(others) > 100, "another key tells nothing"


def test_in_one_millisecond_machines_of_different_numbers_give_different_ones() -> None:
    made = {with_number(number, KEYS.mask, 0, WALL, 3) for number in range(1000)}
    assert made == set(range(WALL * 1000, WALL * 1000 + 1000))


def test_the_ms_is_first_raised_above_that_of_the_last_one() -> None:
    first = with_number(7, KEYS.mask, 0, WALL, 0)
    second = with_number(7, KEYS.mask, first, WALL, 1)
    assert (made_at(first), made_at(second)) == (WALL, WALL + 1)
    assert made_at(with_number(7, KEYS.mask, second, WALL + 60_000, 0)) == WALL + 60_000


@pytest.mark.parametrize("last", [0, 1, WALL, WALL + 10**9, NUMBERED, NUMBERED + 10**12])
@pytest.mark.parametrize("wall", [0, -5, 10**12 - 1, WALL - 10**9, WALL, 10**13, 10**17])
def test_it_rises_whatever_was_before_and_whatever_the_clock_says(last: int, wall: int) -> None:
    assert without_number(last, wall, 3) > last
    made = with_number(7, KEYS.mask, last, wall, 3)
    assert made > last
    assert len(str(made)) == 16


def test_a_machine_that_boots_with_a_wrong_clock_does_not_give_the_same_one_each_time() -> None:
    """What was given before the boot is forgotten."""
    for wall in (5_000, 10**13 + 5_000):
        made = {with_number(7, KEYS.mask, 0, wall + later, 3) for later in range(50)}
        assert len(made) == 50
        assert {number_of(one, 3, KEYS.mask) for one in made} == {7}


def test_a_number_that_is_given_changed_and_taken_away() -> None:
    last = 0
    for number in (-1, -1, 3, 3, 4, 0, -1, -1, 999, -1):
        make = without_number if number < 0 else partial(with_number, number, KEYS.mask)
        for slot in range(5):
            last, before = make(last, WALL, slot), last
            assert last > before
            assert len(str(last)) <= 16
            if number >= 0:
                assert number_of(last, slot, KEYS.mask) == number


def test_one_that_was_made_without_a_number_tells_none() -> None:
    assert number_of(WALL, 3, KEYS.mask) is None
