"""A wall clock that is set while sessions are kept, and a session that is too large for any file."""

from __future__ import annotations

from pathlib import Path

import pytest
from test_keeper import Start, root, start  # noqa: F401

from lbadaptor.appserver.sessions.persistence import saver
from lbadaptor.appserver.sessions.persistence.sweep import Sweep
from tests.apps.dictionary_store import NOW

YEAR = 366 * 86400.0


@pytest.mark.parametrize("wrong", [NOW + YEAR, NOW - YEAR])
def test_what_was_saved_while_the_clock_was_wrong_is_served_when_it_is_right(start: Start, wrong: float) -> None:  # noqa: F811
    old, new = start(), start()
    old.now = wrong
    old.store.ends = wrong + 1000
    old.login("id1")
    old.now = NOW
    old.store.ends = NOW + 1000
    kept = old.keeper.enter(["id1"])
    assert kept is not None
    old.keeper.save(kept)
    old.die()
    assert new.visit("id1")[1]
    found = new.file("id1")
    assert found is not None
    assert found[0].ends == NOW + 1000


@pytest.mark.parametrize("everything", [True, False])
def test_a_clock_that_is_ahead_for_a_while_costs_no_session_that_waits(start: Start, everything: bool) -> None:  # noqa: F811
    old, new = start(everything=everything), start(everything=everything)
    old.login("id1")
    assert old.keeper.leave(1.0)
    new.now = NOW + YEAR
    assert new.visit("id1") == (None, False)
    new.now = NOW
    assert new.visit("id1")[1]


def test_one_that_goes_on_under_the_id_of_an_ended_one_is_not_taken_for_it(start: Start) -> None:  # noqa: F811
    """The ended one's file stays for a day."""
    first, second, third = start(), start(), start()
    first.login("id1", b"old")
    assert first.keeper.leave(1.0)
    second.now = third.now = NOW + 2000
    assert second.visit("id1") == (None, False)
    second.store.ends = NOW + 3000
    second.login("id1", b"new")
    second.die()
    sweep = Sweep(third.folder)
    while list(second.place.parent.glob(second.place.name)):
        sweep.run()
    assert third.visit("id1")[1]
    assert third.store.sessions == {"id1": b"new"}


def test_a_huge_session_is_served_and_said_and_does_not_leave(
    start: Start,  # noqa: F811
    root: Path,  # noqa: F811
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(saver, "MAX_SESSION", 9000)
    process = start()
    kept = process.login("id1", b"x" * 9001)
    assert kept.why == "more than 9000 bytes"
    found = process.file("id1")
    assert found is not None
    assert found[1] is None, "that there is a session can be told"
    assert not process.keeper.leave(1.0)
    process.keeper.look()
    assert process.keeper.figures.unsaved == {"more than 9000 bytes": 1}
    process.store.sessions["id1"] = b"smaller"
    assert process.keeper.leave(1.0)
