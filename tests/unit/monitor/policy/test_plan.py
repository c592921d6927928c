"""The plan: facts in, deeds out, under a fake clock."""

from __future__ import annotations

import itertools
import logging
import random
import re
from typing import Any

import pytest

from lbadaptor.contract.address import Identity
from lbadaptor.contract.settings import Application, AppServers, Monitor, Settings
from monitor.contract.messages import Vitals
from monitor.policy.plan import FEWEST_STARTS, HUNG_GRACE, MARGIN, PASS_OVER, SHORT_LIFE, UNKILLABLE, Plan
from monitor.policy.record import Deed, Order, Record, Start, Tell, own_limits, weight
from monitor.policy.states import PUBLISHED, Life

WALL = 1_763_805_600_000
HARD = 1 << 30
"""Bytes."""


class Stage:
    """A plan, a clock that stands still unless moved, and what has been done so far."""

    def __init__(
        self,
        servers: int = 2,
        slots: int = 0,
        last_generation: int = 0,
        appservers: dict[str, Any] | None = None,
        **monitor: Any,
    ) -> None:
        self.now = 1000.0
        self.wall = WALL
        self.settings = Settings(
            Application("app:app", "sid"),
            appservers=AppServers(servers=servers, slots=slots, **(appservers or {})),
            monitor=Monitor(**monitor),
        )
        self.plan = Plan(self.settings, last_generation)
        self.last: dict[int, int] = {}

    def think(self) -> list[Deed]:
        """Turns of the arbiter's loop until there is nothing more to do."""
        done: list[Deed] = []
        while deeds := self.plan.think(self.now, self.wall):
            done += deeds
            assert len(done) < 1000, "it never comes to rest"
        self.last |= {deed.identity.slot: deed.identity.generation for deed in done}
        return done

    def later(self, seconds: float) -> list[Deed]:
        self.now += seconds
        self.wall += int(seconds * 1000)
        return self.think()

    def record(self, slot: int) -> Record:
        return next(record for record in self.plan if record.slot == slot)

    def at(self, slot: int) -> Identity:
        return self.record(slot).identity

    def ready(self, *slots: int) -> list[Deed]:
        for slot in slots:
            self.plan.ready(self.at(slot), self.now)
        return self.think()

    def up(self) -> None:
        """Fill the pool."""
        self.think()
        self.ready(*(record.slot for record in self.plan))

    def exits(self, slot: int, how: str = "was ended by SIGKILL") -> list[Deed]:
        self.plan.exited(self.at(slot), how, self.now)
        return self.think()

    def exits_early(self, slot: int) -> None:
        """It dies, and its next life has begun."""
        self.exits(slot, "exited with status 3")
        while self.record(slot).life is Life.BACKOFF:
            wake = self.plan.next_wake(self.now)
            assert wake > 0, "it would be busy all the while"
            self.later(wake)

    def probed(self, slot: int, **vitals: Any) -> list[Deed]:
        self.plan.probed(self.at(slot), Vitals(self.at(slot).generation, **vitals), self.now)
        return self.think()

    def unanswered(self, slot: int, times: int = 1, refused: bool = False, cpu: float | None = 0.0) -> list[Deed]:
        for _ in range(times):
            self.plan.unanswered(self.at(slot), "no answer within 2 s", refused, self.now, cpu)
        return self.think()

    def empty(self, slot: int) -> list[Deed]:
        self.plan.empty(self.at(slot), self.now)
        return self.think()

    @property
    def lives(self) -> dict[int, str]:
        return {record.slot: record.life.value for record in self.plan}


def short(deeds: list[Deed]) -> list[str]:
    """`start 0`, `drain 1`: deeds without generations."""
    return [f"{'start' if isinstance(deed, Start) else deed.order.value} {deed.identity.slot}" for deed in deeds]


# Filling the pool.


def test_the_pool_is_filled_from_the_lowest_slot() -> None:
    stage = Stage(servers=3)
    assert short(stage.think()) == ["start 0", "start 1", "start 2"]
    assert stage.lives == {0: "STARTING", 1: "STARTING", 2: "STARTING"}
    assert stage.ready(0, 1, 2) == []
    assert stage.lives == {0: "OK", 1: "OK", 2: "OK"}


def test_nothing_is_published_before_it_is_ready() -> None:
    stage = Stage()
    stage.think()
    assert not any(record.life in PUBLISHED for record in stage.plan)


def test_generations_begin_with_the_clock_and_never_repeat() -> None:
    stage = Stage(servers=3)
    stage.think()
    assert [record.generation for record in stage.plan] == [WALL, WALL + 1, WALL + 2]


def test_generations_rise_when_the_clock_jumps_back() -> None:
    stage = Stage(servers=1)
    stage.up()
    before = stage.at(0).generation
    stage.wall -= 3_600_000
    stage.exits(0)
    assert stage.at(0).generation == before + 1


def test_generations_go_on_from_the_file_before() -> None:
    stage = Stage(servers=1, last_generation=WALL + 10_000)
    stage.think()
    assert stage.at(0).generation == WALL + 10_001


# Exits.


def test_who_dies_is_replaced_at_once_in_its_slot() -> None:
    stage = Stage()
    stage.up()
    stage.later(100)
    assert short(stage.exits(1)) == ["start 1"]
    assert stage.lives == {0: "OK", 1: "STARTING"}
    assert stage.record(1).sessions == 0


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
    stage.think()
    waits = []
    for _ in range(9):
        begun = stage.now
        stage.exits_early(0)
        waits.append(stage.now - begun)
    assert waits == [0, 1, 2, 4, 8, 10, 10, 10, 10]


def test_in_hundreds_of_short_lives_the_wait_stays_bounded() -> None:
    stage = Stage(servers=1)
    stage.think()
    for _ in range(500):
        stage.exits_early(0)
        assert stage.record(0).life is Life.STARTING
        assert len(stage.lives) == 1


def test_a_life_of_some_length_wipes_the_slate() -> None:
    stage = Stage(servers=1)
    stage.think()
    for _ in range(4):
        stage.exits_early(0)
    stage.ready(0)
    stage.later(SHORT_LIFE)
    assert short(stage.exits(0)) == ["start 0"]
    assert short(stage.exits(0)) == ["start 0"]


def test_why_it_waits_is_kept_until_it_is_up() -> None:
    stage = Stage(servers=1)
    stage.think()
    stage.plan.failed(stage.at(0), "app:app: ModuleNotFoundError", port=False)
    stage.exits(0, "exited with status 3")
    assert stage.record(0).why == "app:app: ModuleNotFoundError"
    stage.ready(0)
    assert stage.record(0).why == ""


