"""Orders about one AppServer, a number of AppServers that changes, and the events that all this leaves."""

from __future__ import annotations

import msgspec
import pytest
from plan_stage import Stage, short

from monitor.contract.events import Happened, What
from monitor.contract.messages import Kept
from monitor.policy import orders
from monitor.policy.run_time import RunTime


def happened(stage: Stage) -> list[Happened]:
    return stage.pool.journal.take()


def told(stage: Stage) -> list[tuple[str, int | None, str]]:
    """What, where and why."""
    return [(one.event.value, one.slot, one.why) for one in happened(stage)]


def scale(stage: Stage, servers: int) -> list[str]:
    stage.pool.settings = RunTime(servers=servers).applied(stage.settings)
    return short(stage.plan())


def test_from_two_to_four_and_back_without_a_release() -> None:
    stage = Stage(servers=2, slots=8)
    stage.up()
    for slot in (0, 1):
        stage.probed(slot, sessions=5)
    assert scale(stage, 4) == ["start 2", "start 3"]
    stage.ready(2, 3)
    happened(stage)
    assert scale(stage, 2) == ["drain 3", "drain 2"]  # those with the fewest sessions
    assert told(stage) == [("drain", 3, "one too many"), ("drain", 2, "one too many")]
    assert not stage.pool.release.under_way


def test_one_is_replaced_and_drained() -> None:
    stage = Stage(servers=2)
    stage.up()
    assert orders.restart(stage.pool, 1, False, stage.now, "anna") == (
        "slot 1 will be drained when its replacement is up"
    )
    assert short(stage.plan()) == ["start 2"]
    happened(stage)
    assert short(stage.ready(2)) == ["drain 1"]
    assert told(stage) == [("ready", 2, ""), ("drain", 1, "order (anna)")]


def test_one_is_replaced_and_ended() -> None:
    stage = Stage(servers=2)
    stage.up()
    stage.probed(1, sessions=3)
    assert orders.restart(stage.pool, 1, True, stage.now, "anna") == (
        "slot 1 will be ended, with 3 sessions, when its replacement is up"
    )
    assert short(stage.plan()) == ["start 2"]
    happened(stage)
    assert short(stage.ready(2)) == ["stop 1"]
    stage.exits(1, "exited with status 0", 0)
    [_, stopping, exit] = happened(stage)
    assert (stopping.event, stopping.why, stopping.sessions) == (What.STOPPING, "order of anna", 3)
    assert (exit.event, exit.state, exit.sessions, exit.lost) == (What.EXIT, "GONE", 3, 3)


def test_a_dying_one_is_ended_at_once() -> None:
    stage = Stage(servers=2)
    stage.up()
    orders.drain(stage.pool, 1)
    stage.plan()
    stage.ready(2)
    stage.probed(1, sessions=3)
    assert orders.restart(stage.pool, 1, True, stage.now, "anna") == "slot 1 is ended, with 3 sessions"
    assert short(stage.plan()) == ["stop 1"]


def test_one_that_waits_is_started_at_once() -> None:
    stage = Stage(servers=2)
    stage.up()
    stage.into_backoff(1)
    orders.restart(stage.pool, 1, False, stage.now, "anna")
    assert short(stage.plan()) == ["start 1"]


def test_one_that_starts_has_no_sessions_to_end() -> None:
    stage = Stage(servers=2)
    stage.plan()
    with pytest.raises(ValueError, match=r"slot 1 is STARTING: there are no sessions to end"):
        orders.restart(stage.pool, 1, True, stage.now)
    with pytest.raises(ValueError, match=r"slot 1 is STARTING: only one that is OK can be drained"):
        orders.restart(stage.pool, 1, False, stage.now)
    with pytest.raises(ValueError, match=r"there is no AppServer in slot 7"):
        orders.kill(stage.pool, 7, stage.now)


def kept(**values: object) -> Kept:
    return msgspec.structs.replace(Kept(mode="anything"), **values)


