"""The plan: releases."""

from __future__ import annotations

import pytest
from plan_stage import Stage, a_life, roll, short

from lbadaptor.contract.address import Identity
from lbadaptor.log import texts
from monitor.policy import orders
from monitor.policy.actions import Send, Signal
from monitor.policy.life import Reason
from monitor.policy.states import LifeState

# Releases.


@pytest.mark.parametrize("at_once", [1, 2])
def test_a_release_replaces_everybody_a_few_at_a_time(at_once: int) -> None:
    stage = Stage(servers=4, replace_at_once=at_once)
    stage.up()
    old = {slot.identity for slot in stage.pool}
    assert orders.release(stage.pool, stage.now) == f"replacing 4 AppServers, {at_once} at a time"
    assert short(stage.plan()) == [f"start {4 + number}" for number in range(at_once)]
    actions, fewest = roll(stage)
    assert fewest == 4
    assert not stage.pool.release.under_way
    ok = {slot.identity for slot in stage.pool if slot.state is LifeState.OK}
    assert len(ok) == 4
    assert not ok & old
    assert {slot.identity for slot in stage.pool if slot.state is LifeState.DYING} == old
    assert sorted(action for action in actions if "drain" in action) == ["drain 0", "drain 1", "drain 2", "drain 3"]


def test_a_release_that_does_not_start_stops_and_the_old_ones_serve_on() -> None:
    stage = Stage(servers=3)
    stage.up()
    stage.later(100)
    orders.release(stage.pool, stage.now)
    stage.plan()
    for _ in range(20):
        stage.exits_early(3)
        assert stage.pool.release.under_way
        assert stage.states == {0: "OK", 1: "OK", 2: "OK", 3: "STARTING"}
    assert short(stage.ready(3)) == ["drain 2", "start 4"]  # mended: it goes on
    roll(stage)
    assert not stage.pool.release.under_way


def test_a_release_announces_as_many_as_it_replaces() -> None:
    """Not a slot in BACKOFF that was to hold a replacement, but one that is to be filled."""
    stage = Stage(servers=4)
    stage.up()
    orders.release(stage.pool, stage.now)
    stage.plan()
    stage.into_backoff(4)
    assert orders.release(stage.pool, stage.now) == "replacing 4 AppServers, 1 at a time"
    assert stage.pool.replaced == (0, 4)
    roll(stage)
    assert stage.pool.replaced == (4, 4)
    stage = Stage(servers=2)
    stage.plan()
    stage.ready(0)
    stage.exits_early(1)
    stage.exits(1)
    assert stage.states == {0: "OK", 1: "BACKOFF"}
    assert orders.release(stage.pool, stage.now) == "replacing 2 AppServers, 1 at a time"
    roll(stage)
    assert stage.pool.replaced == (2, 2)


def test_a_new_release_does_not_wait_for_the_one_that_did_not_start() -> None:
    stage = Stage(servers=2)
    stage.up()
    orders.release(stage.pool, stage.now)
    stage.plan()
    stage.into_backoff(2, 7)
    orders.release(stage.pool, stage.now)
    assert short(stage.plan()) == ["start 2"]


def test_a_release_goes_beyond_the_cap_on_dying_ones() -> None:
    stage = Stage(servers=3, slots=12, max_dying=1)
    stage.up()
    orders.release(stage.pool, stage.now)
    roll(stage)
    assert sorted(stage.states.values()) == ["DYING"] * 3 + ["OK"] * 3


def test_a_release_without_free_slots_ends_the_dying_one_with_the_fewest_sessions(
    caplog: pytest.LogCaptureFixture,
) -> None:
    stage = Stage(servers=2, slots=5)
    stage.up()
    orders.release(stage.pool, stage.now)
    roll(stage)
    for slot, sessions in ((0, 7), (1, 3)):
        assert stage.states[slot] == "DYING"
        stage.probed(slot, sessions=sessions)
    orders.release(stage.pool, stage.now)
    assert short(stage.plan()) == ["start 4"]
    stage.probed(2, sessions=5)
    stage.probed(3, sessions=6)
    # Four are in use with two DYING; a slot for the second replacement is missing.
    assert short(stage.ready(4)) == ["drain 2", "stop 1"]
    assert any("slot 1 is ended with 3 sessions" in message for message in caplog.messages)
    assert stage.states[0] == "DYING"


def test_only_as_many_are_ended_as_slots_are_missing() -> None:
    stage = Stage(servers=2, slots=4)
    stage.up()
    orders.release(stage.pool, stage.now)
    roll(stage)
    assert stage.states == {0: "DYING", 1: "DYING", 2: "OK", 3: "OK"}
    stage.probed(0, sessions=7)
    stage.probed(1, sessions=3)
    orders.release(stage.pool, stage.now)
    assert short(stage.plan()) == ["stop 1"]
    for _ in range(5):
        assert stage.later(0.1) == [], "its slot is not free yet"
    assert stage.states[0] == "DYING"
    assert short(stage.exits(1, "exited")) == ["start 1"]