@pytest.mark.parametrize("how", ["exited with status 7", "was ended by SIGSEGV"])
def test_a_start_that_ends_without_a_word_is_told_as_such(how: str) -> None:
    stage = Stage(servers=1)
    stage.think()
    stage.exits(0, how)
    assert stage.record(0).why == f"{how} while it started, and did not say why; the log has what it printed"
    stage.ready(0)
    stage.exits(0, how)
    assert stage.record(0).why == how


def test_a_dying_one_that_exits_is_gone() -> None:
    stage = Stage()
    stage.up()
    stage.plan.drain(0)
    stage.think()
    stage.ready(2)
    assert stage.lives == {0: "DYING", 1: "OK", 2: "OK"}
    assert stage.exits(0) == []
    assert stage.lives == {1: "OK", 2: "OK"}


def test_one_that_does_not_get_ready_in_time_is_killed_and_started_anew() -> None:
    stage = Stage(servers=1, start_timeout=20)
    stage.think()
    assert stage.plan.next_wake(stage.now) == 20
    assert stage.later(19.9) == []
    assert short(stage.later(0.1)) == ["kill 0"]
    assert stage.later(100) == [], "once is enough"
    assert short(stage.exits(0)) == ["start 0"]


def test_being_ready_ends_the_start_timeout() -> None:
    stage = Stage(servers=1, start_timeout=20)
    stage.up()
    assert stage.plan.next_wake(stage.now) == float("inf")
    assert stage.later(1000) == []


# Ports that are taken.


def test_a_slot_whose_port_is_taken_is_passed_over_and_said(caplog: pytest.LogCaptureFixture) -> None:
    stage = Stage()
    stage.think()
    stage.plan.failed(stage.at(0), "127.0.0.1:9000: Address already in use", port=True)
    assert short(stage.exits(0, "exited with status 3")) == ["start 2"]
    assert stage.lives == {1: "STARTING", 2: "STARTING"}
    assert "slot 0 is passed over for 60 s: 127.0.0.1:9000: Address already in use" in caplog.messages


def test_a_slot_that_was_passed_over_is_used_again() -> None:
    stage = Stage()
    stage.think()
    stage.plan.failed(stage.at(0), "in use", port=True)
    stage.exits(0)
    stage.ready(1, 2)
    stage.later(PASS_OVER - 1)
    stage.plan.drain(1)
    assert short(stage.think()) == ["start 3"]
    stage.later(1)
    stage.plan.drain(2)
    stage.ready(3)
    stage.think()
    assert stage.lives[0] == "STARTING"


def test_when_every_slot_is_passed_over_it_waits_and_tries_again(caplog: pytest.LogCaptureFixture) -> None:
    stage = Stage(servers=1, slots=2)
    stage.think()
    for slot in (0, 1):
        stage.plan.failed(stage.at(slot), "in use", port=True)
        stage.exits(slot)
    assert stage.lives == {}
    for _ in range(10):
        stage.think()
    assert caplog.messages.count("no slot is free: slots = 2") == 1
    wake = stage.plan.next_wake(stage.now)
    assert 0 < wake <= PASS_OVER
    assert short(stage.later(wake)) == ["start 0"]


def test_a_taken_port_does_not_outlive_an_order_to_stop() -> None:
    stage = Stage(servers=1)
    stage.think()
    stage.plan.failed(stage.at(0), "in use", port=True)
    stage.plan.stop(stage.now)
    stage.exits(0)
    assert stage.plan.over


def test_passed_over_slots_keep_nobody_busy_while_all_is_stopped() -> None:
    stage = Stage()
    stage.think()
    stage.plan.failed(stage.at(0), "in use", port=True)
    stage.exits(0)
    stage.ready(1, 2)
    stage.later(PASS_OVER - 1)
    stage.plan.stop(stage.now)
    stage.later(2)
    assert stage.plan.next_wake(stage.now) > 10


# Past a limit, drain, empty.


def test_past_its_limit_first_the_replacement_then_the_drain_then_the_end() -> None:
    stage = Stage()
    stage.up()
    stage.plan.past_limit(stage.at(0), "requests")
    assert short(stage.think()) == ["start 2"]
    assert stage.lives == {0: "OK", 1: "OK", 2: "STARTING"}
    assert short(stage.ready(2)) == ["drain 0"]
    assert stage.lives == {0: "DYING", 1: "OK", 2: "OK"}
    assert short(stage.empty(0)) == ["stop 0"]
    assert stage.lives == {0: "STOPPING", 1: "OK", 2: "OK"}
    assert stage.exits(0, "exited") == []
    assert stage.lives == {1: "OK", 2: "OK"}


def test_it_has_left_address_text_before_it_is_ordered_to_stop() -> None:
    stage = Stage()
    stage.up()
    stage.plan.drain(0)
    stage.think()
    stage.ready(2)
    stage.plan.empty(stage.at(0), stage.now)
    # The file is written between the thinking and the deeds.
    assert stage.record(0).life not in PUBLISHED
    assert short(stage.plan.think(stage.now, stage.wall)) == ["stop 0"]


def test_a_limit_is_heard_with_a_probe_too() -> None:
    stage = Stage()
    stage.up()
    assert short(stage.probed(0, past_limit="requests")) == ["start 2"]
    assert stage.probed(0, past_limit="requests") == []
    assert stage.record(0).leaving == {"limit"}


def test_being_empty_is_heard_with_a_probe_too() -> None:
    stage = Stage()
    stage.up()
    stage.plan.drain(0)
    stage.think()
    stage.ready(2)
    assert short(stage.probed(0, empty=True)) == ["stop 0"]


def test_being_empty_means_nothing_to_one_that_is_not_dying() -> None:
    stage = Stage()
    stage.up()
    assert stage.empty(0) == []
    assert stage.probed(0, empty=True) == []
    assert stage.lives == {0: "OK", 1: "OK"}


def test_limits_are_replaced_one_at_a_time() -> None:
    stage = Stage(servers=3)
    stage.up()
    for slot in (0, 1, 2):
        stage.plan.past_limit(stage.at(slot), "requests")
    assert short(stage.think()) == ["start 3"]
    assert len(short(stage.ready(3))) == 2  # one is drained, the next replacement starts
    assert sorted(stage.lives.values()) == ["DYING", "OK", "OK", "OK", "STARTING"]


