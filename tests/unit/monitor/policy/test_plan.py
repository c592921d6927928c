"""The plan: facts in, actions out, under a fake clock."""

from __future__ import annotations

import itertools
import logging
import random
import re

import msgspec
import pytest
from plan_stage import WALL, Stage, a_life, roll, short

from lbadaptor.contract.address import Identity
from lbadaptor.contract.settings import AppServers
from lbadaptor.log import texts
from monitor.contract.messages import ProbeAnswer
from monitor.contract.patience import MARGIN
from monitor.policy import orders
from monitor.policy.actions import Send, Signal, Start
from monitor.policy.life import Life, Reason, in_words, own_limits
from monitor.policy.pool import FEWEST_STARTS, REPEAT_SIGNAL
from monitor.policy.probes import HUNG_GRACE, UNKILLABLE
from monitor.policy.slot import PASS_OVER, SHORT_LIFE, Backoff, Slot, Slots
from monitor.policy.states import PUBLISHED, LifeState
from monitor.policy.weights import weight

HARD = 1 << 30
"""Bytes."""


# Filling the pool.


def test_the_pool_is_filled_from_the_lowest_slot() -> None:
    stage = Stage(servers=3)
    assert short(stage.plan()) == ["start 0", "start 1", "start 2"]
    assert stage.states == {0: "STARTING", 1: "STARTING", 2: "STARTING"}
    assert stage.ready(0, 1, 2) == []
    assert stage.states == {0: "OK", 1: "OK", 2: "OK"}


def test_nothing_is_published_before_it_is_ready() -> None:
    stage = Stage()
    stage.plan()
    assert not any(slot.state in PUBLISHED for slot in stage.pool)


def test_generations_begin_with_the_clock_and_never_repeat() -> None:
    stage = Stage(servers=3)
    stage.plan()
    assert [life.generation for life in stage.pool.lives] == [WALL, WALL + 1, WALL + 2]


def test_generations_rise_when_the_clock_jumps_back() -> None:
    stage = Stage(servers=1)
    stage.up()
    before = stage.at(0).generation
    stage.wall -= 3_600_000
    stage.exits(0)
    assert stage.at(0).generation == before + 1


def test_generations_go_on_from_the_file_before() -> None:
    stage = Stage(servers=1, last_generation=WALL + 10_000)
    stage.plan()
    assert stage.at(0).generation == WALL + 10_001


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
    stage.pool.empty(stage.at(0), stage.now)
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
    for _ in range(4):
        stage.exits_early(4)
    stage.exits(4, "exited with status 3")
    assert stage.states[4] == "BACKOFF"
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
    for _ in range(6):
        stage.exits_early(2)
    stage.exits(2)
    assert stage.states[2] == "BACKOFF"
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


# Probes.


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


# Facts about those that are gone.


def test_a_fact_about_an_old_generation_is_none() -> None:
    stage = Stage(servers=1)
    stage.up()
    old = stage.at(0)
    stage.later(100)
    stage.exits(0)
    stage.ready(0)
    pool, now = stage.pool, stage.now
    pool.exited(old, "exited", now)
    pool.ready(old, now)
    pool.failed(old, "in use", port=True)
    pool.past_limit(old, "requests")
    pool.empty(old, now)
    pool.probed(old, ProbeAnswer(old.generation, sessions=9, past_limit="requests"), now)
    for _ in range(5):
        pool.unanswered(old, "refused", True, now)
    assert stage.plan() == []
    life, why = stage.life(0), stage.slot(0).why
    assert (life.state, life.sessions, life.leaving, why, life.supervision.failed_probes) == (
        LifeState.OK,
        0,
        set(),
        "",
        0,
    )


def test_a_fact_about_a_slot_that_never_was_is_none() -> None:
    stage = Stage()
    stage.up()
    stage.pool.exited(Identity(99, 1), "exited", stage.now)
    assert stage.plan() == []


def test_a_report_that_its_state_does_not_expect_changes_nothing() -> None:
    stage = Stage(servers=1)
    stage.up()
    stage.pool.ready(stage.at(0), stage.now)
    stage.pool.failed(stage.at(0), "in use", port=True)
    assert stage.plan() == []
    assert stage.states == {0: "OK"}
    stage.later(100)
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


# Whatever happens.


