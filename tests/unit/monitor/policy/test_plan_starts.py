"""The plan: exits, and starts that fail or take too long."""

from __future__ import annotations

import logging

import pytest
from plan_stage import Stage, short

from monitor.contract.events import What
from monitor.contract.messages import ProbeAnswer
from monitor.policy import orders
from monitor.policy.actions import Send, Signal
from monitor.policy.contradictions import REPEAT_SIGNAL
from monitor.policy.slot import PASS_OVER, SHORT_LIFE
from monitor.policy.starts import FEWEST_STARTS
from monitor.policy.states import LifeState

# Exits.


def test_one_that_dies_is_replaced_at_once_in_its_slot() -> None:
    stage = Stage()
    stage.up()
    stage.later(100)
    assert short(stage.exits(1)) == ["start 1"]
    assert stage.states == {0: "OK", 1: "STARTING"}
    assert stage.life(1).sessions == 0


def test_the_time_until_a_slot_serves_again_is_said(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "lbmonitor")
    stage = Stage()
    stage.up()
    stage.later(100)
    stage.exits(1)
    stage.later(0.25)
    stage.ready(1)
    assert "slot 1 is back after 250 ms" in caplog.messages


def test_short_lives_wait_longer_and_longer_up_to_the_limit() -> None:
    stage = Stage(servers=1, backoff_limit=10)
    stage.plan()
    waits = []
    for _ in range(9):
        begun = stage.now
        stage.exits_early(0)
        waits.append(stage.now - begun)
    assert waits == [0, 1, 2, 4, 8, 10, 10, 10, 10]


def test_in_hundreds_of_short_lives_the_wait_stays_bounded() -> None:
    stage = Stage(servers=1)
    stage.plan()
    for _ in range(500):
        stage.exits_early(0)
        assert stage.slot(0).state is LifeState.STARTING
        assert len(stage.states) == 1


def told(stage: Stage) -> list[What]:
    return [happened.event for happened in stage.pool.journal.take()]


def test_a_start_that_fails_all_night_does_not_fill_the_events() -> None:
    stage = Stage(servers=1)
    stage.plan()
    told(stage)
    noted = []
    for failure in range(1, 41):
        stage.exits_early(0)
        if What.EXIT in told(stage):
            noted.append(failure)
    assert noted == [1, 2, 3, 5, 9, 17, 33]


def test_the_event_of_a_failed_start_tells_how_many_have_failed() -> None:
    stage = Stage(servers=1)
    stage.plan()
    for _ in range(5):
        stage.exits_early(0)
    *_, last = (happened for happened in stage.pool.journal.take() if happened.event is What.EXIT)
    assert last.why.endswith("; 5 starts in a row have failed")


def test_an_appserver_that_was_ready_is_told_of_however_many_have_failed() -> None:
    stage = Stage(servers=1)
    stage.plan()
    for _ in range(3):
        stage.exits_early(0)
    told(stage)
    stage.ready(0)
    stage.later(1)
    stage.exits(0)
    assert told(stage)[:2] == [What.READY, What.EXIT]


def test_a_start_that_is_killed_by_order_is_told_of() -> None:
    stage = Stage(servers=1)
    stage.plan()
    for _ in range(3):
        stage.exits_early(0)
    told(stage)
    stage.life(0).pid = 4711
    orders.kill(stage.pool, 0, stage.now, "anna")
    stage.exits(0)
    assert told(stage) == [What.KILLED, What.EXIT, What.START]


def test_a_life_of_some_length_wipes_the_slate() -> None:
    stage = Stage(servers=1)
    stage.plan()
    for _ in range(4):
        stage.exits_early(0)
    stage.ready(0)
    stage.later(SHORT_LIFE)
    assert short(stage.exits(0)) == ["start 0"]
    assert short(stage.exits(0)) == ["start 0"]


def test_why_it_waits_is_kept_until_it_is_up() -> None:
    stage = Stage(servers=1)
    stage.plan()
    stage.pool.failed(stage.at(0), "app:app: ModuleNotFoundError", port=False)
    stage.exits(0, "exited with status 3")
    assert stage.slot(0).why == "app:app: ModuleNotFoundError"
    stage.ready(0)
    assert stage.slot(0).why == ""


@pytest.mark.parametrize("how", ["exited with status 7", "was ended by SIGSEGV"])
def test_a_start_that_ends_without_a_report_is_logged_as_such(how: str) -> None:
    stage = Stage(servers=1)
    stage.plan()
    stage.exits(0, how)
    assert stage.slot(0).why == f"{how} while it started, and did not say why; the log has what it printed"
    stage.ready(0)
    stage.exits(0, how)
    assert stage.slot(0).why == how


