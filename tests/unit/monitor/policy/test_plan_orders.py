"""The plan: orders, and the stop of everything."""

from __future__ import annotations

import logging
import re

import pytest
from plan_stage import Stage, short

from monitor.contract.patience import MARGIN
from monitor.policy import orders

# Orders.


def test_drain_by_order_replaces_first() -> None:
    stage = Stage()
    stage.up()
    assert orders.drain(stage.pool, 1) == "slot 1 will be drained when its replacement is up"
    assert short(stage.plan()) == ["start 2"]
    assert orders.drain(stage.pool, 1) == "slot 1 is on its way out already"
    assert short(stage.ready(2)) == ["drain 1"]
    assert orders.drain(stage.pool, 1) == "slot 1 is on its way out already"


@pytest.mark.parametrize("order", ["drain", "undrain"])
def test_an_order_for_an_empty_slot_names_the_slots_in_use(order: str) -> None:
    stage = Stage()
    stage.up()
    give = {
        "drain": lambda: orders.drain(stage.pool, 7),
        "undrain": lambda: orders.undrain(stage.pool, 7, stage.now),
    }[order]
    with pytest.raises(ValueError, match=re.escape("there is no AppServer in slot 7; the slots in use are: 0, 1")):
        give()


def test_only_one_that_is_ok_can_be_drained() -> None:
    stage = Stage()
    stage.plan()
    with pytest.raises(ValueError, match="slot 0 is STARTING: only one that is OK can be drained"):
        orders.drain(stage.pool, 0)


def test_undrain_before_the_replacement_is_up_takes_the_order_back() -> None:
    stage = Stage()
    stage.up()
    orders.drain(stage.pool, 0)
    stage.plan()
    assert orders.undrain(stage.pool, 0, stage.now) == "slot 0 is OK again"
    assert stage.plan() == []
    # The replacement makes one too many: not the undrained one leaves.
    assert short(stage.ready(2)) == ["drain 2"]


def test_undrain_of_a_dying_one_and_the_surplus_with_the_fewest_sessions_leaves() -> None:
    stage = Stage(servers=3)
    stage.up()
    orders.drain(stage.pool, 0)
    stage.plan()
    stage.ready(3)
    for slot, sessions in ((0, 0), (1, 9), (2, 3), (3, 5)):
        stage.probed(slot, sessions=sessions)
    orders.undrain(stage.pool, 0, stage.now)
    assert short(stage.plan()) == ["undrain 0", "drain 2"]
    assert stage.states == {0: "OK", 1: "OK", 2: "DYING", 3: "OK"}


def test_one_past_its_limit_is_not_undrained() -> None:
    stage = Stage()
    stage.up()
    stage.pool.past_limit(stage.at(0), "requests")
    stage.plan()
    for _ in range(2):
        with pytest.raises(ValueError, match="slot 0 is past its limit and is not undrained"):
            orders.undrain(stage.pool, 0, stage.now)
        stage.ready(2)


def test_one_that_passed_its_limit_while_dying_is_not_undrained() -> None:
    stage = Stage()
    stage.up()
    orders.drain(stage.pool, 0)
    stage.plan()
    stage.ready(2)
    stage.pool.past_limit(stage.at(0), "requests")
    with pytest.raises(ValueError, match="past its limit"):
        orders.undrain(stage.pool, 0, stage.now)


def test_one_that_is_not_being_drained_cannot_be_undrained() -> None:
    stage = Stage()
    stage.up()
    with pytest.raises(ValueError, match="slot 0 is OK and not being drained"):
        orders.undrain(stage.pool, 0, stage.now)


def test_a_drain_without_a_free_slot_waits_and_no_other_is_ended_for_it(caplog: pytest.LogCaptureFixture) -> None:
    stage = Stage(servers=1, slots=2)
    stage.up()
    orders.drain(stage.pool, 0)
    stage.plan()
    stage.ready(1)
    orders.drain(stage.pool, 1)
    assert stage.plan() == []
    assert stage.later(100) == []
    assert stage.states == {0: "DYING", 1: "OK"}
    assert "no slot is free: slots = 2" in caplog.messages
    stage.empty(0)
    assert short(stage.exits(0)) == ["start 0"]


# Stopping everything.


def test_stop_ends_everybody_in_every_state() -> None:
    stage = Stage(servers=5, slots=20, stop_grace=30)
    stage.up()
    stage.later(100)
    orders.drain(stage.pool, 0)
    stage.plan()
    stage.ready(5)  # 0 is DYING
    stage.unanswered(1, times=3)  # FAILING
    stage.exits(2)  # STARTING
    for _ in range(3):
        stage.exits(3)
    assert stage.states == {0: "DYING", 1: "FAILING", 2: "STARTING", 3: "BACKOFF", 4: "OK", 5: "OK"}
    stage.pool.stop(stage.now)
    assert short(stage.plan()) == ["stop 0", "stop 1", "stop 2", "stop 4", "stop 5"]
    assert set(stage.states.values()) == {"STOPPING"}
    assert stage.pool.next_wake(stage.now) == 30 + MARGIN
    for slot in (0, 1, 2, 4):
        assert not stage.pool.over
        assert stage.exits(slot, "exited") == []
    assert short(stage.later(30 + MARGIN)) == ["kill 5"]
    assert stage.exits(5) == []
    assert stage.pool.over
    assert stage.later(100) == []


def test_stop_before_anything_was_started() -> None:
    stage = Stage()
    stage.pool.stop(stage.now)
    assert stage.plan() == []
    assert stage.pool.over


def test_stop_twice_is_stop_once() -> None:
    stage = Stage()
    stage.up()
    stage.pool.stop(stage.now)
    stage.plan()
    stage.pool.stop(stage.now)
    assert stage.plan() == []


def test_one_that_is_ready_too_late_is_stopped_all_the_same() -> None:
    stage = Stage(servers=1)
    stage.plan()
    stage.pool.stop(stage.now)
    stage.ready(0)
    assert stage.states == {0: "STOPPING"}


# Orders that do not arrive.


def test_an_order_that_is_not_taken_is_given_again_and_said_once(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "lbmonitor")
    stage = Stage(servers=1)
    stage.up()
    orders.drain(stage.pool, 0)
    stage.plan()
    assert short(stage.ready(1)) == ["drain 0"]
    assert stage.probed(0, status="OK") == [], "that answer may be older than the order"
    assert short(stage.probed(0, status="OK")) == ["drain 0"]
    assert stage.probed(0, status="OK") == []
    assert short(stage.probed(0, status="OK")) == ["drain 0"]
    said = "slot 0 does not take the order to drain; it is given again and again"
    assert caplog.messages.count(said) == 1
    assert list(stage.pool.problems) == [said]
    assert stage.probed(0, status="DYING") == []
    assert not list(stage.pool.problems)
    orders.undrain(stage.pool, 0, stage.now)
    stage.plan()
    stage.probed(0, status="DYING")
    assert "undrain 0" in short(stage.probed(0, status="DYING"))


def test_one_that_does_not_say_what_it_is_is_believed() -> None:
    stage = Stage(servers=1)
    stage.up()
    for _ in range(5):
        assert stage.probed(0, status="") == []
