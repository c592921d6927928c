"""At work: which requests are the oldest, and how long the others were."""

from __future__ import annotations

from itertools import pairwise
from math import inf

import pytest

from lbadaptor.appserver.http.at_work import BOUNDS, Durations, Worker, oldest


def worker(task: str | None, since: float) -> Worker[str]:
    made: Worker[str] = Worker()
    made.task, made.since = task, since
    return made


def test_the_oldest_come_first_and_only_so_many() -> None:
    workers = [worker("b", 20.0), worker(None, 0.0), worker("a", 10.0), worker("c", 30.0)]
    assert oldest(workers, 40.0, 5) == [("a", 30.0), ("b", 20.0), ("c", 10.0)]
    assert oldest(workers, 40.0, 2) == [("a", 30.0), ("b", 20.0)]


def test_what_begins_while_it_is_looked_at_is_not_younger_than_nothing() -> None:
    assert oldest([worker("a", 10.0)], 9.9, 5) == [("a", 0.0)]


@pytest.mark.parametrize(
    ("seconds", "told"),
    [
        (0.0, "1e-05"),
        (1e-05, "1e-05"),
        (1.01e-05, "1.2e-05"),
        (0.001, "0.001"),
        (0.0031, "0.0033"),
        (82.0, "82"),
        (82.1, "+Inf"),
    ],
)
def test_a_duration_is_told_by_the_next_bound(seconds: float, told: str) -> None:
    durations = Durations()
    durations.add(seconds)
    durations.add(seconds)
    assert durations.told() == {told: 2}


def test_durations_are_told_in_their_order_without_zeros() -> None:
    durations = Durations()
    for seconds in (100.0, 0.004, 0.001, 0.004):
        durations.add(seconds)
    assert list(durations.told().items()) == [("0.001", 1), ("0.0047", 2), ("+Inf", 1)]


def test_the_names_of_the_bounds_are_numbers() -> None:
    durations = Durations()
    for bound in (*BOUNDS, inf):
        durations.add(bound)
    assert [float(name) for name in durations.told()] == [*BOUNDS, inf]


def test_no_bound_is_more_than_a_quarter_above_the_one_before() -> None:
    assert all(1.14 < following / bound < 1.2501 for bound, following in pairwise(BOUNDS))