def test_no_more_than_the_cap_are_drained_for_a_limit() -> None:
    stage = Stage(servers=3, max_dying=1)
    stage.up()
    for slot in (0, 1):
        stage.plan.past_limit(stage.at(slot), "requests")
    stage.probed(1, sessions=5)
    assert stage.lives[3] == "STARTING"
    assert short(stage.ready(3)) == ["drain 0"]
    assert stage.later(100) == []
    assert stage.lives == {0: "DYING", 1: "OK", 2: "OK", 3: "OK"}
    assert short(stage.empty(0)) == ["stop 0", "start 4"]
    assert short(stage.ready(4)) == ["drain 1"]


def test_an_order_goes_beyond_the_cap_for_limits() -> None:
    stage = Stage(servers=2, max_dying=1)
    stage.up()
    for slot in (0, 1):
        stage.plan.past_limit(stage.at(slot), "requests")
    stage.think()
    stage.probed(1, sessions=5)
    assert short(stage.ready(2)) == ["drain 0"]
    assert stage.later(1) == []
    assert "will be drained" in stage.plan.drain(1)
    assert short(stage.think()) == ["start 3"]
    assert short(stage.ready(3)) == ["drain 1"]


@pytest.mark.parametrize(("said", "taken"), [(-1, 0), (0, 0), (41, 41), (10**30, 10**9)])
def test_an_application_may_count_as_it_likes(said: int, taken: int) -> None:
    stage = Stage(servers=1)
    stage.up()
    stage.probed(0, sessions=said)
    assert stage.record(0).sessions == taken


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
    stage.plan.drain(0)
    stage.think()
    stage.ready(2)
    stage.probed(0, sessions=7)
    assert stage.plan.next_wake(stage.now) == 60
    assert stage.later(59.9) == []
    assert short(stage.later(0.1)) == ["stop 0"]
    assert stage.lives == {0: "STOPPING", 1: "OK", 2: "OK"}
    assert "slot 0 is ended with 7 sessions: it has been DYING for 60 s" in caplog.messages


def test_a_drain_may_take_for_ever_without_a_limit() -> None:
    stage = Stage()
    stage.up()
    stage.plan.drain(0)
    stage.think()
    stage.ready(2)
    assert stage.later(1e7) == []


def test_a_drain_that_was_taken_back_begins_anew() -> None:
    stage = Stage(drain_limit=60)
    stage.up()
    stage.plan.drain(0)
    stage.think()
    stage.ready(2)
    stage.later(50)
    stage.probed(1, sessions=9)
    stage.plan.undrain(0, stage.now)
    assert short(stage.think()) == ["undrain 0", "drain 2"]
    stage.later(50)
    assert stage.lives[0] == "OK"
    stage.plan.drain(0)
    stage.think()
    stage.ready(3)
    assert "stop 0" not in short(stage.later(50))
    assert "stop 0" in short(stage.later(10))


def test_the_limit_on_a_drain_goes_on_while_it_is_failing() -> None:
    stage = Stage(drain_limit=60, failing_limit=1000)
    stage.up()
    stage.plan.drain(0)
    stage.think()
    stage.ready(2)
    stage.later(50)
    stage.unanswered(0, times=3)
    assert short(stage.later(10)) == ["stop 0"]


def test_an_adopted_one_that_is_not_warm_is_not_ready() -> None:
    stage = Stage(servers=1)
    stage.plan.adopt(Record(0, WALL, since=0.0, born=0.0), stage.now)
    stage.probed(0, ready=False)
    assert stage.lives == {0: "STARTING"}
    stage.probed(0, ready=True)
    assert stage.lives == {0: "OK"}


def test_an_adopted_drain_keeps_its_age() -> None:
    stage = Stage(drain_limit=60)
    record = Record(5, WALL, since=stage.now - 50, born=0.0, life=Life.DYING)
    stage.plan.adopt(record, stage.now)
    assert "stop 5" not in short(stage.think())
    assert short(stage.later(10)) == ["stop 5"]


@pytest.mark.parametrize("life", ["OK", "DYING"])
def test_beyond_the_hard_limit_on_memory_it_is_ended_at_once(life: str, caplog: pytest.LogCaptureFixture) -> None:
    stage = Stage(appservers={"hard_memory": HARD})
    stage.up()
    if life == "DYING":
        stage.plan.drain(0)
        stage.think()
        stage.ready(2)
    assert stage.probed(0, memory=HARD, sessions=3) == []
    started = ["start 2"] if life == "OK" else []
    assert short(stage.probed(0, memory=HARD + 1, sessions=3)) == ["stop 0", *started]
    assert stage.lives[0] == "STOPPING"
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
    assert [weight(record, stage.plan.settings.appservers, stage.now) for record in stage.plan] == [50, 0, 100]


def test_a_newcomers_weight_rises_from_a_tenth_to_the_whole() -> None:
    stage = Stage(servers=1, appservers={"weights": (200,), "slow_start": 10.0})
    stage.up()
    stage.later(100)
    stage.exits(0)
    stage.later(3)
    stage.ready(0)
    weights = []
    for _ in range(6):
        weights.append(weight(stage.record(0), stage.plan.settings.appservers, stage.now))
        stage.later(2.5)
    assert weights == [20, 65, 110, 155, 200, 200]


def test_a_little_weight_never_becomes_none() -> None:
    stage = Stage(servers=1, appservers={"weights": (1,), "slow_start": 10.0})
    stage.up()
    assert weight(stage.record(0), stage.plan.settings.appservers, stage.now) == 1


def test_being_back_from_failing_is_no_new_start() -> None:
    stage = Stage(servers=1, appservers={"slow_start": 10.0})
    stage.up()
    stage.later(100)
    stage.unanswered(0, times=3)
    stage.probed(0)
    assert weight(stage.record(0), stage.plan.settings.appservers, stage.now) == 100


@pytest.mark.parametrize(("slow_start", "least"), [(0.0, 100), (10.0, 10)])
def test_a_weight_is_asked_for_as_of_before_it_was_ready(slow_start: float, least: int) -> None:
    # An arbiter that was late hears what is ready after the moment that it thinks as of.
    stage = Stage(servers=1, appservers={"slow_start": slow_start})
    stage.up()
    assert weight(stage.record(0), stage.plan.settings.appservers, stage.now - 0.5) == least


def standby(stage: Stage) -> list[int]:
    return [record.slot for record in stage.plan if record.standby]


def test_the_standby_is_beyond_the_servers_and_has_no_weight() -> None:
    stage = Stage(servers=2, appservers={"standby": 1})
    assert short(stage.think()) == ["start 0", "start 1", "start 2"]
    stage.ready(0, 1, 2)
    assert [weight(record, stage.plan.settings.appservers, stage.now) for record in stage.plan] == [100, 100, 0]
    assert stage.later(1000) == [], "it is none too many"


