"""The plan: limits, drains, weights and the standby."""

from __future__ import annotations

import itertools

import pytest
from plan_stage import WALL, Stage, a_life, roll, short

from lbadaptor.contract.settings import AppServers
from monitor.policy import orders
from monitor.policy.life import Reason, own_limits
from monitor.policy.probes import HUNG_GRACE
from monitor.policy.states import PUBLISHED, LifeState
from monitor.policy.weights import weight

HARD = 1 << 30
"""Bytes."""


# Past a limit, drain, empty.


def test_past_its_limit_first_the_replacement_then_the_drain_then_the_end() -> None:
    stage = Stage()
    stage.up()
    stage.pool.past_limit(stage.at(0), "requests")
    assert short(stage.plan()) == ["start 2"]
    assert stage.states == {0: "OK", 1: "OK", 2: "STARTING"}
    assert short(stage.ready(2)) == ["drain 0"]
    assert stage.states == {0: "DYING", 1: "OK", 2: "OK"}
    assert short(stage.empty(0)) == ["stop 0"]
    assert stage.states == {0: "STOPPING", 1: "OK", 2: "OK"}
    assert stage.exits(0, "exited") == []
    assert stage.states == {1: "OK", 2: "OK"}


def test_it_has_left_address_text_before_it_is_ordered_to_stop() -> None:
    stage = Stage()
    stage.up()
    orders.drain(stage.pool, 0)
    stage.plan()
    stage.ready(2)
    stage.pool.emptied(stage.at(0), stage.now)
    # The file is written between the thinking and the actions.
    assert stage.slot(0).state not in PUBLISHED
    assert short(stage.pool.plan(stage.now, stage.wall)) == ["stop 0"]


def test_a_probe_reports_a_limit_too() -> None:
    stage = Stage()
    stage.up()
    assert short(stage.probed(0, past_limit="requests")) == ["start 2"]
    assert stage.probed(0, past_limit="requests") == []
    assert stage.life(0).leaving == {Reason.LIMIT}


def test_a_probe_reports_that_it_is_empty_too() -> None:
    stage = Stage()
    stage.up()
    orders.drain(stage.pool, 0)
    stage.plan()
    stage.ready(2)
    assert short(stage.probed(0, empty=True)) == ["stop 0"]


def test_being_empty_means_nothing_to_one_that_is_not_dying() -> None:
    stage = Stage()
    stage.up()
    assert stage.empty(0) == []
    assert stage.probed(0, empty=True) == []
    assert stage.states == {0: "OK", 1: "OK"}


def test_limits_are_replaced_one_at_a_time() -> None:
    stage = Stage(servers=3)
    stage.up()
    for slot in (0, 1, 2):
        stage.pool.past_limit(stage.at(slot), "requests")
    assert short(stage.plan()) == ["start 3"]
    assert len(short(stage.ready(3))) == 2  # one is drained, the next replacement starts
    assert sorted(stage.states.values()) == ["DYING", "OK", "OK", "OK", "STARTING"]


def test_no_more_than_the_cap_are_drained_for_a_limit() -> None:
    stage = Stage(servers=3, max_dying=1)
    stage.up()
    for slot in (0, 1):
        stage.pool.past_limit(stage.at(slot), "requests")
    stage.probed(1, sessions=5)
    assert stage.states[3] == "STARTING"
    assert short(stage.ready(3)) == ["drain 0"]
    assert stage.later(100) == []
    assert stage.states == {0: "DYING", 1: "OK", 2: "OK", 3: "OK"}
    assert short(stage.empty(0)) == ["stop 0", "start 4"]
    assert short(stage.ready(4)) == ["drain 1"]


def test_an_order_goes_beyond_the_cap_for_limits() -> None:
    stage = Stage(servers=2, max_dying=1)
    stage.up()
    for slot in (0, 1):
        stage.pool.past_limit(stage.at(slot), "requests")
    stage.plan()
    stage.probed(1, sessions=5)
    assert short(stage.ready(2)) == ["drain 0"]
    assert stage.later(1) == []
    assert "will be drained" in orders.drain(stage.pool, 1)
    assert short(stage.plan()) == ["start 3"]
    assert short(stage.ready(3)) == ["drain 1"]


@pytest.mark.parametrize(("said", "taken"), [(-1, 0), (0, 0), (41, 41), (10**30, 10**9)])
def test_an_application_may_count_as_it_likes(said: int, taken: int) -> None:
    stage = Stage(servers=1)
    stage.up()
    stage.probed(0, sessions=said)
    assert stage.life(0).sessions == taken