def test_an_end_that_nothing_ordered_is_told_in_words() -> None:
    stage = Stage(servers=1)
    stage.plan()
    stage.exits(0, "exited", code=0)
    early = "ended by itself with status 0 before it was ready (the application may have called os._exit)"
    assert stage.slot(0).why == early
    stage.exits(0, "was ended by SIGTERM", code=-15)
    assert stage.slot(0).why == "was ended by SIGTERM, which the monitor had not sent"
    stage.later(99)
    stage.ready(0)
    stage.exits(0, "exited", code=0)
    assert stage.slot(0).why == (
        "ended by itself with status 0, and not by order of the monitor (somebody may have sent it SIGTERM, or the"
        " application may have called os._exit)"
    )


def test_an_end_by_order_or_with_a_word_of_its_own_is_told_as_it_is() -> None:
    stage = Stage(servers=1)
    stage.plan()
    stage.pool.failed(stage.at(0), "app:app: ModuleNotFoundError", port=False)
    stage.exits(0, "exited", code=0)
    assert stage.slot(0).why == "app:app: ModuleNotFoundError"
    assert stage.life(0).end_words("exited with status 3", 3) == "exited with status 3"
    stage.pool.stop(stage.now)
    life = stage.life(0)
    assert life.end_words("exited", 0) == "exited"
    assert life.end_words("was ended by SIGTERM", -15) == "was ended by SIGTERM"
    assert life.end_words("ended", None) == "ended"


def test_the_problem_of_an_appserver_that_takes_no_orders_ends_with_it() -> None:
    stage = Stage(servers=1)
    stage.up()
    for _ in range(REPEAT_SIGNAL):
        stage.pool.probed(stage.at(0), ProbeAnswer(stage.at(0).generation, status="DYING"), stage.now)
    assert "order 0" in stage.pool.problems
    stage.exits(0)
    assert "order 0" not in stage.pool.problems


def test_a_dying_one_that_exits_is_gone() -> None:
    stage = Stage()
    stage.up()
    orders.drain(stage.pool, 0)
    stage.plan()
    stage.ready(2)
    assert stage.states == {0: "DYING", 1: "OK", 2: "OK"}
    assert stage.exits(0) == []
    assert stage.states == {1: "OK", 2: "OK"}


def test_one_that_does_not_get_ready_in_time_is_killed_and_started_anew() -> None:
    stage = Stage(servers=1, start_timeout=20)
    stage.plan()
    assert stage.pool.next_wake(stage.now) == 20
    assert stage.later(19.9) == []
    assert short(stage.later(0.1)) == ["kill 0"]
    assert stage.later(100) == [], "once is enough"
    assert short(stage.exits(0)) == ["start 0"]


def test_being_ready_ends_the_start_timeout() -> None:
    stage = Stage(servers=1, start_timeout=20)
    stage.up()
    assert stage.pool.next_wake(stage.now) == float("inf")
    assert stage.later(1000) == []


# Ports that are taken.


def test_a_slot_whose_port_is_taken_is_passed_over_and_said(caplog: pytest.LogCaptureFixture) -> None:
    stage = Stage()
    stage.plan()
    stage.pool.failed(stage.at(0), "127.0.0.1:9000: Address already in use", port=True)
    assert short(stage.exits(0, "exited with status 3")) == ["start 2"]
    assert stage.states == {1: "STARTING", 2: "STARTING"}
    assert "slot 0 is passed over for 60 s: 127.0.0.1:9000: Address already in use" in caplog.messages


def test_a_slot_that_was_passed_over_is_used_again() -> None:
    stage = Stage()
    stage.plan()
    stage.pool.failed(stage.at(0), "in use", port=True)
    stage.exits(0)
    stage.ready(1, 2)
    stage.later(PASS_OVER - 1)
    orders.drain(stage.pool, 1)
    assert short(stage.plan()) == ["start 3"]
    stage.later(1)
    orders.drain(stage.pool, 2)
    stage.ready(3)
    stage.plan()
    assert stage.states[0] == "STARTING"