def test_the_standby_stays_what_it_is_while_another_is_reborn() -> None:
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
    stage.plan.failed(stage.at(3), "in use", port=True)
    stage.exits(3)
    assert stage.lives == {0: "STOPPING", 1: "FAILING", 2: "OK"}
    assert standby(stage) == []
    stage.exits(0)
    assert standby(stage) == [0]


def test_a_release_replaces_the_standby_too() -> None:
    stage = Stage(servers=2, appservers={"standby": 1})
    stage.up()
    old = {record.generation for record in stage.plan}
    stage.plan.release(stage.now)
    _, fewest = roll(stage)
    assert fewest == 3
    assert [record.life for record in stage.plan if record.generation in old] == [Life.DYING] * 3
    ok = [record for record in stage.plan if record.life is Life.OK]
    assert sum(record.standby for record in ok) == 1
    assert len(ok) == 3


# Orders.


def test_drain_by_order_replaces_first() -> None:
    stage = Stage()
    stage.up()
    assert stage.plan.drain(1) == "slot 1 will be drained when its replacement is up"
    assert short(stage.think()) == ["start 2"]
    assert stage.plan.drain(1) == "slot 1 is on its way out already"
    assert short(stage.ready(2)) == ["drain 1"]
    assert stage.plan.drain(1) == "slot 1 is on its way out already"


@pytest.mark.parametrize("order", ["drain", "undrain"])
def test_an_order_for_nobody_names_those_that_are_there(order: str) -> None:
    stage = Stage()
    stage.up()
    give = {"drain": lambda: stage.plan.drain(7), "undrain": lambda: stage.plan.undrain(7, stage.now)}[order]
    with pytest.raises(ValueError, match=re.escape("there is no AppServer in slot 7; the slots in use are: 0, 1")):
        give()


def test_only_one_that_is_ok_can_be_drained() -> None:
    stage = Stage()
    stage.think()
    with pytest.raises(ValueError, match="slot 0 is STARTING: only one that is OK can be drained"):
        stage.plan.drain(0)


def test_undrain_before_the_replacement_is_up_takes_the_order_back() -> None:
    stage = Stage()
    stage.up()
    stage.plan.drain(0)
    stage.think()
    assert stage.plan.undrain(0, stage.now) == "slot 0 is OK again"
    assert stage.think() == []
    # The replacement makes one too many: not the undrained one leaves.
    assert short(stage.ready(2)) == ["drain 2"]


def test_undrain_of_a_dying_one_and_the_surplus_with_the_fewest_sessions_leaves() -> None:
    stage = Stage(servers=3)
    stage.up()
    stage.plan.drain(0)
    stage.think()
    stage.ready(3)
    for slot, sessions in ((0, 0), (1, 9), (2, 3), (3, 5)):
        stage.probed(slot, sessions=sessions)
    stage.plan.undrain(0, stage.now)
    assert short(stage.think()) == ["undrain 0", "drain 2"]
    assert stage.lives == {0: "OK", 1: "OK", 2: "DYING", 3: "OK"}


def test_one_past_its_limit_is_not_undrained() -> None:
    stage = Stage()
    stage.up()
    stage.plan.past_limit(stage.at(0), "requests")
    stage.think()
    for _ in range(2):
        with pytest.raises(ValueError, match="slot 0 is past its limit and is not undrained"):
            stage.plan.undrain(0, stage.now)
        stage.ready(2)


def test_one_that_passed_its_limit_while_dying_is_not_undrained() -> None:
    stage = Stage()
    stage.up()
    stage.plan.drain(0)
    stage.think()
    stage.ready(2)
    stage.plan.past_limit(stage.at(0), "requests")
    with pytest.raises(ValueError, match="past its limit"):
        stage.plan.undrain(0, stage.now)


def test_one_that_is_not_being_drained_cannot_be_undrained() -> None:
    stage = Stage()
    stage.up()
    with pytest.raises(ValueError, match="slot 0 is OK and not being drained"):
        stage.plan.undrain(0, stage.now)


def test_a_drain_without_a_free_slot_waits_and_nobody_is_ended_for_it(caplog: pytest.LogCaptureFixture) -> None:
    stage = Stage(servers=1, slots=2)
    stage.up()
    stage.plan.drain(0)
    stage.think()
    stage.ready(1)
    stage.plan.drain(1)
    assert stage.think() == []
    assert stage.later(100) == []
    assert stage.lives == {0: "DYING", 1: "OK"}
    assert "no slot is free: slots = 2" in caplog.messages
    stage.empty(0)
    assert short(stage.exits(0)) == ["start 0"]


# Releases.


def roll(stage: Stage) -> tuple[list[str], int]:
    """Run a release to its end: the deeds, and the fewest that were OK at any time."""
    deeds, fewest = [], 99
    for _ in range(200):
        done = short(stage.think())
        for record in list(stage.plan):
            fewest = min(fewest, sum(record.life is Life.OK for record in stage.plan))
            if record.life is Life.STARTING:
                done += short(stage.ready(record.slot))
            elif record.life is Life.STOPPING:
                stage.plan.exited(record.identity, "exited", stage.now)
        deeds += done
        if not done and not stage.plan.rolling:
            return deeds, fewest
    raise AssertionError("the release does not end")


@pytest.mark.parametrize("at_once", [1, 2])
def test_a_release_replaces_everybody_a_few_at_a_time(at_once: int) -> None:
    stage = Stage(servers=4, replace_at_once=at_once)
    stage.up()
    old = {record.identity for record in stage.plan}
    assert stage.plan.release(stage.now) == f"4 AppServers are replaced, {at_once} at a time"
    assert short(stage.think()) == [f"start {4 + number}" for number in range(at_once)]
    deeds, fewest = roll(stage)
    assert fewest == 4
    assert not stage.plan.rolling
    ok = {record.identity for record in stage.plan if record.life is Life.OK}
    assert len(ok) == 4
    assert not ok & old
    assert {record.identity for record in stage.plan if record.life is Life.DYING} == old
    assert sorted(deed for deed in deeds if "drain" in deed) == ["drain 0", "drain 1", "drain 2", "drain 3"]


def test_a_release_that_does_not_start_stops_and_the_old_ones_serve_on() -> None:
    stage = Stage(servers=3)
    stage.up()
    stage.later(100)
    stage.plan.release(stage.now)
    stage.think()
    for _ in range(20):
        stage.exits_early(3)
        assert stage.plan.rolling
        assert stage.lives == {0: "OK", 1: "OK", 2: "OK", 3: "STARTING"}
    assert short(stage.ready(3)) == ["drain 2", "start 4"]  # mended: it goes on
    roll(stage)
    assert not stage.plan.rolling