def test_which_a_release_had_to_end_is_remembered_until_the_next() -> None:
    stage = Stage(servers=2, slots=4)
    stage.up()
    orders.release(stage.pool, stage.now)
    roll(stage)
    assert stage.pool.release.ended == []
    stage.probed(0, sessions=7)
    stage.probed(1, sessions=3)
    orders.release(stage.pool, stage.now)
    stage.plan()
    assert stage.pool.release.ended == ["slot 1 with 3 sessions: no slot is free for the release"]
    assert stage.pool.waiting == "slot 1 is STOPPING"
    roll(stage)
    assert len(stage.pool.release.ended) == 2
    orders.release(stage.pool, stage.now)
    assert stage.pool.release.ended == []


def test_a_release_says_what_it_is_waiting_for_and_how_far_it_is() -> None:
    stage = Stage(servers=2)
    stage.up()
    assert stage.pool.waiting == ""
    orders.release(stage.pool, stage.now)
    assert stage.pool.waiting == "the next one starts"
    stage.plan()
    assert (stage.pool.waiting, stage.pool.replaced) == ("slot 2 is STARTING", (0, 2))
    stage.ready(2)
    assert (stage.pool.waiting, stage.pool.replaced) == ("slot 3 is STARTING", (1, 2))
    stage.unanswered(0, times=3)
    assert stage.states[0] == "FAILING"
    stage.ready(3)
    assert (stage.pool.waiting, stage.pool.replaced) == ("slot 0 is FAILING", (1, 2))
    stage.probed(0)
    assert (stage.pool.waiting, stage.pool.replaced) == ("", (2, 2))


def test_a_release_that_does_not_start_says_why(caplog: pytest.LogCaptureFixture) -> None:
    stage = Stage(servers=3)
    stage.up()
    orders.release(stage.pool, stage.now)
    stage.plan()
    for _ in range(2):
        assert stage.pool.waiting.endswith("slot 3 is STARTING") or stage.pool.waiting.startswith("failed")
        stage.pool.failed(stage.at(3), "app:app: ModuleNotFoundError: No module named 'app'", port=False)
        stage.exits_early(3)
        assert stage.pool.waiting == "failed: slot 3: app:app: ModuleNotFoundError: No module named 'app'"
        assert stage.pool.replaced == (0, 3)
    assert any(message.startswith("release: failed: slot 3: app:app: Mod") for message in caplog.messages)
    stage.ready(3)
    assert stage.pool.replaced == (1, 3)
    assert "failed" not in stage.pool.waiting


def test_a_release_while_none_serves_is_not_over_before_all_do(caplog: pytest.LogCaptureFixture) -> None:
    stage = Stage(servers=2)
    stage.plan()
    for _ in range(6):
        for slot in (0, 1):
            if stage.slot(slot).state is LifeState.STARTING:
                stage.exits(slot, "exited with status 3")
        stage.later(1)
    assert stage.states == {0: "BACKOFF", 1: "BACKOFF"}
    orders.release(stage.pool, stage.now)
    assert "failed" not in stage.pool.waiting, "they were of the release before"
    assert short(stage.plan()) == ["start 0", "start 1"]
    assert (stage.pool.release.under_way, stage.pool.replaced) == (True, (0, 2))
    stage.pool.failed(stage.at(0), "app:app: ValueError: x", port=False)
    stage.exits_early(0)
    assert stage.pool.waiting == "failed: slot 0: app:app: ValueError: x"
    assert "release: failed: slot 0: app:app: ValueError: x; nobody serves" in caplog.messages
    stage.ready(0)
    assert (stage.pool.release.under_way, stage.pool.replaced) == (True, (1, 2))
    stage.ready(1)
    assert (stage.pool.release.under_way, stage.pool.replaced, stage.pool.waiting) == (False, (2, 2), "")


def test_a_start_of_the_release_before_says_nothing_of_this_one(caplog: pytest.LogCaptureFixture) -> None:
    stage = Stage(servers=1)
    stage.plan()
    for _ in range(6):
        stage.exits_early(0)
    orders.release(stage.pool, stage.now)
    stage.pool.failed(stage.at(0), "app:app: ValueError: x", port=False)
    assert short(stage.exits(0, "exited with status 3")) == ["start 0"], "without a wait"
    assert stage.pool.waiting == "slot 0 is STARTING"
    assert not any("release: failed" in message for message in caplog.messages)
    assert stage.pool.replaced == (0, 1)
    stage.ready(0)
    assert (stage.pool.release.under_way, stage.pool.replaced) == (False, (1, 1))


