"""The table: when a session counts, and whom a DYING AppServer admits."""

from __future__ import annotations

import pytest

from lbadaptor.appserver.sessions.table import MAX_VALUES_OF_SESSION, OVERLAP, SessionTable, short

IDLE = 100.0


@pytest.fixture
def table() -> SessionTable:
    return SessionTable(IDLE)


def test_a_session_counts_from_its_assignment(table: SessionTable) -> None:
    assert table.count(0.0) == 0
    table.assign("a", [], 0.0)
    assert table.count(0.0) == 1
    assert table.use(["a"], 1.0)


def test_a_value_that_was_never_assigned_is_unknown(table: SessionTable) -> None:
    table.assign("a", [], 0.0)
    assert not table.use(["b"], 1.0)
    assert not table.use([], 1.0)
    assert table.count(1.0) == 1


def test_any_of_several_values_makes_a_request_known(table: SessionTable) -> None:
    table.assign("a", [], 0.0)
    assert table.use(["other", "a"], 1.0)
    assert table.use(["a", "other"], 1.0)


@pytest.mark.parametrize(("later", "living"), [(IDLE - 0.1, 1), (IDLE, 0)])
def test_a_session_ends_when_it_was_unused_for_the_idle_time(table: SessionTable, later: float, living: int) -> None:
    table.assign("a", [], 50.0)
    assert table.count(50.0 + later) == living


def test_an_ended_session_is_unknown(table: SessionTable) -> None:
    table.assign("a", [], 0.0)
    assert not table.use(["a"], IDLE)


def test_use_prolongs_a_session(table: SessionTable) -> None:
    table.assign("a", [], 0.0)
    table.assign("b", [], 1.0)
    assert table.use(["a"], 90.0)
    assert table.count(IDLE + 1.0) == 1
    assert table.use(["a"], 189.0)
    assert not table.use(["b"], 189.0)


def test_assigning_the_same_value_again_prolongs_the_session_and_counts_it_once(table: SessionTable) -> None:
    table.assign("a", [], 0.0)
    table.assign("a", ["a"], 90.0)
    assert table.count(150.0) == 1


def test_a_new_value_replaces_the_one_the_request_brought(table: SessionTable) -> None:
    table.assign("old", [], 0.0)
    table.assign("new", ["old"], 10.0)
    assert table.count(10.0) == 1


@pytest.mark.parametrize(("later", "known"), [(OVERLAP - 0.1, True), (OVERLAP, False)])
def test_a_replaced_value_stays_known_for_some_time(table: SessionTable, later: float, known: bool) -> None:
    table.assign("old", [], 0.0)
    table.assign("new", ["old"], 10.0)
    assert table.use(["new"], 10.0 + later)
    assert table.use(["old"], 10.0 + later) is known


def test_a_value_that_was_replaced_stays_known_until_the_new_one_has_arrived(table: SessionTable) -> None:
    table.assign("old", [], 0.0)
    table.assign("new", ["old"], 10.0)
    assert table.use(["old"], IDLE)


def test_a_value_that_was_never_a_session_is_not_known_for_being_brought_at_a_login(table: SessionTable) -> None:
    table.assign("new", ["made up"], 0.0)
    assert not table.use(["made up"], 1.0)


def test_a_replaced_value_that_is_assigned_again_is_a_session_again(table: SessionTable) -> None:
    table.assign("a", [], 0.0)
    table.assign("b", ["a"], 1.0)
    table.assign("a", ["b"], 2.0)
    assert table.count(2.0) == 1
    assert table.use(["a"], 2.0 + OVERLAP)
    assert not table.use(["b"], 2.0 + OVERLAP)


def test_a_deleted_session_counts_no_more_and_is_unknown(table: SessionTable) -> None:
    table.assign("a", [], 0.0)
    table.assign("b", [], 0.0)
    table.end(["a", "never seen"])
    assert table.count(1.0) == 1
    assert not table.use(["a"], 1.0)


