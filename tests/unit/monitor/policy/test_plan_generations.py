"""The generations of a pool on a machine that has a number."""

from __future__ import annotations

from functools import partial

from plan_stage import WALL, Stage, a_life

from lbadaptor.contract.generation import number_of, with_number
from monitor.policy.actions import Start
from monitor.policy.pool import Pool
from monitor.policy.states import LifeState


def mask(slot: int, ms: int) -> int:
    return (slot * 31 + ms) % 1000


def pool_with_number(stage: Stage, last: int = 0) -> Pool:
    return Pool(stage.settings, last, next_generation=partial(with_number, 7, mask))


def test_each_start_has_the_number_and_none_has_the_ms_of_another() -> None:
    stage = Stage(servers=3)
    started = [action.identity for action in pool_with_number(stage).plan(stage.now, stage.wall)]
    assert [number_of(one.generation, one.slot, mask) for one in started] == [7, 7, 7]
    assert [one.generation // 1000 for one in started] == [WALL, WALL + 1, WALL + 2]


def test_it_goes_on_above_what_was_used_without_a_number_and_back() -> None:
    stage = Stage(servers=1)
    with_one = pool_with_number(stage, last=WALL + 5)
    [first] = with_one.plan(stage.now, stage.wall)
    assert len(str(first.identity.generation)) == 16
    assert with_one.starts.last_generation == first.identity.generation
    without = Stage(servers=1, last_generation=with_one.starts.last_generation)
    [second] = without.plan()
    assert second.identity.generation == first.identity.generation + 1


def test_an_adopted_one_raises_it() -> None:
    stage = Stage(servers=2)
    pool = pool_with_number(stage)
    pool.adopt(a_life(0, generation=(WALL + 1000) * 1000 + 999, state=LifeState.OK), stage.now)
    [started] = [action for action in pool.plan(stage.now, stage.wall) if isinstance(action, Start)]
    assert started.identity.generation // 1000 == WALL + 1001
