"""The drain of the whole machine: nothing is replaced, nobody is sent away, and when it is empty."""

from __future__ import annotations

import logging
from typing import Any

import pytest
from plan_stage import Stage, a_life, short

from monitor.contract.messages import Kept
from monitor.policy import machine_drain, orders
from monitor.policy.machine_drain import FILES_LAG, PUT_OFF, QUIET_PROBES
from monitor.policy.run_time import RunTime
from monitor.policy.states import LifeState

QUIET = QUIET_PROBES * 1.0
"""Seconds: probes are a second apart."""


def up(servers: int = 2, sessions: int = 1, **settings: Any) -> Stage:
    """All are OK and have sessions, and the machine is to leave."""
    stage = Stage(servers=servers, **settings)
    stage.up()
    stage.later(100)
    for slot in range(servers):
        stage.probed(slot, sessions=sessions)
    leave(stage)
    return stage


def leave(stage: Stage) -> str:
    return orders.leave(stage.pool, stage.now, "anna")


def stay(stage: Stage) -> list[str]:
    orders.stay(stage.pool, "anna")
    return short(stage.plan())


def told(stage: Stage) -> list[tuple[str, str]]:
    return [(one.event.value, one.why) for one in stage.pool.journal.take()]


# What is put off.


def test_all_stay_ok() -> None:
    stage = up()
    assert stage.plan() == stage.later(1000) == []
    assert stage.states == {0: "OK", 1: "OK"}


def test_a_limit_waits_until_it_is_taken_back() -> None:
    stage = up()
    assert stage.probed(0, sessions=1, past_limit="requests") == stage.later(1000) == []
    assert stay(stage) == ["start 2"]
    assert short(stage.ready(2)) == ["drain 0"]


def test_a_dead_one_is_not_replaced_as_long_as_another_serves() -> None:
    stage = up(servers=3)
    assert stage.exits(1) == []
    assert stage.states == {0: "OK", 2: "OK"}
    assert stage.later(1000) == []
    assert stay(stage) == ["start 1"]


def test_one_that_waits_for_its_next_start_is_not_started() -> None:
    stage = Stage(servers=2)
    stage.up()
    stage.into_backoff(1)
    leave(stage)
    assert stage.later(1000) == []
    assert stage.states == {0: "OK"}


def test_one_that_is_failing_may_serve_again() -> None:
    stage = up(fall=1, failing_limit=1000)
    stage.unanswered(0)
    assert stage.exits(1) == stage.later(1000) == []
    assert stage.states == {0: "FAILING"}


def test_the_last_one_is_replaced_as_long_as_the_machine_is_not_empty() -> None:
    stage = up()
    stage.exits(0)
    assert short(stage.exits(1)) == ["start 1"]
    assert stage.states == {1: "STARTING"}


def test_the_last_one_waits_for_its_next_start_as_ever() -> None:
    stage = up(servers=2, survive="leaving")
    stage.exits(0)
    stage.exits(1)
    stage.into_backoff(1, 4)
    assert stage.states == {1: "BACKOFF"}
    wait = stage.pool.next_wake(stage.now)
    assert wait > 0
    assert stage.later(wait - 0.1) == []
    assert short(stage.later(0.1)) == ["start 1"]


def test_the_last_one_is_not_replaced_when_the_machine_is_empty() -> None:
    stage = up(servers=1, sessions=0)
    stage.later(QUIET)
    assert stage.pool.empty
    assert stage.exits(0) == stage.later(1000) == []
    assert stage.states == {}
    assert stage.pool.empty
    assert stay(stage) == ["start 0"]


def test_one_past_hard_memory_is_ended_as_ever_and_not_replaced() -> None:
    stage = up(appservers={"hard_memory": 1000})
    assert short(stage.probed(0, memory=1001, sessions=1)) == ["stop 0"]
    assert stage.exits(0, "exited", 0) == []
    assert stage.states == {1: "OK"}


