"""A release where sessions survive: all replacements start before the first old AppServer leaves."""

from __future__ import annotations

import pytest
from plan_stage import Stage, roll, short

from monitor.contract.messages import Kept
from monitor.contract.patience import MARGIN, SAVING_MARGIN
from monitor.policy import orders
from monitor.policy.weights import weight

GRACE = 30.0
"""`stop_grace`, by default."""


def up(servers: int = 4, slots: int = 0, survive: str = "leaving", **settings: object) -> Stage:
    """All are OK, and their slots are known to be no short-lived ones."""
    stage = Stage(servers=servers, slots=slots, survive=survive, **settings)  # type: ignore[arg-type]
    stage.up()
    stage.later(100)
    return stage


def release(stage: Stage) -> list[str]:
    orders.release(stage.pool, stage.now)
    return short(stage.plan())


def weights(stage: Stage) -> dict[int, int]:
    return {life.slot: weight(life, stage.settings.appservers, stage.now) for life in stage.pool.lives}


@pytest.mark.parametrize("survive", ["leaving", "anything"])
def test_a_release_starts_all_replacements_before_the_first_one_leaves(survive: str) -> None:
    stage = up(survive=survive)
    assert release(stage) == ["start 4", "start 5", "start 6", "start 7"]
    assert stage.ready(4, 5, 6) == [], "one is yet to start"
    assert short(stage.ready(7)) == ["drain 3", "drain 2", "drain 1", "drain 0"]


def test_without_survive_one_is_replaced_after_the_other() -> None:
    stage = up(survive="nothing")
    assert release(stage) == ["start 4"]
    assert short(stage.ready(4)) == ["drain 3", "start 5"]
    assert weights(stage) == dict.fromkeys(range(6), 100)


def test_one_whose_replacement_is_ok_gets_no_new_visitors_while_it_waits() -> None:
    stage = up()
    stage.probed(3, sessions=9)
    release(stage)
    assert weights(stage) == dict.fromkeys(range(8), 100)
    stage.ready(4)
    assert weights(stage) == {**dict.fromkeys(range(8), 100), 2: 0}, "the one that will leave first"
    stage.ready(5, 6)
    assert weights(stage) == {0: 0, 1: 0, 2: 0, 3: 100, 4: 100, 5: 100, 6: 100, 7: 100}


def test_an_undrained_one_has_its_weight_again() -> None:
    stage = up(servers=2)
    release(stage)
    stage.ready(2)
    assert weights(stage)[1] == 0
    orders.undrain(stage.pool, 1, stage.now)
    stage.plan()
    assert weights(stage)[1] == 100


def test_no_more_start_than_there_are_slots_and_the_rest_follows() -> None:
    stage = up(slots=6)
    assert release(stage) == ["start 4", "start 5"]
    assert stage.ready(4) == []
    assert short(stage.ready(5)) == ["drain 3", "drain 2"], "nobody is ended for want of a slot"
    assert short(stage.empty(3)) == ["stop 3"]
    assert short(stage.exits(3, "exited")) == ["start 3"]
    stage.empty(2)
    assert short(stage.exits(2, "exited")) == ["start 2"]
    assert stage.ready(3) == []
    assert short(stage.ready(2)) == ["drain 1", "drain 0"]
    assert stage.pool.replaced == (4, 4)
    assert not stage.pool.release.under_way


def test_one_that_keeps_its_sessions_is_ended_for_want_of_a_slot_after_its_grace() -> None:
    stage = up(servers=2, slots=3)
    assert release(stage) == ["start 2"]
    assert short(stage.ready(2)) == ["drain 1"]
    assert stage.later(GRACE - 0.1) == []
    assert stage.pool.next_wake(stage.now) == pytest.approx(0.1)
    assert short(stage.later(0.1)) == ["stop 1"]


def test_a_replacement_that_cannot_start_does_not_keep_the_others_waiting() -> None:
    stage = up(servers=2)
    release(stage)
    stage.ready(2)
    stage.exits(3, "exited with status 3")
    assert stage.states == {0: "OK", 1: "OK", 2: "OK", 3: "STARTING"}
    assert short(stage.exits(3, "exited with status 3")) == ["drain 1"]
    assert stage.states == {0: "OK", 1: "DYING", 2: "OK", 3: "BACKOFF"}, "the other one has no replacement"


def test_an_order_is_not_held_back_by_a_release() -> None:
    stage = up(servers=2)
    release(stage)
    stage.ready(2, 3)
    stage.probed(0, sessions=0)
    orders.release(stage.pool, stage.now)
    stage.plan()
    roll(stage)
    assert not stage.pool.release.under_way
    orders.drain(stage.pool, next(slot.number for slot in stage.pool if slot.state.value == "OK"))
    [start] = short(stage.plan())
    assert start.startswith("start")
    assert short(stage.ready(int(start.split()[1])))[-1].startswith("drain")


def test_a_limit_is_one_at_a_time_as_ever() -> None:
    stage = up(servers=3)
    for slot in (0, 1, 2):
        stage.pool.past_limit(stage.at(slot), "max_age")
    assert short(stage.plan()) == ["start 3"]
    assert short(stage.ready(3)) == ["drain 2", "start 4"]


def test_starts_at_once_still_bounds_them() -> None:
    stage = Stage(servers=4, survive="leaving", starts_at_once=2)
    stage.up()
    stage.ready(2, 3)
    assert release(stage) == ["start 4", "start 5"]
    assert short(stage.ready(4, 5)) == ["start 6", "start 7"]
    assert len(stage.ready(6, 7)) == 4


def test_a_release_comes_to_its_end_with_all_that_are_asked_for() -> None:
    stage = up(servers=4, slots=5)
    release(stage)
    for _ in range(20):
        for slot in list(stage.pool):
            assert sum(slot.state.value == "OK" for slot in stage.pool) >= 4
            if slot.state.value == "STARTING":
                stage.ready(slot.number)
            elif slot.state.value == "STOPPING":
                stage.exits(slot.number, "exited")
        stage.later(GRACE)
    assert not stage.pool.release.under_way
    assert stage.pool.replaced == (4, 4)


def test_the_reply_says_that_all_are_replaced_at_once() -> None:
    stage = up(servers=2)
    assert orders.release(stage.pool, stage.now) == "replacing 2 AppServers, all at a time"


@pytest.mark.parametrize(("survive", "margin"), [("nothing", MARGIN), ("leaving", SAVING_MARGIN)])
def test_one_that_saves_its_sessions_has_longer_to_exit(survive: str, margin: float) -> None:
    stage = up(servers=1, survive=survive)
    stage.pool.stop(stage.now)
    assert short(stage.plan()) == ["stop 0"]
    assert stage.later(GRACE + margin - 0.1) == []
    assert short(stage.later(0.1)) == ["kill 0"]


def test_one_that_was_started_when_sessions_survived_has_that_time_too() -> None:
    stage = up(servers=1, survive="nothing")
    stage.probed(0, kept=Kept(mode="leaving"))
    stage.pool.stop(stage.now)
    stage.plan()
    assert stage.later(GRACE + MARGIN) == []
    assert short(stage.later(SAVING_MARGIN - MARGIN)) == ["kill 0"]
