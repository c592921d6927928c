"""The plan: facts in, actions out, under a fake clock."""

from __future__ import annotations

import random

import msgspec
import pytest
from plan_stage import WALL, Stage, a_life, short

from lbadaptor.contract.address import Identity
from monitor.contract.messages import ProbeAnswer
from monitor.policy import orders
from monitor.policy.actions import Start
from monitor.policy.life import Life, Reason, in_words
from monitor.policy.probes import HUNG_GRACE, UNKILLABLE
from monitor.policy.slot import SHORT_LIFE, Backoff, Slot, Slots
from monitor.policy.states import PUBLISHED, LifeState

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
    pool.emptied(old, now)
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
    what = chance.randrange(11)
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
        stage.pool.emptied(identity, now)
    elif what == 10 and chance.random() < 0.3:
        if stage.pool.leaving:
            orders.stay(stage.pool)
        else:
            orders.leave(stage.pool, now)
    elif what == 7 and chance.random() < 0.2 and not stage.pool.leaving:
        orders.release(stage.pool, now, end_sessions=chance.random() < 0.3)
    elif what == 8 and slot.state is LifeState.OK and not stage.pool.leaving:
        orders.drain(stage.pool, slot.number)
    elif what == 9 and (life := slot.life) and life.state is LifeState.DYING and Reason.LIMIT not in life.leaving:
        orders.undrain(stage.pool, slot.number, now)
    orders_alone = what in (5, 7, 8, 9, 10)
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