def test_a_dying_one_goes_on_to_drain() -> None:
    stage = Stage(servers=2, drain_limit=60)
    stage.up()
    for slot in (0, 1):
        orders.drain(stage.pool, slot)
        stage.plan()
        stage.ready(slot + 2)
        stage.probed(slot, sessions=1)
    assert stage.states == {0: "DYING", 1: "DYING", 2: "OK", 3: "OK"}
    leave(stage)
    assert short(stage.empty(0)) == ["stop 0"]
    assert stage.exits(0, "exited", 0) == []
    assert short(stage.later(60)) == ["stop 1"]


def test_one_that_starts_becomes_ok_and_is_none_too_many_before_it_is_taken_back() -> None:
    stage = Stage(servers=2)
    stage.up()
    stage.pool.past_limit(stage.at(0), "requests")
    stage.plan()
    leave(stage)
    assert stage.ready(2) == stage.later(1000) == []
    assert stage.states == {0: "OK", 1: "OK", 2: "OK"}
    assert stay(stage) == ["drain 0"]


@pytest.mark.parametrize(("servers", "after"), [(4, ["start 2", "start 3"]), (1, ["drain 1"])])
def test_another_number_takes_effect_when_it_is_taken_back(servers: int, after: list[str]) -> None:
    stage = up()
    stage.pool.settings = RunTime(servers=servers).applied(stage.settings)
    assert stage.plan() == []
    assert stay(stage) == after


def test_a_release_stands_still_and_goes_on_when_it_is_taken_back() -> None:
    stage = Stage(servers=2)
    stage.up()
    orders.release(stage.pool, stage.now)
    stage.plan()
    assert "; the release that is under way stands still until then; " in leave(stage)
    assert stage.ready(2) == stage.later(1000) == []
    assert (stage.pool.waiting, stage.pool.replaced) == (PUT_OFF, (0, 2))
    assert stay(stage) == ["drain 1", "start 3"]
    assert short(stage.ready(3)) == ["drain 0"]
    assert not stage.pool.release.under_way


# Orders meanwhile.


def test_orders_that_replace_are_refused_with_the_way_out() -> None:
    stage = up()
    for order in (
        lambda: orders.drain(stage.pool, 0),
        lambda: orders.restart(stage.pool, 0, False, stage.now),
        lambda: orders.restart(stage.pool, 0, True, stage.now),
    ):
        with pytest.raises(ValueError, match=r"this machine is leaving, .*; `lbctl undrain --all` first"):
            order()
    assert stage.plan() == []


def test_one_is_undrained_or_killed_as_ever() -> None:
    stage = Stage(servers=2)
    stage.up()
    orders.drain(stage.pool, 0)
    stage.plan()
    stage.ready(2)
    leave(stage)
    orders.undrain(stage.pool, 0, stage.now)
    assert short(stage.plan()) == ["undrain 0"]
    stage.life(1).pid = 4711
    orders.kill(stage.pool, 1, stage.now)
    assert short(stage.plan()) == ["kill 1"]
    assert stage.exits(1) == []


def test_a_stop_ends_all_as_ever() -> None:
    stage = up()
    stage.pool.stop(stage.now)
    assert sorted(short(stage.plan())) == ["stop 0", "stop 1"]


def test_both_orders_may_be_given_twice_and_are_told_once() -> None:
    stage = Stage(servers=1)
    stage.up()
    told(stage)
    leave(stage)
    assert leave(stage) == "this machine is leaving already; it has 0 sessions"
    orders.stay(stage.pool, "anna")
    assert orders.stay(stage.pool, "anna") == "this machine is not leaving"
    assert told(stage) == [
        ("machine leaving", "it has 0 sessions; ordered by anna"),
        ("machine stays", "ordered by anna"),
    ]


# When it is empty.


def test_it_is_empty_when_no_probe_has_found_a_session_for_a_while_and_that_is_said_once(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO, "lbmonitor")
    stage = up(servers=2, sessions=3)
    stage.plan()
    told(stage)
    for slot in (0, 1):
        stage.later(100)
        assert not stage.pool.empty
        stage.probed(slot, sessions=0)
    assert stage.pool.next_wake(stage.now) == QUIET
    stage.later(QUIET - 0.1)
    assert (stage.pool.leaving, stage.pool.empty) == (True, False)
    stage.later(0.1)
    assert (stage.pool.leaving, stage.pool.empty) == (True, True)
    stage.probed(0, sessions=1)
    assert not stage.pool.empty, "one has come all the same"
    stage.probed(0, sessions=0)
    stage.later(QUIET)
    assert stage.pool.empty
    assert told(stage) == [("machine empty", "it can be switched off")]
    assert caplog.messages.count("this machine is empty: it can be switched off") == 1
    stay(stage)
    assert (stage.pool.leaving, stage.pool.empty) == (False, False)