def test_each_has_limits_of_its_own_within_the_spread() -> None:
    servers = AppServers(max_requests=1000, max_age=3600.0, spread=10)
    limits = [own_limits(servers, WALL + number) for number in range(10)]
    requests = sorted(limit for limit, _ in limits)
    assert 900 <= requests[0] <= requests[-1] <= 1000
    assert max(later - sooner for sooner, later in itertools.pairwise(requests)) < 25, "evenly"
    assert len(set(requests)) == 10
    assert all(3240 <= age <= 3600 and abs(age / 3600 - limit / 1000) < 0.002 for limit, age in limits)


def test_without_a_spread_all_have_the_same_limits() -> None:
    servers = AppServers(max_requests=1000, max_age=3600.0, spread=0)
    assert {own_limits(servers, WALL + number) for number in range(10)} == {(1000, 3600.0)}


@pytest.mark.parametrize("number", range(10))
def test_no_limit_stays_none_and_a_small_one_is_kept(number: int) -> None:
    assert own_limits(AppServers(), WALL + number) == (0, 0.0)
    assert own_limits(AppServers(max_requests=3), WALL + number)[0] == 3


def test_a_drain_beyond_its_limit_is_ended_and_that_is_announced(caplog: pytest.LogCaptureFixture) -> None:
    stage = Stage(drain_limit=60)
    stage.up()
    orders.drain(stage.pool, 0)
    stage.plan()
    stage.ready(2)
    stage.probed(0, sessions=7)
    assert stage.pool.next_wake(stage.now) == 60
    assert stage.later(59.9) == []
    assert short(stage.later(0.1)) == ["stop 0"]
    assert stage.states == {0: "STOPPING", 1: "OK", 2: "OK"}
    assert "slot 0 is ended with 7 sessions: it has been DYING for 60 s" in caplog.messages


def test_a_drain_may_take_for_ever_without_a_limit() -> None:
    stage = Stage()
    stage.up()
    orders.drain(stage.pool, 0)
    stage.plan()
    stage.ready(2)
    assert stage.later(1e7) == []


def test_a_drain_that_was_taken_back_begins_anew() -> None:
    stage = Stage(drain_limit=60)
    stage.up()
    orders.drain(stage.pool, 0)
    stage.plan()
    stage.ready(2)
    stage.later(50)
    stage.probed(1, sessions=9)
    orders.undrain(stage.pool, 0, stage.now)
    assert short(stage.plan()) == ["undrain 0", "drain 2"]
    stage.later(50)
    assert stage.states[0] == "OK"
    orders.drain(stage.pool, 0)
    stage.plan()
    stage.ready(3)
    assert "stop 0" not in short(stage.later(50))
    assert "stop 0" in short(stage.later(10))


def test_the_limit_on_a_drain_goes_on_while_it_is_failing() -> None:
    stage = Stage(drain_limit=60, failing_limit=1000)
    stage.up()
    orders.drain(stage.pool, 0)
    stage.plan()
    stage.ready(2)
    stage.later(50)
    stage.unanswered(0, times=3)
    assert short(stage.later(10)) == ["stop 0"]


def test_an_adopted_one_that_is_not_warm_is_not_ready() -> None:
    stage = Stage(servers=1)
    stage.pool.adopt(a_life(0), stage.now)
    stage.probed(0, ready=False)
    assert stage.states == {0: "STARTING"}
    stage.probed(0, ready=True)
    assert stage.states == {0: "OK"}


def test_an_adopted_drain_keeps_its_age() -> None:
    stage = Stage(drain_limit=60)
    stage.pool.adopt(a_life(5, state=LifeState.DYING, since=stage.now - 50), stage.now)
    assert "stop 5" not in short(stage.plan())
    assert short(stage.later(10)) == ["stop 5"]


@pytest.mark.parametrize("life", ["OK", "DYING"])
def test_beyond_the_hard_limit_on_memory_it_is_ended_at_once(life: str, caplog: pytest.LogCaptureFixture) -> None:
    stage = Stage(appservers={"hard_memory": HARD})
    stage.up()
    if life == "DYING":
        orders.drain(stage.pool, 0)
        stage.plan()
        stage.ready(2)
    assert stage.probed(0, memory=HARD, sessions=3) == []
    started = ["start 2"] if life == "OK" else []
    assert short(stage.probed(0, memory=HARD + 1, sessions=3)) == ["stop 0", *started]
    assert stage.states[0] == "STOPPING"
    assert f"slot 0 is ended with 3 sessions: it has {HARD + 1} bytes in memory" in caplog.messages
    assert short(stage.later(HUNG_GRACE)) == ["kill 0"]


def test_no_hard_limit_is_none() -> None:
    stage = Stage()
    stage.up()
    assert stage.probed(0, memory=1 << 60) == []


# Weights and the standby.