def test_a_new_release_does_not_wait_for_the_one_that_did_not_start() -> None:
    stage = Stage(servers=2)
    stage.up()
    stage.plan.release(stage.now)
    stage.think()
    for _ in range(6):
        stage.exits_early(2)
    stage.exits(2)
    assert stage.lives[2] == "BACKOFF"
    stage.plan.release(stage.now)
    assert short(stage.think()) == ["start 2"]


def test_a_release_goes_beyond_the_cap_on_dying_ones() -> None:
    stage = Stage(servers=3, slots=12, max_dying=1)
    stage.up()
    stage.plan.release(stage.now)
    roll(stage)
    assert sorted(stage.lives.values()) == ["DYING"] * 3 + ["OK"] * 3


def test_a_release_without_free_slots_ends_the_dying_one_with_the_fewest_sessions(
    caplog: pytest.LogCaptureFixture,
) -> None:
    stage = Stage(servers=2, slots=5)
    stage.up()
    stage.plan.release(stage.now)
    roll(stage)
    for slot, sessions in ((0, 7), (1, 3)):
        assert stage.lives[slot] == "DYING"
        stage.probed(slot, sessions=sessions)
    stage.plan.release(stage.now)
    assert short(stage.think()) == ["start 4"]
    stage.probed(2, sessions=5)
    stage.probed(3, sessions=6)
    # Four are in use with two DYING; a slot for the second replacement is missing.
    assert short(stage.ready(4)) == ["drain 2", "stop 1"]
    assert any("slot 1 is ended with 3 sessions" in message for message in caplog.messages)
    assert stage.lives[0] == "DYING"


def test_only_as_many_are_ended_as_slots_are_missing() -> None:
    stage = Stage(servers=2, slots=4)
    stage.up()
    stage.plan.release(stage.now)
    roll(stage)
    assert stage.lives == {0: "DYING", 1: "DYING", 2: "OK", 3: "OK"}
    stage.probed(0, sessions=7)
    stage.probed(1, sessions=3)
    stage.plan.release(stage.now)
    assert short(stage.think()) == ["stop 1"]
    for _ in range(5):
        assert stage.later(0.1) == [], "its slot is not free yet"
    assert stage.lives[0] == "DYING"
    assert short(stage.exits(1, "exited")) == ["start 1"]


def test_whom_a_release_had_to_end_is_remembered_until_the_next() -> None:
    stage = Stage(servers=2, slots=4)
    stage.up()
    stage.plan.release(stage.now)
    roll(stage)
    assert stage.plan.ended == []
    stage.probed(0, sessions=7)
    stage.probed(1, sessions=3)
    stage.plan.release(stage.now)
    stage.think()
    assert stage.plan.ended == ["slot 1 with 3 sessions: no slot is free for the release"]
    assert stage.plan.waiting == "slot 1 is STOPPING"
    roll(stage)
    assert len(stage.plan.ended) == 2
    stage.plan.release(stage.now)
    assert stage.plan.ended == []


def test_a_release_says_what_it_is_waiting_for_and_how_far_it_is() -> None:
    stage = Stage(servers=2)
    stage.up()
    assert stage.plan.waiting == ""
    stage.plan.release(stage.now)
    assert stage.plan.waiting == "the next one starts"
    stage.think()
    assert (stage.plan.waiting, stage.plan.replaced) == ("slot 2 is STARTING", (0, 2))
    stage.ready(2)
    assert (stage.plan.waiting, stage.plan.replaced) == ("slot 3 is STARTING", (1, 2))
    stage.unanswered(0, times=3)
    assert stage.lives[0] == "FAILING"
    stage.ready(3)
    assert (stage.plan.waiting, stage.plan.replaced) == ("slot 0 is FAILING", (1, 2))
    stage.probed(0)
    assert (stage.plan.waiting, stage.plan.replaced) == ("", (2, 2))


def test_a_release_that_does_not_start_says_why(caplog: pytest.LogCaptureFixture) -> None:
    stage = Stage(servers=3)
    stage.up()
    stage.plan.release(stage.now)
    stage.think()
    for _ in range(2):
        assert stage.plan.waiting.endswith("slot 3 is STARTING") or stage.plan.waiting.startswith("failed")
        stage.plan.failed(stage.at(3), "app:app: ModuleNotFoundError: No module named 'app'", port=False)
        stage.exits_early(3)
        assert stage.plan.waiting == "failed: slot 3: app:app: ModuleNotFoundError: No module named 'app'"
        assert stage.plan.replaced == (0, 3)
    assert any(message.startswith("release: failed: slot 3: app:app: Mod") for message in caplog.messages)
    stage.ready(3)
    assert stage.plan.replaced == (1, 3)
    assert "failed" not in stage.plan.waiting


def test_a_release_where_nobody_serves_is_not_over_before_somebody_does(caplog: pytest.LogCaptureFixture) -> None:
    stage = Stage(servers=2)
    stage.think()
    for _ in range(6):
        for slot in (0, 1):
            if stage.record(slot).life is Life.STARTING:
                stage.exits(slot, "exited with status 3")
        stage.later(1)
    assert stage.lives == {0: "BACKOFF", 1: "BACKOFF"}
    stage.plan.release(stage.now)
    assert "failed" not in stage.plan.waiting, "they were of the release before"
    assert short(stage.think()) == ["start 0", "start 1"]
    assert (stage.plan.rolling, stage.plan.replaced) == (True, (0, 2))
    stage.plan.failed(stage.at(0), "app:app: ValueError: x", port=False)
    stage.exits_early(0)
    assert stage.plan.waiting == "failed: slot 0: app:app: ValueError: x"
    assert "release: failed: slot 0: app:app: ValueError: x; nobody serves" in caplog.messages
    stage.ready(0)
    assert (stage.plan.rolling, stage.plan.replaced) == (True, (1, 2))
    stage.ready(1)
    assert (stage.plan.rolling, stage.plan.replaced, stage.plan.waiting) == (False, (2, 2), "")


def test_a_start_of_the_release_before_says_nothing_of_this_one(caplog: pytest.LogCaptureFixture) -> None:
    stage = Stage(servers=1)
    stage.think()
    for _ in range(6):
        stage.exits_early(0)
    stage.plan.release(stage.now)
    stage.plan.failed(stage.at(0), "app:app: ValueError: x", port=False)
    assert short(stage.exits(0, "exited with status 3")) == ["start 0"], "without a wait"
    assert stage.plan.waiting == "slot 0 is STARTING"
    assert not any("release: failed" in message for message in caplog.messages)
    assert stage.plan.replaced == (0, 1)
    stage.ready(0)
    assert (stage.plan.rolling, stage.plan.replaced) == (False, (1, 1))