@pytest.mark.parametrize("seed", range(40))
@pytest.mark.parametrize("survive", ["nothing", "leaving"])
def test_whatever_happens_the_plan_holds(seed: int, survive: str) -> None:
    chance = random.Random(seed)
    stage = Stage(
        servers=3,
        slots=chance.choice((5, 6, 12)),
        appservers={"standby": chance.choice((0, 1)), "hard_memory": HARD},
        max_dying=chance.choice((0, 1)),
        drain_limit=chance.choice((0.0, 60.0)),
        survive=survive,
    )
    begun: list[int] = []
    for _ in range(250):
        stage.now += chance.choice((0.0, 0.1, 3.0, 40.0))
        stage.wall += chance.choice((0, 100, -60_000))
        slot = chance.choice(list(stage.pool)) if stage.states else None
        _something_happens(stage, slot, chance)
        actions = stage.plan()
        begun += [action.identity.generation for action in actions if isinstance(action, Start)]
        slots = list(stage.pool)
        assert all(slot.number < stage.settings.slots for slot in slots)
        assert all(isinstance(action, Start) or action.identity.slot < stage.settings.slots for action in actions)
        assert stage.pool.next_wake(stage.now) > 0
        counting = [slot for slot in slots if slot.counts]
        standby = sum(slot.occupant.standby for slot in counting)
        assert standby == min(stage.settings.appservers.standby, max(0, len(counting) - 3)) or any(
            slot.life is not None and slot.life.leaving for slot in counting
        )
        assert bool(stage.pool.waiting) is stage.pool.release.under_way
        assert 0 <= stage.pool.replaced[0] <= stage.pool.replaced[1]
    assert begun == sorted(set(begun))
    stage.pool.stop(stage.now)
    stage.plan()
    for slot in list(stage.pool):
        stage.exits(slot.number)
    assert stage.pool.over


def _something_happens(stage: Stage, slot: Slot | None, chance: random.Random) -> None:
    if slot is None:
        return
    identity, now = slot.identity, stage.now
    answer = ProbeAnswer(
        identity.generation,
        past_limit=chance.choice(("", "", "requests")),
        empty=chance.random() < 0.5,
        sessions=chance.randrange(9),
        memory=HARD + 1 if chance.random() < 0.05 else 0,
    )
    what = chance.randrange(10)
    ok = [other for other in stage.pool if other.state is LifeState.OK]
    if what <= 1 and slot.state is LifeState.STARTING:
        stage.pool.ready(identity, now)
    elif what == 2 and slot.state is not LifeState.BACKOFF:
        stage.pool.failed(identity, "in use", chance.random() < 0.3)
        stage.pool.exited(identity, "exited with status 3", now)
    elif what == 3 and slot.state in PUBLISHED:
        stage.pool.probed(identity, answer, now)
    elif what == 4 and slot.state in PUBLISHED:
        for _ in range(chance.randrange(6)):
            stage.pool.unanswered(identity, "no answer", chance.random() < 0.3, now)
    elif what == 5:
        stage.pool.past_limit(identity, "requests")
    elif what == 6:
        stage.pool.empty(identity, now)
    elif what == 7 and chance.random() < 0.2:
        orders.release(stage.pool, now, end_sessions=chance.random() < 0.3)
    elif what == 8 and slot.state is LifeState.OK:
        orders.drain(stage.pool, slot.number)
    elif what == 9 and (life := slot.life) and life.state is LifeState.DYING and Reason.LIMIT not in life.leaving:
        orders.undrain(stage.pool, slot.number, now)
    orders_alone = what in (5, 7, 8, 9)
    if orders_alone and len(ok) >= stage.settings.appservers.servers:
        stage.plan()
        left = sum(other.state is LifeState.OK for other in stage.pool)
        assert left >= stage.settings.appservers.servers, "an order cost visitors an AppServer"


# What belongs to one life does not outlive it.


def another(value: object) -> object:
    """Another value for a field of a life."""
    if isinstance(value, bool):
        return not value
    if isinstance(value, LifeState):
        return LifeState.DYING
    if isinstance(value, set):
        return set(Reason)
    if isinstance(value, int):
        return value + 7
    return f"{value} more" if isinstance(value, str) else 5.0


