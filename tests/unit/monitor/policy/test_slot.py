"""A slot, and the slots in use: every event in every state, what is free, and what a new life finds."""

from __future__ import annotations

import pytest

from monitor.policy.life import Life
from monitor.policy.slot import PASS_OVER, Backoff, Slots, Wait
from monitor.policy.states import PUBLISHED, Event, LifeState, after

PROCESS = [state for state in LifeState if state not in (LifeState.BACKOFF, LifeState.GONE)]
"""The states in which there is a process."""


def a_life(slot: int = 3, state: LifeState = LifeState.STARTING, before: LifeState = LifeState.OK) -> Life:
    return Life(slot=slot, generation=7, host="h", port=1, since=1.0, born=1.0, state=state, before_failing=before)


@pytest.mark.parametrize("before", [LifeState.OK, LifeState.DYING])
@pytest.mark.parametrize("event", Event)
@pytest.mark.parametrize("state", PROCESS)
def test_a_slot_follows_the_table(state: LifeState, event: Event, before: LifeState) -> None:
    slots, life = Slots(), a_life(state=state, before=before)
    slots.occupy(life)
    (slot,) = slots
    then = after(state, before, event)
    assert slots.move(life, event, 5.0) is (then is not None)
    if then is None:
        assert (life.state, life.since, slots.find(life.identity)) == (state, 1.0, life)
    elif then is LifeState.GONE:
        assert not slots
    elif then is LifeState.BACKOFF:
        assert (slot.occupant, slot.state, slots.lives) == (Wait(7, 5.0), LifeState.BACKOFF, [])
        assert slots.find(life.identity) is None, "its process is over"
    else:
        assert (slot.state, life.since, slots.lives) == (then, 5.0, [life])
        assert life.published is (then in PUBLISHED)
    if then is LifeState.FAILING:
        assert life.before_failing is state


def test_a_slot_keeps_its_history_and_a_new_life_has_none() -> None:
    slots, first = Slots(), a_life(state=LifeState.OK)
    slots.occupy(first)
    (slot,) = slots
    slot.backoff, slot.vacant_since = Backoff(3, "why", 9.0), 5.0
    slots.move(first, Event.EXIT, 5.0)
    second = a_life()
    slots.occupy(second)
    assert list(slots) == [slot]
    assert (slot.life, slot.backoff, slot.vacant_since, slot.why) == (second, Backoff(3, "why", 9.0), 5.0, "why")
    slot.became_ready()
    assert (slot.backoff, slot.vacant_since, slot.why) == (Backoff(3, "", 9.0), None, "")


def test_slots_are_in_the_order_of_their_numbers_whenever_they_came() -> None:
    slots = Slots()
    for number in (5, 0, 7, 2):
        slots.occupy(a_life(number, LifeState.OK))
    slots.move(slots.lives[0], Event.STOP, 5.0)
    slots.move(slots.lives[0], Event.EXIT, 5.0)
    slots.occupy(a_life(3))
    assert [slot.number for slot in slots] == [life.slot for life in slots.lives] == [2, 3, 5, 7]


def test_all_slots_can_be_given_up_in_one_pass() -> None:
    slots = Slots()
    for number in range(3):
        life = a_life(number, LifeState.OK)
        slots.occupy(life)
        slots.move(life, Event.EXIT, 5.0)
    for slot in slots:
        slots.stop_waiting(slot)
    assert not slots


def test_a_slot_that_waits_is_given_up() -> None:
    slots, life = Slots(), a_life(state=LifeState.OK)
    slots.occupy(life)
    slots.move(life, Event.EXIT, 5.0)
    slots.stop_waiting(slots.at(3))
    assert not slots


def test_the_lowest_free_slot_is_neither_in_use_nor_reserved_nor_passed_over() -> None:
    slots = Slots()
    slots.occupy(a_life(0))
    slots.reserved = {1}
    slots.pass_over(2, now=10.0)
    assert slots.free(5)[0] == 3
    assert slots.free(3) == []
    slots.forget_passed_over(10.0 + PASS_OVER - 1)
    assert (slots.free(5)[0], list(slots.passed_over_until)) == (3, [10.0 + PASS_OVER])
    slots.forget_passed_over(10.0 + PASS_OVER)
    assert (slots.free(5)[0], list(slots.passed_over_until)) == (2, [])