def test_whoever_dies_during_a_release_is_waited_for() -> None:
    stage = Stage(servers=1)
    stage.up()
    stage.later(100)
    stage.plan.release(stage.now)
    stage.think()
    stage.exits(0)
    assert (stage.plan.rolling, stage.plan.replaced) == (True, (0, 1))
    stage.ready(1)
    assert (stage.plan.rolling, stage.plan.replaced) == (False, (1, 1))


def test_a_release_that_ends_sessions_stops_each_as_soon_as_it_is_replaced(caplog: pytest.LogCaptureFixture) -> None:
    stage = Stage(servers=2)
    stage.up()
    stage.plan.drain(0)
    stage.think()
    stage.ready(2)
    assert stage.lives == {0: "DYING", 1: "OK", 2: "OK"}
    for slot in (0, 1, 2):
        stage.probed(slot, sessions=slot + 1)
    stage.plan.release(stage.now, end_sessions=True)
    assert short(stage.think()) == ["start 3"]
    assert short(stage.ready(3)) == ["stop 1", "start 4"]
    assert stage.lives[0] == "DYING"
    # The last one is replaced: whoever was DYING before the release goes too.
    assert short(stage.ready(4)) == ["stop 2", "stop 0"]
    assert not stage.plan.rolling
    assert stage.plan.ended == [
        f"slot {slot} with {sessions} sessions: a release that ends sessions"
        for slot, sessions in ((1, 2), (2, 3), (0, 1))
    ]
    assert "slot 2 is ended with 3 sessions: a release that ends sessions" in caplog.messages
    stage.later(stage.settings.monitor.stop_grace)
    assert stage.lives[1] == "STOPPING", "what is in flight may finish"


def test_a_release_that_ends_sessions_ends_none_while_it_does_not_start() -> None:
    stage = Stage(servers=2)
    stage.up()
    stage.plan.release(stage.now, end_sessions=True)
    stage.think()
    for _ in range(5):
        stage.exits_early(2)
    assert (stage.lives[0], stage.lives[1]) == ("OK", "OK")


def test_an_undrained_one_is_not_ended_by_the_release_before() -> None:
    stage = Stage(servers=2)
    stage.up()
    stage.plan.release(stage.now, end_sessions=True)
    stage.think()
    stage.plan.undrain(0, stage.now)
    assert short(stage.ready(2)) == ["stop 1"]
    stage.plan.drain(0)
    stage.think()
    assert short(stage.ready(3)) == ["drain 0"]


def test_a_release_under_way_goes_on_when_its_appservers_are_adopted() -> None:
    stage = Stage(servers=1)
    stage.plan.adopt(Record(0, WALL, since=0.0, born=0.0, life=Life.OK, leaving={"release", "now"}), stage.now)
    assert (stage.plan.rolling, stage.plan.replaced) == (True, (0, 1))
    assert short(stage.think()) == ["undrain 0", "start 1"]
    assert short(stage.ready(1)) == ["stop 0"]


def test_a_failing_one_is_replaced_by_the_release_when_it_is_back() -> None:
    stage = Stage(servers=1)
    stage.up()
    stage.unanswered(0, times=3)
    stage.plan.release(stage.now)
    assert stage.think() == []
    assert stage.plan.rolling
    assert short(stage.probed(0)) == ["start 1"]
    assert short(stage.ready(1)) == ["drain 0"]


# Probes.


def test_so_many_failed_probes_in_a_row_make_it_failing() -> None:
    stage = Stage(fall=3)
    stage.up()
    stage.unanswered(0, times=2)
    stage.probed(0)
    stage.unanswered(0, times=2)
    assert stage.lives[0] == "OK"
    stage.unanswered(0)
    assert stage.lives[0] == "FAILING"
    assert stage.probed(0) == []
    assert stage.lives[0] == "OK"


def test_a_failing_one_that_was_dying_is_dying_again() -> None:
    stage = Stage()
    stage.up()
    stage.plan.drain(0)
    stage.think()
    stage.ready(2)
    stage.unanswered(0, times=3)
    assert stage.lives[0] == "FAILING"
    stage.probed(0, sessions=1)
    assert stage.lives[0] == "DYING"


def test_a_failing_one_that_is_back_and_empty_is_stopped() -> None:
    stage = Stage()
    stage.up()
    stage.plan.drain(0)
    stage.think()
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
    assert stage.lives == {0: "STOPPING", 1: "OK", 2: "STARTING"}
    assert stage.plan.next_wake(stage.now) == HUNG_GRACE
    assert short(stage.later(HUNG_GRACE)) == ["kill 0"]
    assert stage.exits(0) == []


def test_a_failing_one_whose_port_refuses_is_not_waited_for() -> None:
    stage = Stage(failing_limit=5)
    stage.up()
    stage.unanswered(0, times=3, refused=True)
    assert stage.lives[0] == "FAILING"
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


def test_facts_that_come_all_at_once_end_nobody() -> None:
    # What a watcher that slept for long says when it wakes.
    stage = Stage()
    stage.up()
    stage.later(600)
    stage.unanswered(0, times=100)
    assert stage.lives[0] == "FAILING"


def test_time_for_which_the_monitor_stood_still_counts_against_nobody() -> None:
    stage = Stage(servers=2, start_timeout=10.0, failing_limit=10.0)
    stage.up()
    stage.unanswered(0, times=3)
    stage.exits(1)
    assert stage.lives == {0: "FAILING", 1: "STARTING"}
    stage.plan.stood_still(100.0)
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
    assert stage.lives[0] == "OK"


# Facts about those that are gone.


def test_a_fact_about_an_old_generation_is_none() -> None:
    stage = Stage(servers=1)
    stage.up()
    old = stage.at(0)
    stage.later(100)
    stage.exits(0)
    stage.ready(0)
    plan, now = stage.plan, stage.now
    plan.exited(old, "exited", now)
    plan.ready(old, now)
    plan.failed(old, "in use", port=True)
    plan.past_limit(old, "requests")
    plan.empty(old, now)
    plan.probed(old, Vitals(old.generation, sessions=9, past_limit="requests"), now)
    for _ in range(5):
        plan.unanswered(old, "refused", True, now)
    assert stage.think() == []
    record = stage.record(0)
    assert (record.life, record.sessions, record.leaving, record.why, record.failed_probes) == (
        Life.OK,
        0,
        set(),
        "",
        0,
    )