@pytest.mark.parametrize(("saved", "lost"), [(None, 5), (kept(saved=5), 0), (kept(saved=3, unsaved={"file": 2}), 2)])
def test_one_is_killed_and_replaced_and_its_losses_are_told(saved: Kept | None, lost: int) -> None:
    stage = Stage(servers=2)
    stage.up()
    stage.life(1).pid = 4711
    stage.probed(1, sessions=5, kept=saved)
    happened(stage)
    assert orders.kill(stage.pool, 1, stage.now, "anna") == (
        f"slot 1 (pid 4711) is killed; sessions that are lost: {lost} of 5"
    )
    assert short(stage.plan()) == ["kill 1"]
    assert short(stage.exits(1, "was ended by SIGKILL", -9)) == ["start 1"]
    [killed, exit, start] = happened(stage)
    assert (killed.event, killed.why, killed.pid, killed.state) == (What.KILLED, "anna ordered it", 4711, "OK")
    assert (exit.event, exit.why) == (What.EXIT, "was ended by SIGKILL because anna ordered it")
    assert (exit.sessions, exit.lost, exit.state) == (5, lost, "BACKOFF")
    assert (start.event, start.slot) == (What.START, 1)


def test_where_no_process_is_none_is_killed() -> None:
    stage = Stage(servers=2)
    stage.plan()
    with pytest.raises(ValueError, match="in slot 1 there is no process to kill"):
        orders.kill(stage.pool, 1, stage.now)


def test_after_an_orderly_end_only_what_could_not_be_saved_is_lost() -> None:
    stage = Stage(servers=2, survive="leaving")
    stage.up()
    stage.probed(1, sessions=5, kept=Kept(mode="leaving", saved=0, unsaved={"file": 1}))
    assert (stage.life(1).lost(orderly=True), stage.life(1).lost(orderly=False)) == (1, 5)


def test_one_that_is_empty_loses_none_even_if_its_last_answer_is_older() -> None:
    stage = Stage(servers=1)
    stage.up()
    orders.drain(stage.pool, 0)
    stage.plan()
    stage.ready(1)
    stage.probed(0, sessions=1)
    happened(stage)
    stage.empty(0)
    stage.exits(0, "exited", 0)
    assert [(one.event, one.sessions, one.lost) for one in happened(stage)] == [
        (What.STOPPING, 0, 0),
        (What.EXIT, 0, 0),
    ]


def test_whose_order_a_stop_is() -> None:
    stage = Stage(servers=1)
    stage.up()
    happened(stage)
    stage.pool.stop(stage.now, "process 1 (systemd) of user 0 with SIGTERM")
    stage.pool.stop(stage.now, "another")
    assert told(stage) == [
        ("monitor stopping", None, "process 1 (systemd) of user 0 with SIGTERM"),
        ("stopping", 0, "process 1 (systemd) of user 0 with SIGTERM"),
    ]


def test_a_release_is_told_from_its_beginning_to_its_end() -> None:
    stage = Stage(servers=1)
    stage.up()
    happened(stage)
    orders.release(stage.pool, stage.now, by="anna")
    stage.plan()
    stage.exits(1, "exited with status 3", 3)
    stage.ready(1)
    said = told(stage)
    assert said[0] == ("release begun", None, "replacing 1 AppServer; ordered by anna")
    assert ("release failed", None) in [one[:2] for one in said]
    assert ("drain", 0, "release (anna)") in said
    assert said[-1] == ("release ended", None, "every AppServer has been replaced")


def test_what_limit_an_appserver_was_replaced_for() -> None:
    stage = Stage(servers=1)
    stage.up()
    stage.pool.past_limit(stage.at(0), "max_requests 1000")
    stage.plan()
    happened(stage)
    stage.ready(1)
    assert told(stage)[-1] == ("drain", 0, "limit (max_requests 1000)")


def test_problems_are_told_when_they_begin_and_end() -> None:
    stage = Stage()
    stage.pool.problems.begin("x", "the disk is full")
    stage.pool.problems.begin("x", "the disk is full")
    stage.pool.problems.end("x")
    assert told(stage) == [
        ("problem begun", None, "the disk is full"),
        ("problem ended", None, "over: the disk is full"),
    ]


def test_probes_that_fail_and_a_hung_one() -> None:
    stage = Stage(servers=2, fall=1, failing_limit=5.0)
    stage.up()
    happened(stage)
    stage.unanswered(0)
    stage.probed(0)
    stage.unanswered(0)
    stage.now += 6
    stage.unanswered(0)
    stage.plan()
    assert [(what, why) for what, _, why in told(stage)] == [
        ("failing", "no answer within 2 s"),
        ("recovered", ""),
        ("failing", "no answer within 2 s"),
        ("stopping", "hung: no progress for 6 s: no answer within 2 s"),
        ("start", ""),
    ]
