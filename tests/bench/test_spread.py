"""How a spread is summed up, from visits that are given."""

import pytest

from tests.bench.chains import DEFAULT, PYTHON_LANE
from tests.bench.spread import SCENES, Visit, keys, most_at_once, result, rows, spread


def visits(backend: str, count: int, lasting: float = 1.0) -> list[Visit]:
    """One after another, from 0 on."""
    return [Visit(backend, number * lasting, (number + 1) * lasting) for number in range(count)]


def test_shares_are_those_of_the_first_and_of_the_others() -> None:
    found = spread([*visits("a", 10), *visits("b", 40), *visits("c", 20), *visits("d", 30)], "a")
    assert found.shares == [0.1, 0.2, 0.3, 0.4]
    assert found.visits == 100
    assert found.unevenness == pytest.approx(1.6)


def test_who_gets_nobody_has_a_share_all_the_same() -> None:
    assert spread(visits("b", 10), "a").shares == [0.0, 0.0, 0.0, 1.0]
    assert spread(visits("a", 10), "a").shares == [1.0, 0.0, 0.0, 0.0]


def test_the_busiest_is_the_one_with_most_requests_under_way() -> None:
    slow = [Visit("a", 0.0, 10.0), Visit("a", 0.0, 10.0), Visit("a", 4.0, 6.0)]
    found = spread([*slow, *visits("b", 10)], "a")
    assert found.in_flight == pytest.approx(2.2)
    assert found.most == 3


def test_latency_is_that_of_the_slowest_in_a_hundred() -> None:
    assert spread([*visits("a", 98, 0.01), *visits("b", 2, 0.5)], "a").p99 == pytest.approx(500)


def test_one_that_ends_as_another_begins_is_over() -> None:
    assert most_at_once(visits("a", 5)) == 1
    assert most_at_once([Visit("a", 0.0, 2.0), Visit("a", 1.0, 3.0)]) == 2
    assert most_at_once([]) == 0


def test_the_words_name_the_shares_of_both_lanes_and_say_nothing_without_figures() -> None:
    scale: dict[str, float] = {}
    for chain, count in ((DEFAULT, 20), (PYTHON_LANE, 10)):
        for scene in SCENES:
            scale |= keys(chain, scene, spread([*visits("a", count), *visits("b", 100 - count)], "a"))
    assert "gets 20 % of the visitors by default, 10 % in the Python lane" in result(scale)
    assert result({}) == ""


def test_the_table_shows_what_was_measured_and_nothing_else() -> None:
    found = spread([*visits("a", 10), *visits("b", 30), *visits("c", 30), *visits("d", 30)], "a")
    scale = keys(PYTHON_LANE, "slow", found) | keys(DEFAULT, "slow", found) | {"reload_ms": 1.0}
    assert [row[1] for row in rows(scale)] == ["default", "Python"]
    assert rows(scale)[0][2:5] == ["100", "10 · 30 · 30 · 30", "1.20"]
    assert rows({"reload_ms": 1.0}) == []
