"""The states of a server's connection: every event in every state."""

from __future__ import annotations

import pytest

from lbadaptor.http1 import states
from lbadaptor.http1.states import (
    ABANDONED,
    BODY,
    CLOSED,
    DISCARDING,
    HEAD,
    IDLE,
    LEAVING,
    REQUEST,
    SERVED,
    TABLE,
    Event,
    IllegalTransition,
    State,
)

NEXT: dict[Event, dict[State, State]] = {
    Event.HEAD_BEGINS: {IDLE: HEAD},
    Event.HEAD_ENDS: {IDLE: BODY, HEAD: BODY},
    Event.REQUEST_ENDS: {IDLE: REQUEST, HEAD: REQUEST, BODY: REQUEST, DISCARDING: IDLE},
    Event.ANSWERED: {REQUEST: IDLE, BODY: DISCARDING},
    Event.HANG_UP: {IDLE: LEAVING, HEAD: LEAVING, BODY: LEAVING, REQUEST: LEAVING},
    Event.CLOSE: dict.fromkeys(State, CLOSED) | {ABANDONED: ABANDONED},
    Event.FORK: dict.fromkeys(State, ABANDONED),
}
"""The table the other way round: what each event makes of the states in which it can happen."""


@pytest.mark.parametrize("event", Event)
@pytest.mark.parametrize("state", State)
def test_every_event_in_every_state(state: State, event: Event) -> None:
    transition = getattr(states, event.name)
    assert transition.event is event
    if state in NEXT[event]:
        assert transition[state] is NEXT[event][state]
    else:
        with pytest.raises(IllegalTransition, match=f"{event.name} in {state.name}"):
            transition[state]


def test_every_state_is_in_the_table_and_has_its_name_in_the_module() -> None:
    assert list(TABLE) == list(State)
    assert all(getattr(states, state.name) is state for state in State)


def test_every_state_can_be_reached_and_left_but_for_the_last() -> None:
    reached = {IDLE}
    while True:
        more = {after for state in reached for after in TABLE[state].values()} - reached
        if not more:
            break
        reached |= more
    assert reached == set(State)
    assert [state for state in State if set(TABLE[state].values()) == {state}] == [ABANDONED]


def test_a_connection_is_served_as_long_as_its_request_has_no_answer() -> None:
    assert {state for state in State if Event.ANSWERED in TABLE[state]} == SERVED