def test_one_that_dies_during_a_release_is_waited_for() -> None:
    stage = Stage(servers=1)
    stage.up()
    stage.later(100)
    orders.release(stage.pool, stage.now)
    stage.plan()
    stage.exits(0)
    assert (stage.pool.release.under_way, stage.pool.replaced) == (True, (0, 1))
    stage.ready(1)
    assert (stage.pool.release.under_way, stage.pool.replaced) == (False, (1, 1))


def test_a_release_that_ends_sessions_stops_each_as_soon_as_it_is_replaced(caplog: pytest.LogCaptureFixture) -> None:
    stage = Stage(servers=2)
    stage.up()
    orders.drain(stage.pool, 0)
    stage.plan()
    stage.ready(2)
    assert stage.states == {0: "DYING", 1: "OK", 2: "OK"}
    for slot in (0, 1, 2):
        stage.probed(slot, sessions=slot + 1)
    orders.release(stage.pool, stage.now, end_sessions=True)
    assert short(stage.plan()) == ["start 3"]
    assert short(stage.ready(3)) == ["stop 1", "start 4"]
    assert stage.states[0] == "DYING"
    # The last one is replaced: one that was DYING before the release goes too.
    assert short(stage.ready(4)) == ["stop 2", "stop 0"]
    assert not stage.pool.release.under_way
    assert stage.pool.release.ended == [
        f"slot {slot} with {texts.count(sessions, 'session')}: a release that ends sessions"
        for slot, sessions in ((1, 2), (2, 3), (0, 1))
    ]
    assert "slot 2 is ended with 3 sessions: a release that ends sessions" in caplog.messages
    stage.later(stage.settings.monitor.stop_grace)
    assert stage.states[1] == "STOPPING", "what is in flight may finish"


def test_a_release_that_ends_sessions_ends_none_while_it_does_not_start() -> None:
    stage = Stage(servers=2)
    stage.up()
    orders.release(stage.pool, stage.now, end_sessions=True)
    stage.plan()
    for _ in range(5):
        stage.exits_early(2)
    assert (stage.states[0], stage.states[1]) == ("OK", "OK")


def test_an_undrained_one_is_not_ended_by_the_release_before() -> None:
    stage = Stage(servers=2)
    stage.up()
    orders.release(stage.pool, stage.now, end_sessions=True)
    stage.plan()
    orders.undrain(stage.pool, 0, stage.now)
    assert short(stage.ready(2)) == ["stop 1"]
    orders.drain(stage.pool, 0)
    stage.plan()
    assert short(stage.ready(3)) == ["drain 0"]


def test_a_release_under_way_goes_on_when_its_appservers_are_adopted() -> None:
    stage = Stage(servers=1)
    leaving = {Reason.RELEASE, Reason.END_SESSIONS}
    stage.pool.adopt(a_life(0, state=LifeState.OK, leaving=leaving), stage.now)
    assert (stage.pool.release.under_way, stage.pool.replaced) == (True, (0, 1))
    assert short(stage.plan()) == ["undrain 0", "start 1"]
    assert short(stage.ready(1)) == ["stop 0"]


def test_a_failing_one_is_replaced_by_the_release_when_it_is_back() -> None:
    stage = Stage(servers=1)
    stage.up()
    stage.unanswered(0, times=3)
    orders.release(stage.pool, stage.now)
    assert stage.plan() == []
    assert stage.pool.release.under_way
    assert short(stage.probed(0)) == ["start 1"]
    assert short(stage.ready(1)) == ["drain 0"]


# Settings that changed with a release.


@pytest.mark.parametrize(("servers", "actions"), [(1, ["drain 0"]), (3, ["start 2"])])
def test_another_number_of_servers_is_followed(servers: int, actions: list[str]) -> None:
    stage = Stage(servers=2, slots=12)
    stage.up()
    stage.probed(1, sessions=3)
    stage.pool.settings = Stage(servers=servers, slots=12).settings
    assert short(stage.plan()) == actions


def test_one_that_waits_is_forgotten_when_fewer_are_wanted() -> None:
    stage = Stage(servers=2)
    stage.up()
    for _ in range(3):
        stage.exits(1)
    assert stage.states == {0: "OK", 1: "BACKOFF"}
    stage.pool.settings = Stage(servers=1).settings
    assert stage.plan() == []
    assert stage.states == {0: "OK"}


def test_orders_are_the_four_that_there_are() -> None:
    assert {signal.value for signal in Signal} == {"drain", "undrain", "stop", "kill"}
    assert Send(Identity(0, 1), Signal.STOP) != Send(Identity(0, 2), Signal.STOP)