def test_one_that_has_not_answered_yet_may_have_sessions() -> None:
    stage = Stage(servers=1)
    stage.pool.adopt(a_life(0, state=LifeState.OK), stage.now)
    leave(stage)
    stage.later(1000)
    assert not stage.pool.empty
    stage.probed(0)
    stage.later(QUIET)
    assert stage.pool.empty


@pytest.mark.parametrize("state", ["DYING", "FAILING", "STOPPING"])
def test_sessions_of_one_that_is_not_ok_count(state: str) -> None:
    stage = Stage(servers=2, fall=1, failing_limit=1e6, appservers={"hard_memory": 1000})
    stage.up()
    stage.probed(1)
    if state == "DYING":
        orders.drain(stage.pool, 0)
        stage.plan()
        stage.ready(2)
        stage.probed(2)
    stage.probed(0, sessions=1)
    leave(stage)
    if state == "FAILING":
        stage.unanswered(0)
    elif state == "STOPPING":
        stage.probed(0, sessions=1, memory=1001)
    stage.later(1000)
    assert (stage.states[0], stage.pool.empty) == (state, False)
    stage.exits(0)
    stage.later(QUIET)
    assert stage.pool.empty


def test_time_in_which_nobody_looked_does_not_count() -> None:
    stage = up(sessions=0)
    stage.plan()
    stage.now += 1000
    stage.pool.stood_still(1000)
    stage.plan()
    assert not stage.pool.empty
    stage.later(QUIET)
    assert stage.pool.empty


# Sessions in files.


def kept(waiting: int | None, why: str = "", longest: float = 0.0) -> Kept:
    return Kept("leaving", "Flask", why, waiting=waiting, waiting_longest=longest)


@pytest.mark.parametrize(
    ("first", "second", "empty", "sessions"),
    [
        (kept(None), kept(None), False, 0),  # not counted yet
        (kept(None), kept(0), True, 0),
        (kept(None), kept(7), False, 7),
        (kept(7), kept(8), False, 8),  # the first has ceased to count
        (kept(None, "no room"), kept(None, "no room"), True, 0),
        (kept(None, "no room"), kept(None), False, 0),
        (None, None, False, 0),
    ],
)
def test_sessions_that_wait_in_files_count(first: Kept | None, second: Kept, empty: bool, sessions: int) -> None:
    stage = up(survive="leaving", sessions=0)
    stage.probed(0, kept=first)
    stage.probed(1, kept=second)
    stage.later(FILES_LAG)
    assert stage.pool.empty is empty
    assert machine_drain.sessions(stage.pool.lives, stage.settings) == sessions


def test_files_are_counted_later_than_sessions_leave() -> None:
    stage = up(survive="leaving", sessions=0)
    stage.probed(0, kept=kept(0))
    stage.later(FILES_LAG - 0.1)
    assert not stage.pool.empty
    stage.later(0.1)
    assert stage.pool.empty


def test_one_is_started_for_sessions_that_wait_where_nobody_serves() -> None:
    stage = Stage(servers=2, survive="leaving")
    leave(stage)
    assert short(stage.plan()) == ["start 0"]
    stage.ready(0)
    assert stage.later(1000) == []


def test_how_many_there_are_and_how_long_the_last_can_live() -> None:
    stage = up(servers=2, survive="leaving", sessions=3)
    stage.probed(0, sessions=3, longest_session=50.0, kept=kept(4, longest=70.0))
    stage.probed(1, sessions=2, longest_session=60.0, kept=kept(None))
    assert machine_drain.sessions(stage.pool.lives, stage.settings) == 9
    assert machine_drain.longest_session(stage.pool.lives) == 70.0
    assert machine_drain.longest_session([]) == 0.0
