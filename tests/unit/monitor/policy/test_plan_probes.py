"""The plan: probes, and AppServers that fail them."""

from __future__ import annotations

from plan_stage import Stage, short

from monitor.policy import orders
from monitor.policy.probes import HUNG_GRACE


def test_so_many_failed_probes_in_a_row_make_it_failing() -> None:
    stage = Stage(fall=3)
    stage.up()
    stage.unanswered(0, times=2)
    stage.probed(0)
    stage.unanswered(0, times=2)
    assert stage.states[0] == "OK"
    stage.unanswered(0)
    assert stage.states[0] == "FAILING"
    assert stage.probed(0) == []
    assert stage.states[0] == "OK"


def test_a_failing_one_that_was_dying_is_dying_again() -> None:
    stage = Stage()
    stage.up()
    orders.drain(stage.pool, 0)
    stage.plan()
    stage.ready(2)
    stage.unanswered(0, times=3)
    assert stage.states[0] == "FAILING"
    stage.probed(0, sessions=1)
    assert stage.states[0] == "DYING"


def test_a_failing_one_that_is_back_and_empty_is_stopped() -> None:
    stage = Stage()
    stage.up()
    orders.drain(stage.pool, 0)
    stage.plan()
    stage.ready(2)
    stage.unanswered(0, times=3)
    assert short(stage.probed(0, empty=True)) == ["stop 0"]


def test_a_hung_one_is_stopped_then_killed_and_replaced_meanwhile() -> None:
    stage = Stage(failing_limit=5)
    stage.up()
    stage.unanswered(0, times=3)
    stage.later(4.9)
    assert stage.unanswered(0) == []
    stage.later(0.1)
    assert short(stage.unanswered(0)) == ["stop 0", "start 2"]
    assert stage.states == {0: "STOPPING", 1: "OK", 2: "STARTING"}
    assert stage.pool.next_wake(stage.now) == HUNG_GRACE
    assert short(stage.later(HUNG_GRACE)) == ["kill 0"]
    assert stage.exits(0) == []


def test_a_failing_one_whose_port_refuses_is_not_waited_for() -> None:
    stage = Stage(failing_limit=5)
    stage.up()
    stage.unanswered(0, times=3, refused=True)
    assert stage.states[0] == "FAILING"
    assert short(stage.unanswered(0, refused=True)) == ["stop 0", "start 2"]


def test_hung_ones_are_ended_one_at_a_time() -> None:
    stage = Stage(servers=3)
    stage.up()
    for slot in (0, 1, 2):
        stage.unanswered(slot, times=3)
    stage.later(10)
    assert short(stage.unanswered(1)) == ["stop 1", "start 3"]
    assert stage.unanswered(0) == []
    assert stage.unanswered(2) == []
    stage.later(HUNG_GRACE)
    assert stage.unanswered(0) == []
    stage.exits(1)
    assert short(stage.unanswered(0)) == ["stop 0", "start 1"]


def test_facts_that_come_all_at_once_end_no_appserver() -> None:
    # What a watcher that slept for long says when it wakes.
    stage = Stage()
    stage.up()
    stage.later(600)
    stage.unanswered(0, times=100)
    assert stage.states[0] == "FAILING"


def test_time_for_which_the_monitor_stood_still_does_not_count() -> None:
    stage = Stage(servers=2, start_timeout=10.0, failing_limit=10.0)
    stage.up()
    stage.unanswered(0, times=3)
    stage.exits(1)
    assert stage.states == {0: "FAILING", 1: "STARTING"}
    stage.pool.stood_still(100.0)
    assert stage.later(109.0) == []
    assert stage.unanswered(0) == []
    assert short(stage.later(1.0)) == ["kill 1"]
    assert "stop 0" in short(stage.unanswered(0))


def test_a_failing_one_that_exits_is_replaced_if_it_was_ok() -> None:
    stage = Stage()
    stage.up()
    stage.later(100)
    stage.unanswered(0, times=3)
    assert short(stage.exits(0)) == ["start 0"]


def test_failed_probes_do_not_count_against_the_next_life() -> None:
    stage = Stage()
    stage.up()
    stage.later(100)
    stage.unanswered(0, times=3)
    stage.exits(0)
    stage.ready(0)
    stage.unanswered(0, times=2)
    assert stage.states[0] == "OK"