def test_weights_go_by_slot() -> None:
    stage = Stage(servers=3, appservers={"weights": (50, 0)})
    stage.up()
    assert [weight(life, stage.pool.settings.appservers, stage.now) for life in stage.pool.lives] == [50, 0, 100]


def test_a_newcomers_weight_rises_from_a_tenth_to_the_whole() -> None:
    stage = Stage(servers=1, appservers={"weights": (200,), "slow_start": 10.0})
    stage.up()
    stage.later(100)
    stage.exits(0)
    stage.later(3)
    stage.ready(0)
    weights = []
    for _ in range(6):
        weights.append(weight(stage.life(0), stage.pool.settings.appservers, stage.now))
        stage.later(2.5)
    assert weights == [20, 65, 110, 155, 200, 200]


def test_a_little_weight_never_becomes_none() -> None:
    stage = Stage(servers=1, appservers={"weights": (1,), "slow_start": 10.0})
    stage.up()
    assert weight(stage.life(0), stage.pool.settings.appservers, stage.now) == 1


def test_being_back_from_failing_is_no_new_start() -> None:
    stage = Stage(servers=1, appservers={"slow_start": 10.0})
    stage.up()
    stage.later(100)
    stage.unanswered(0, times=3)
    stage.probed(0)
    assert weight(stage.life(0), stage.pool.settings.appservers, stage.now) == 100


@pytest.mark.parametrize(("slow_start", "least"), [(0.0, 100), (10.0, 10)])
def test_a_weight_is_asked_for_as_of_before_it_was_ready(slow_start: float, least: int) -> None:
    # An arbiter that was late learns what is ready after the moment that it thinks as of.
    stage = Stage(servers=1, appservers={"slow_start": slow_start})
    stage.up()
    assert weight(stage.life(0), stage.pool.settings.appservers, stage.now - 0.5) == least


def standby(stage: Stage) -> list[int]:
    return [slot.number for slot in stage.pool if slot.occupant.standby]


def test_the_standby_is_beyond_the_servers_and_has_no_weight() -> None:
    stage = Stage(servers=2, appservers={"standby": 1})
    assert short(stage.plan()) == ["start 0", "start 1", "start 2"]
    stage.ready(0, 1, 2)
    assert [weight(life, stage.pool.settings.appservers, stage.now) for life in stage.pool.lives] == [100, 100, 0]
    assert stage.later(1000) == [], "it is none too many"


def test_the_standby_stays_standby_while_another_is_started_again() -> None:
    stage = Stage(servers=2, appservers={"standby": 1})
    stage.up()
    for slot in (0, 2, 1, 2):
        stage.later(100)
        stage.exits(slot)
        assert standby(stage) == [2]
        stage.ready(slot)
        assert standby(stage) == [2]


def test_a_standby_serves_when_there_is_no_place_for_others() -> None:
    stage = Stage(servers=2, slots=4, appservers={"standby": 1})
    stage.up()
    for slot in (0, 1):
        stage.unanswered(slot, times=3)
    stage.later(100)
    stage.unanswered(0)  # hung: its slot is not free yet, and one is started elsewhere
    assert standby(stage) == [2]
    stage.pool.failed(stage.at(3), "in use", port=True)
    stage.exits(3)
    assert stage.states == {0: "STOPPING", 1: "FAILING", 2: "OK"}
    assert standby(stage) == []
    stage.exits(0)
    assert standby(stage) == [0]


def test_a_release_replaces_the_standby_too() -> None:
    stage = Stage(servers=2, appservers={"standby": 1})
    stage.up()
    old = {slot.identity.generation for slot in stage.pool}
    orders.release(stage.pool, stage.now)
    _, fewest = roll(stage)
    assert fewest == 3
    assert [slot.state for slot in stage.pool if slot.identity.generation in old] == [LifeState.DYING] * 3
    ok = [slot for slot in stage.pool if slot.state is LifeState.OK]
    assert sum(slot.occupant.standby for slot in ok) == 1
    assert len(ok) == 3


# A limit on memory below what the application needs.


def test_hard_memory_below_what_is_needed_from_the_start_is_no_limit_and_said() -> None:
    stage = Stage(servers=1, appservers={"hard_memory": HARD})
    stage.plan()
    stage.pool.ready(stage.at(0), stage.now, HARD + 1)
    assert stage.probed(0, memory=HARD + 2) == []
    assert stage.states == {0: "OK"}
    (problem,) = stage.pool.problems
    assert (
        problem == f"hard_memory = {HARD} is less than the application needs from the start, and no limit for slot 0"
    )
    stage.exits(0)
    stage.pool.ready(stage.at(0), stage.now, HARD)
    stage.plan()
    assert not list(stage.pool.problems)
    assert "stop 0" in short(stage.probed(0, memory=HARD + 1))
