"""The ledger: when a session counts, and whom a DYING AppServer admits."""

from __future__ import annotations

import pytest

from lbadaptor.appserver.sessions.table import MOST_VALUES, OVERLAP, Ledger

IDLE = 100.0


@pytest.fixture
def ledger() -> Ledger:
    return Ledger(IDLE)


def test_a_session_counts_from_its_assignment(ledger: Ledger) -> None:
    assert ledger.count(0.0) == 0
    ledger.assign("a", [], 0.0)
    assert ledger.count(0.0) == 1
    assert ledger.use(["a"], 1.0)


def test_a_value_that_was_never_assigned_is_unknown(ledger: Ledger) -> None:
    ledger.assign("a", [], 0.0)
    assert not ledger.use(["b"], 1.0)
    assert not ledger.use([], 1.0)
    assert ledger.count(1.0) == 1


def test_any_of_several_values_makes_a_request_known(ledger: Ledger) -> None:
    ledger.assign("a", [], 0.0)
    assert ledger.use(["other", "a"], 1.0)
    assert ledger.use(["a", "other"], 1.0)


@pytest.mark.parametrize(("later", "living"), [(IDLE - 0.1, 1), (IDLE, 0)])
def test_a_session_ends_when_nobody_used_it_for_the_idle_time(ledger: Ledger, later: float, living: int) -> None:
    ledger.assign("a", [], 50.0)
    assert ledger.count(50.0 + later) == living


def test_an_ended_session_is_unknown(ledger: Ledger) -> None:
    ledger.assign("a", [], 0.0)
    assert not ledger.use(["a"], IDLE)


def test_use_prolongs_a_session(ledger: Ledger) -> None:
    ledger.assign("a", [], 0.0)
    ledger.assign("b", [], 1.0)
    assert ledger.use(["a"], 90.0)
    assert ledger.count(IDLE + 1.0) == 1
    assert ledger.use(["a"], 189.0)
    assert not ledger.use(["b"], 189.0)


def test_assigning_the_same_value_again_prolongs_the_session_and_counts_it_once(ledger: Ledger) -> None:
    ledger.assign("a", [], 0.0)
    ledger.assign("a", ["a"], 90.0)
    assert ledger.count(150.0) == 1


def test_a_new_value_replaces_the_one_the_request_brought(ledger: Ledger) -> None:
    ledger.assign("old", [], 0.0)
    ledger.assign("new", ["old"], 10.0)
    assert ledger.count(10.0) == 1


@pytest.mark.parametrize(("later", "known"), [(OVERLAP - 0.1, True), (OVERLAP, False)])
def test_a_replaced_value_stays_known_for_a_while(ledger: Ledger, later: float, known: bool) -> None:
    ledger.assign("old", [], 0.0)
    ledger.assign("new", ["old"], 10.0)
    assert ledger.use(["new"], 10.0 + later)
    assert ledger.use(["old"], 10.0 + later) is known


def test_a_value_that_was_replaced_stays_known_until_the_new_one_has_arrived(ledger: Ledger) -> None:
    ledger.assign("old", [], 0.0)
    ledger.assign("new", ["old"], 10.0)
    assert ledger.use(["old"], IDLE)


def test_a_value_that_was_never_a_session_is_not_known_for_being_brought_at_a_login(ledger: Ledger) -> None:
    ledger.assign("new", ["made up"], 0.0)
    assert not ledger.use(["made up"], 1.0)


def test_a_replaced_value_that_is_assigned_again_is_a_session_again(ledger: Ledger) -> None:
    ledger.assign("a", [], 0.0)
    ledger.assign("b", ["a"], 1.0)
    ledger.assign("a", ["b"], 2.0)
    assert ledger.count(2.0) == 1
    assert ledger.use(["a"], 2.0 + OVERLAP)
    assert not ledger.use(["b"], 2.0 + OVERLAP)


def test_a_deleted_session_counts_no_more_and_is_unknown(ledger: Ledger) -> None:
    ledger.assign("a", [], 0.0)
    ledger.assign("b", [], 0.0)
    ledger.end(["a", "never seen"])
    assert ledger.count(1.0) == 1
    assert not ledger.use(["a"], 1.0)


def test_deleting_forgets_a_replaced_value_too(ledger: Ledger) -> None:
    ledger.assign("old", [], 0.0)
    ledger.assign("new", ["old"], 1.0)
    ledger.end(["old", "new"])
    assert not ledger.use(["old"], 2.0)
    assert ledger.count(2.0) == 0


def test_longest_is_the_time_until_the_last_session_ends(ledger: Ledger) -> None:
    assert ledger.longest(0.0) == 0.0
    ledger.assign("a", [], 0.0)
    ledger.assign("b", [], 10.0)
    assert ledger.longest(20.0) == 90.0
    ledger.use(["a"], 30.0)
    assert ledger.longest(30.0) == IDLE
    assert ledger.longest(30.0 + IDLE) == 0.0


def test_nothing_is_kept_of_what_ended() -> None:
    ledger = Ledger(IDLE)
    for number in range(1000):
        ledger.assign(f"{number}", [f"{number - 1}"], float(number))
    assert ledger.count(1000.0) == 1
    assert len(ledger._owners) <= MOST_VALUES
    assert ledger.count(1000.0 + IDLE) == 0
    assert not ledger._owners


def test_cleared_it_knows_nobody() -> None:
    ledger = Ledger(100.0)
    ledger.assign("old", [], 0.0)
    ledger.assign("new", ["old"], 0.0)
    ledger.clear()
    assert ledger.count(1.0) == 0
    assert not ledger.use(["old", "new"], 1.0)


def test_beyond_the_bound_the_longest_unused_is_forgotten() -> None:
    ledger = Ledger(IDLE, most=2)
    for value in ("a", "b", "a", "c"):
        ledger.assign(value, [], 0.0)
    assert ledger.count(0.0) == 2
    assert ledger.use(["a"], 0.0)
    assert ledger.use(["c"], 0.0)
    assert not ledger.use(["b"], 0.0)