def test_a_fact_about_a_slot_that_never_was_is_none() -> None:
    stage = Stage()
    stage.up()
    stage.plan.exited(Identity(99, 1), "exited", stage.now)
    assert stage.think() == []


def test_a_report_that_its_state_does_not_expect_changes_nothing() -> None:
    stage = Stage(servers=1)
    stage.up()
    stage.plan.ready(stage.at(0), stage.now)
    stage.plan.failed(stage.at(0), "in use", port=True)
    assert stage.think() == []
    assert stage.lives == {0: "OK"}
    stage.later(100)
    assert short(stage.exits(0)) == ["start 0"]


# Stopping everything.


def test_stop_ends_everybody_in_every_state() -> None:
    stage = Stage(servers=5, slots=20, stop_grace=30)
    stage.up()
    stage.later(100)
    stage.plan.drain(0)
    stage.think()
    stage.ready(5)  # 0 is DYING
    stage.unanswered(1, times=3)  # FAILING
    stage.exits(2)  # STARTING
    for _ in range(3):
        stage.exits(3)
    assert stage.lives == {0: "DYING", 1: "FAILING", 2: "STARTING", 3: "BACKOFF", 4: "OK", 5: "OK"}
    stage.plan.stop(stage.now)
    assert short(stage.think()) == ["stop 0", "stop 1", "stop 2", "stop 4", "stop 5"]
    assert set(stage.lives.values()) == {"STOPPING"}
    assert stage.plan.next_wake(stage.now) == 30 + MARGIN
    for slot in (0, 1, 2, 4):
        assert not stage.plan.over
        assert stage.exits(slot, "exited") == []
    assert short(stage.later(30 + MARGIN)) == ["kill 5"]
    assert stage.exits(5) == []
    assert stage.plan.over
    assert stage.later(100) == []


def test_stop_before_anything_was_started() -> None:
    stage = Stage()
    stage.plan.stop(stage.now)
    assert stage.think() == []
    assert stage.plan.over


def test_stop_twice_is_stop_once() -> None:
    stage = Stage()
    stage.up()
    stage.plan.stop(stage.now)
    stage.think()
    stage.plan.stop(stage.now)
    assert stage.think() == []


def test_one_that_is_ready_too_late_is_stopped_all_the_same() -> None:
    stage = Stage(servers=1)
    stage.think()
    stage.plan.stop(stage.now)
    stage.ready(0)
    assert stage.lives == {0: "STOPPING"}


# Settings that changed with a release.


@pytest.mark.parametrize(("servers", "deeds"), [(1, ["drain 0"]), (3, ["start 2"])])
def test_another_number_of_servers_is_followed(servers: int, deeds: list[str]) -> None:
    stage = Stage(servers=2, slots=12)
    stage.up()
    stage.probed(1, sessions=3)
    stage.plan.settings = Stage(servers=servers, slots=12).settings
    assert short(stage.think()) == deeds


def test_one_that_waits_is_forgotten_when_fewer_are_wanted() -> None:
    stage = Stage(servers=2)
    stage.up()
    for _ in range(3):
        stage.exits(1)
    assert stage.lives == {0: "OK", 1: "BACKOFF"}
    stage.plan.settings = Stage(servers=1).settings
    assert stage.think() == []
    assert stage.lives == {0: "OK"}


def test_orders_are_the_four_that_there_are() -> None:
    assert {order.value for order in Order} == {"drain", "undrain", "stop", "kill"}
    assert Tell(Identity(0, 1), Order.STOP) != Tell(Identity(0, 2), Order.STOP)


# Whatever happens.


@pytest.mark.parametrize("seed", range(40))
def test_whatever_happens_the_plan_holds(seed: int) -> None:
    chance = random.Random(seed)
    stage = Stage(
        servers=3,
        slots=chance.choice((5, 6, 12)),
        appservers={"standby": chance.choice((0, 1)), "hard_memory": HARD},
        max_dying=chance.choice((0, 1)),
        drain_limit=chance.choice((0.0, 60.0)),
    )
    begun: list[int] = []
    for _ in range(250):
        stage.now += chance.choice((0.0, 0.1, 3.0, 40.0))
        stage.wall += chance.choice((0, 100, -60_000))
        record = chance.choice(list(stage.plan)) if stage.lives else None
        _something_happens(stage, record, chance)
        deeds = stage.think()
        begun += [deed.identity.generation for deed in deeds if isinstance(deed, Start)]
        records = list(stage.plan)
        assert all(record.slot < stage.settings.slots for record in records)
        assert all(isinstance(deed, Start) or deed.identity.slot < stage.settings.slots for deed in deeds)
        assert stage.plan.next_wake(stage.now) > 0
        counting = [record for record in records if record.counts]
        standby = sum(record.standby for record in counting)
        assert standby == min(stage.settings.appservers.standby, max(0, len(counting) - 3)) or any(
            record.leaving for record in counting
        )
        assert bool(stage.plan.waiting) is stage.plan.rolling
        assert 0 <= stage.plan.replaced[0] <= stage.plan.replaced[1]
    assert begun == sorted(set(begun))
    stage.plan.stop(stage.now)
    stage.think()
    for record in list(stage.plan):
        stage.exits(record.slot)
    assert stage.plan.over


def _something_happens(stage: Stage, record: Record | None, chance: random.Random) -> None:
    if record is None:
        return
    identity, now = record.identity, stage.now
    vitals = Vitals(
        record.generation,
        past_limit=chance.choice(("", "", "requests")),
        empty=chance.random() < 0.5,
        sessions=chance.randrange(9),
        memory=HARD + 1 if chance.random() < 0.05 else 0,
    )
    what = chance.randrange(10)
    ok = [other for other in stage.plan if other.life is Life.OK]
    if what <= 1 and record.life is Life.STARTING:
        stage.plan.ready(identity, now)
    elif what == 2 and record.life is not Life.BACKOFF:
        stage.plan.failed(identity, "in use", chance.random() < 0.3)
        stage.plan.exited(identity, "exited with status 3", now)
    elif what == 3 and record.life in PUBLISHED:
        stage.plan.probed(identity, vitals, now)
    elif what == 4 and record.life in PUBLISHED:
        for _ in range(chance.randrange(6)):
            stage.plan.unanswered(identity, "no answer", chance.random() < 0.3, now)
    elif what == 5:
        stage.plan.past_limit(identity, "requests")
    elif what == 6:
        stage.plan.empty(identity, now)
    elif what == 7 and chance.random() < 0.2:
        stage.plan.release(now, end_sessions=chance.random() < 0.3)
    elif what == 8 and record.life is Life.OK:
        stage.plan.drain(record.slot)
    elif what == 9 and record.life is Life.DYING and "limit" not in record.leaving:
        stage.plan.undrain(record.slot, now)
    orders_alone = what in (5, 7, 8, 9)
    if orders_alone and len(ok) >= stage.settings.appservers.servers:
        stage.think()
        left = sum(other.life is Life.OK for other in stage.plan)
        assert left >= stage.settings.appservers.servers, "an order cost visitors an AppServer"


