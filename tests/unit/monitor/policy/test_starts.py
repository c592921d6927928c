"""Which AppServers start: how many at once, in which order, and when no slot is free for one."""

from __future__ import annotations

from plan_stage import WALL, Stage

from monitor.policy.slot import Backoff, Wait


def begun(stage: Stage, wanted: int, wall: int = WALL) -> list[int]:
    """The slots in which AppServers start."""
    return [start.identity.slot for start in stage.pool.starts.fill(wanted, stage.settings, stage.now, wall)]


def ready(stage: Stage, *slots: int) -> None:
    for slot in slots:
        stage.pool.ready(stage.at(slot), stage.now)


def test_a_slot_is_lacking_only_when_another_one_may_start() -> None:
    stage = Stage(slots=2, starts_at_once=1)
    assert (begun(stage, 3), stage.pool.starts.lacks_slot) == ([0], False)
    ready(stage, 0)
    assert (begun(stage, 3), stage.pool.starts.lacks_slot) == ([1], False)
    ready(stage, 1)
    assert (begun(stage, 3), stage.pool.starts.lacks_slot) == ([], True)
    assert (begun(stage, 2), stage.pool.starts.lacks_slot) == ([], False)


def test_those_that_failed_often_start_last_and_within_the_bound() -> None:
    stage = Stage(servers=4, slots=6, starts_at_once=3)
    stage.up()
    ready(stage, 3)
    for slot, failures in ((0, 3), (1, 1), (2, 2)):
        stage.slot(slot).occupant = Wait(WALL, stage.now)
        stage.slot(slot).backoff = Backoff(failures, "it fails", stage.now)
    assert begun(stage, 5) == [1, 4, 2]
    ready(stage, 1, 4, 2)
    assert begun(stage, 5) == [0]


def test_one_that_waits_and_is_not_wanted_any_more_is_forgotten() -> None:
    stage = Stage(servers=3)
    stage.up()
    stage.slot(1).occupant = Wait(WALL, stage.now)
    assert begun(stage, 2) == []
    assert list(stage.states) == [0, 2]


def test_each_start_has_a_higher_generation_also_after_one_that_was_adopted() -> None:
    stage = Stage()
    assert begun(stage, 2) == [0, 1]
    first, second = (stage.at(slot).generation for slot in (0, 1))
    assert first < second == stage.pool.starts.last_generation
    stage.life(1).generation = second + 1000
    stage.pool.starts.adopted(stage.life(1))
    stage.pool.starts.adopted(stage.life(0))
    assert begun(stage, 3) == [2]
    assert stage.at(2).generation == second + 1001