def test_deleting_forgets_a_replaced_value_too(table: SessionTable) -> None:
    table.assign("old", [], 0.0)
    table.assign("new", ["old"], 1.0)
    table.end(["old", "new"])
    assert not table.use(["old"], 2.0)
    assert table.count(2.0) == 0


def test_longest_is_the_time_until_the_last_session_ends(table: SessionTable) -> None:
    assert table.longest(0.0) == 0.0
    table.assign("a", [], 0.0)
    table.assign("b", [], 10.0)
    assert table.longest(20.0) == 90.0
    table.use(["a"], 30.0)
    assert table.longest(30.0) == IDLE
    assert table.longest(30.0 + IDLE) == 0.0


def test_nothing_is_kept_of_what_ended() -> None:
    table = SessionTable(IDLE)
    for number in range(1000):
        table.assign(f"{number}", [f"{number - 1}"], float(number))
    assert table.count(1000.0) == 1
    assert len(table._owners) <= MAX_VALUES_OF_SESSION
    assert table.count(1000.0 + IDLE) == 0
    assert not table._owners


def test_cleared_it_knows_no_session() -> None:
    table = SessionTable(100.0)
    table.assign("old", [], 0.0)
    table.assign("new", ["old"], 0.0)
    table.clear()
    assert table.count(1.0) == 0
    assert not table.use(["old", "new"], 1.0)


def test_beyond_the_bound_the_longest_unused_is_forgotten() -> None:
    table = SessionTable(IDLE, most=2)
    for value in ("a", "b", "a", "c"):
        table.assign(value, [], 0.0)
    assert table.count(0.0) == 2
    assert table.use(["a"], 0.0)
    assert table.use(["c"], 0.0)
    assert not table.use(["b"], 0.0)


def test_a_session_that_has_moved_away_is_forgotten_with_all_its_values() -> None:
    table = SessionTable(100.0)
    table.assign("a", (), 0.0)
    for old, new in (("a", "b"), ("b", "c" * 99)):
        table.assign(new, (old,), 1.0)
    table.assign("other", (), 1.0)
    table.forget(["c" * 99, "unknown"])
    assert [table.use([value], 2.0) for value in ("a", "b", "c" * 99, "other")] == [False, False, False, True]
    assert table.count(2.0) == 1


def test_a_session_that_lives_by_another_value_is_not_forgotten() -> None:
    """After a login under a new id: requests with the old one are under way."""
    table = SessionTable(100.0)
    new = "b" * 99
    table.assign("a", (), 0.0)
    table.assign(new, ("a",), 1.0)
    table.forget(["a"], {short(new)}.__contains__)
    assert (table.use(["a"], 2.0), table.use([new], 2.0), table.count(2.0)) == (True, True, 1)
    table.forget([short(new)], set().__contains__)
    assert (table.use(["a"], 2.0), table.count(2.0)) == (False, 0)


def test_the_oldest_is_the_one_that_has_been_known_for_longest(table: SessionTable) -> None:
    """However it is used, and whatever other value it gets."""
    assert table.oldest(5.0) == 0
    table.assign("a", [], 0.0)
    table.assign("b", [], 10.0)
    table.use(["a"], 20.0)
    table.assign("a2", ["a"], 20.0)
    assert table.oldest(50.0) == 50.0
    table.end(["a", "a2"], 50.0)
    assert table.oldest(50.0) == 40.0
    assert table.oldest(10.0 + IDLE) == 0


def test_sessions_that_have_ended_leave_nothing_behind(table: SessionTable) -> None:
    for number in range(100):
        table.assign(f"a{number}", [], float(number))
        table.assign(f"a{number + 1}", [f"a{number}"], float(number))
    table.use(["a1"], 101.0)
    table.count(500.0)
    assert (len(table._begun), len(table._last_use), len(table._owners)) == (0, 0, 0)