# What belongs to one life does not outlive it.


def test_a_new_life_begins_with_nothing_of_the_one_before() -> None:
    stage = Stage(servers=1)
    stage.up()
    stage.unanswered(0, times=3, cpu=50.0)
    stage.exits(0)
    fresh = Record(0, stage.at(0).generation, since=stage.now, born=stage.now)
    history = {"why", "short_lives", "wake_at", "vacant_since", "deadline"}
    got, new = vars(stage.record(0)), vars(fresh)
    assert {key: got[key] for key in got.keys() - history} == {key: new[key] for key in new.keys() - history}


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
    assert stage.lives == {0: "FAILING"}


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
    stage.think()
    waits = []
    for _ in range(6):
        assert set(short(stage.later(20))) == {"kill 0", "kill 1"}
        begun = stage.now
        stage.exits(0)
        stage.exits(1)
        while not all(record.life is Life.STARTING for record in stage.plan):
            stage.later(stage.plan.next_wake(stage.now))
        waits.append(stage.now - begun)
    assert waits == [0, 1, 2, 4, 8, 8]


def test_one_that_was_killed_because_it_was_not_ready_is_said_to_be_so(caplog: pytest.LogCaptureFixture) -> None:
    stage = Stage(servers=1, start_timeout=20)
    stage.think()
    stage.later(20)
    stage.exits(0)
    stage.later(20)
    stage.exits(0)
    why = "was ended by SIGKILL, for it was not ready within 20 s (start_timeout)"
    assert stage.record(0).why == why
    assert stage.plan.next_try(stage.record(0), stage.now) == 1
    assert f"slot 0 is tried again in 1 s: {why}" in caplog.messages


def test_a_long_import_that_fails_is_no_long_life() -> None:
    stage = Stage(servers=1)
    stage.think()
    for _ in range(3):
        stage.now += 10 * SHORT_LIFE
        stage.exits_early(0)
    stage.now += 10 * SHORT_LIFE
    assert stage.exits(0) == []
    assert stage.record(0).wake_at - stage.now == 4


def test_a_long_import_before_a_short_life_neither() -> None:
    stage = Stage(servers=1)
    stage.think()
    for _ in range(3):
        stage.now += 10 * SHORT_LIFE
        stage.ready(0)
        stage.exits_early(0)
    assert stage.record(0).short_lives == 3


@pytest.mark.parametrize(("setting", "most"), [(0, FEWEST_STARTS), (3, 3)])
def test_starts_are_bounded_in_number(setting: int, most: int) -> None:
    stage = Stage(servers=20, starts_at_once=setting)
    stage.think()
    seen = set()
    while waiting := [record.slot for record in stage.plan if record.life is Life.STARTING]:
        assert len(waiting) <= most
        seen.add(waiting[0])
        assert stage.plan.next_wake(stage.now) > 0
        stage.ready(waiting[0])
    assert seen == set(range(20))


def test_those_that_fail_again_and_again_do_not_keep_the_others_from_starting() -> None:
    stage = Stage(servers=4, starts_at_once=2, start_timeout=20)
    stage.think()
    for _ in range(10):
        for record in list(stage.plan):  # 0 and 1 hang in their start
            if record.life is Life.STARTING and record.slot > 1:
                stage.ready(record.slot)
        for deed in stage.later(20):
            if deed == Tell(deed.identity, Order.KILL):
                stage.exits(deed.identity.slot)
    assert {slot: life for slot, life in stage.lives.items() if slot > 1} == {2: "OK", 3: "OK"}


# A limit on memory below what the application needs.


def test_hard_memory_below_what_is_needed_from_the_start_is_no_limit_and_said() -> None:
    stage = Stage(servers=1, appservers={"hard_memory": HARD})
    stage.think()
    stage.plan.ready(stage.at(0), stage.now, HARD + 1)
    assert stage.probed(0, memory=HARD + 2) == []
    assert stage.lives == {0: "OK"}
    (problem,) = stage.plan.problems
    assert (
        problem == f"hard_memory = {HARD} is less than the application needs from the start, and no limit for slot 0"
    )
    stage.exits(0)
    stage.plan.ready(stage.at(0), stage.now, HARD)
    stage.think()
    assert not list(stage.plan.problems)
    assert "stop 0" in short(stage.probed(0, memory=HARD + 1))


# Orders that do not arrive.


def test_an_order_that_is_not_taken_is_given_again_and_said_once(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "lbmonitor")
    stage = Stage(servers=1)
    stage.up()
    stage.plan.drain(0)
    stage.think()
    assert short(stage.ready(1)) == ["drain 0"]
    assert stage.probed(0, status="OK") == [], "that answer may be older than the order"
    assert short(stage.probed(0, status="OK")) == ["drain 0"]
    assert stage.probed(0, status="OK") == []
    assert short(stage.probed(0, status="OK")) == ["drain 0"]
    said = "slot 0 does not take the order to drain; it is given again and again"
    assert caplog.messages.count(said) == 1
    assert list(stage.plan.problems) == [said]
    assert stage.probed(0, status="DYING") == []
    assert not list(stage.plan.problems)
    stage.plan.undrain(0, stage.now)
    stage.think()
    stage.probed(0, status="DYING")
    assert "undrain 0" in short(stage.probed(0, status="DYING"))


def test_one_that_does_not_say_what_it_is_is_believed() -> None:
    stage = Stage(servers=1)
    stage.up()
    for _ in range(5):
        assert stage.probed(0, status="") == []


# Why, and when next.


def test_who_does_not_serve_says_why_and_when_something_is_done() -> None:
    stage = Stage(servers=1, failing_limit=5)
    stage.up()
    assert stage.plan.next_try(stage.record(0), stage.now) is None
    stage.unanswered(0, times=3)
    assert stage.record(0).why == "3 probes failed: no answer within 2 s"
    stage.now += 2
    assert stage.plan.next_try(stage.record(0), stage.now) == 3
    stage.probed(0)
    assert stage.record(0).why == ""