def test_no_field_of_a_life_is_left_in_the_next() -> None:
    stage = Stage(servers=1)
    stage.up()
    old = stage.life(0)
    kept = ("slot", "generation", "state", "supervision")
    for part in (old.supervision, old):
        for field in msgspec.structs.fields(part):
            if field.name not in kept:
                setattr(part, field.name, another(getattr(part, field.name)))
    old.supervision.answer = ProbeAnswer(7)
    stage.pool.exited(old.identity, "was ended by SIGKILL", stage.now)
    stage.pool.plan(stage.now, stage.wall)
    new = stage.life(0)
    assert new is not old
    servers, now = stage.settings.appservers, stage.now
    fresh = a_life(0, new.generation, host=servers.host, port=servers.base_port, since=now, born=now)
    fresh.supervision.deadline = now + stage.settings.monitor.start_timeout
    assert new == fresh


def test_a_computing_one_is_given_its_time_in_every_life() -> None:
    stage = Stage(servers=1, failing_limit=5, computing_limit=30)
    stage.up()
    stage.unanswered(0, times=3, cpu=500.0)
    stage.exits(0)  # its last life has computed for long
    stage.ready(0)
    stage.unanswered(0, times=3, cpu=1.0)
    for second in range(20):
        stage.now += 1
        assert stage.unanswered(0, cpu=2.0 + second) == []
    assert stage.states == {0: "FAILING"}


def test_one_whose_processor_time_is_unknown_may_be_computing() -> None:
    stage = Stage(servers=1, failing_limit=5, computing_limit=30)
    stage.up()
    stage.unanswered(0, times=3, cpu=None)
    for _ in range(29):
        stage.now += 1
        assert stage.unanswered(0, cpu=None) == []
    stage.now += 1
    assert "stop 0" in short(stage.unanswered(0, cpu=None))


def test_one_that_cannot_be_killed_keeps_no_other_hung_one() -> None:
    stage = Stage(servers=2, failing_limit=5)
    stage.up()
    stage.unanswered(0, times=3)
    stage.unanswered(1, times=3)
    stage.now += 6
    assert "stop 0" in short(stage.unanswered(0))
    assert "stop 1" not in short(stage.unanswered(1)), "one at a time"
    assert "kill 0" in short(stage.later(HUNG_GRACE))
    assert "stop 1" not in short(stage.unanswered(1))
    stage.later(UNKILLABLE)
    assert "stop 1" in short(stage.unanswered(1))


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


# Why, and when next.


def test_one_that_does_not_serve_says_why_and_when_something_is_done() -> None:
    stage = Stage(servers=1, failing_limit=5)
    stage.up()
    assert stage.pool.next_try(stage.slot(0), stage.now) is None
    stage.unanswered(0, times=3)
    assert stage.slot(0).why == "3 probes failed: no answer within 2 s"
    stage.now += 2
    assert stage.pool.next_try(stage.slot(0), stage.now) == 3
    stage.probed(0)
    assert stage.slot(0).why == ""


# The pieces.


@pytest.mark.parametrize(
    ("backoff", "served", "failures", "wait"),
    [
        (Backoff(), None, 1, 0),
        (Backoff(), SHORT_LIFE - 1, 1, 0),
        (Backoff(), SHORT_LIFE, 0, 0),
        (Backoff(1), None, 2, 1),
        (Backoff(2), 1.0, 3, 2),
        (Backoff(6), None, 7, 20),
        (Backoff(10**6), None, 10**6 + 1, 20),
        (Backoff(6), SHORT_LIFE, 0, 0),
    ],
)
def test_how_long_a_slot_waits_for_its_next_life(
    backoff: Backoff, served: float | None, failures: int, wait: float
) -> None:
    assert backoff.after_life(served, "why", 100.0, 20.0) == Backoff(failures, "why", 100.0 + wait)


def test_reasons_have_the_same_words_and_order_everywhere() -> None:
    assert in_words(set(Reason)) == ["limit", "now", "order", "release"]
    assert in_words(()) == []


def test_a_plan_looks_at_all_appservers_as_often_for_many_as_for_few(monkeypatch: pytest.MonkeyPatch) -> None:
    looks = 0

    class Counted(Slots):
        @property
        def lives(self) -> list[Life]:
            nonlocal looks
            looks += 1
            return super().lives

    monkeypatch.setattr("monitor.policy.pool.Slots", Counted)
    found = []
    for servers in (2, 40):
        stage = Stage(servers=servers, starts_at_once=servers)
        stage.up()
        for life in stage.pool.lives:
            stage.pool.past_limit(life.identity, "age")
        looks = 0
        stage.pool.plan(stage.now, stage.wall)
        found.append(looks)
    assert found[0] == found[1] > 0