def test_when_every_slot_is_passed_over_it_waits_and_tries_again(caplog: pytest.LogCaptureFixture) -> None:
    stage = Stage(servers=1, slots=2)
    stage.plan()
    for slot in (0, 1):
        stage.pool.failed(stage.at(slot), "in use", port=True)
        stage.exits(slot)
    assert stage.states == {}
    for _ in range(10):
        stage.plan()
    assert caplog.messages.count("no slot is free: slots = 2") == 1
    wake = stage.pool.next_wake(stage.now)
    assert 0 < wake <= PASS_OVER
    assert short(stage.later(wake)) == ["start 0"]
    for slot in (0, 1):
        stage.pool.failed(stage.at(slot), "in use", port=True)
        stage.exits(slot)
    assert caplog.messages.count("no slot is free: slots = 2") == 2, "it is said again"


def test_a_taken_port_does_not_outlive_an_order_to_stop() -> None:
    stage = Stage(servers=1)
    stage.plan()
    stage.pool.failed(stage.at(0), "in use", port=True)
    stage.pool.stop(stage.now)
    stage.exits(0)
    assert stage.pool.over


def test_passed_over_slots_do_not_wake_the_monitor_while_all_is_stopped() -> None:
    stage = Stage()
    stage.plan()
    stage.pool.failed(stage.at(0), "in use", port=True)
    stage.exits(0)
    stage.ready(1, 2)
    stage.later(PASS_OVER - 1)
    stage.pool.stop(stage.now)
    stage.later(2)
    assert stage.pool.next_wake(stage.now) > 10


# Starts that fail.


def test_starts_that_take_too_long_wait_longer_and_longer() -> None:
    stage = Stage(servers=2, start_timeout=20, backoff_limit=8)
    stage.plan()
    waits = []
    for _ in range(6):
        assert set(short(stage.later(20))) == {"kill 0", "kill 1"}
        begun = stage.now
        stage.exits(0)
        stage.exits(1)
        while not all(slot.state is LifeState.STARTING for slot in stage.pool):
            stage.later(stage.pool.next_wake(stage.now))
        waits.append(stage.now - begun)
    assert waits == [0, 1, 2, 4, 8, 8]


def test_one_that_was_killed_because_it_was_not_ready_is_said_to_be_so(caplog: pytest.LogCaptureFixture) -> None:
    stage = Stage(servers=1, start_timeout=20)
    stage.plan()
    stage.later(20)
    stage.exits(0)
    stage.later(20)
    stage.exits(0)
    why = "was ended by SIGKILL because it was not ready within 20 s (start_timeout)"
    assert stage.slot(0).why == why
    assert stage.pool.next_try(stage.slot(0), stage.now) == 1
    assert f"slot 0 is tried again in 1 s: {why}" in caplog.messages


def test_a_long_import_that_fails_is_no_long_life() -> None:
    stage = Stage(servers=1)
    stage.plan()
    for _ in range(3):
        stage.now += 10 * SHORT_LIFE
        stage.exits_early(0)
    stage.now += 10 * SHORT_LIFE
    assert stage.exits(0) == []
    assert stage.slot(0).backoff.wake_at - stage.now == 4


def test_a_long_import_before_a_short_life_neither() -> None:
    stage = Stage(servers=1)
    stage.plan()
    for _ in range(3):
        stage.now += 10 * SHORT_LIFE
        stage.ready(0)
        stage.exits_early(0)
    assert stage.slot(0).backoff.failures == 3


@pytest.mark.parametrize(("setting", "most"), [(0, FEWEST_STARTS), (3, 3)])
def test_starts_are_bounded_in_number(setting: int, most: int) -> None:
    stage = Stage(servers=20, starts_at_once=setting)
    stage.plan()
    seen = set()
    while waiting := [slot.number for slot in stage.pool if slot.state is LifeState.STARTING]:
        assert len(waiting) <= most
        seen.add(waiting[0])
        assert stage.pool.next_wake(stage.now) > 0
        stage.ready(waiting[0])
    assert seen == set(range(20))


def test_those_that_fail_again_and_again_do_not_keep_the_others_from_starting() -> None:
    stage = Stage(servers=4, starts_at_once=2, start_timeout=20)
    stage.plan()
    for _ in range(10):
        for slot in list(stage.pool):  # 0 and 1 hang in their start
            if slot.state is LifeState.STARTING and slot.number > 1:
                stage.ready(slot.number)
        for action in stage.later(20):
            if action == Send(action.identity, Signal.KILL):
                stage.exits(action.identity.slot)
    assert {slot: life for slot, life in stage.states.items() if slot > 1} == {2: "OK", 3: "OK"}
