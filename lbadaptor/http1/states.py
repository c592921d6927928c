"""The states of a server's connection, and every transition between them.

Everything that changes the state of a connection is in `TABLE`. A transition is one attribute store:

    connection.state = REQUEST_ENDS[connection.state]

so another thread sees the state before or the state after, and nothing between. Only one thread at a time may make
transitions of a connection. While a request has no answer (`SERVED`), that is the thread that serves it; otherwise it
is the thread that polls.
"""

from __future__ import annotations

from enum import Enum


class IllegalTransition(Exception):
    """An event that cannot happen in this state: an error in the program, not the peer's."""


class State(Enum):
    """What is here of a request, and what was done with it."""

    IDLE = "nothing of a request is here"
    HEAD = "the beginning of a head is here"
    BODY = "a head is here and its body is still coming; the request has no answer"
    REQUEST = "a whole request is here; it has no answer"
    DISCARDING = "the request was answered; the rest of its body is discarded"
    LEAVING = "the last answer was sent and our side is closed; what still comes is discarded"
    CLOSED = "the connection is closed"
    ABANDONED = "this process is a forked child, and has closed its copy of the socket"

    __hash__ = object.__hash__  # Enum's own is written in Python: it makes a look-up five times as slow


class Event(Enum):
    """What changes a connection's state."""

    HEAD_BEGINS = "the beginning of a head was read"
    HEAD_ENDS = "the end of a head was read; a body follows"
    REQUEST_ENDS = "the last byte of a request was read"
    ANSWERED = "the last byte of the answer was sent, and another request may follow"
    HANG_UP = "the last byte of the last answer was sent"
    CLOSE = "the connection is closed"
    FORK = "this process is a forked child"

    __hash__ = object.__hash__


IDLE, HEAD, BODY, REQUEST, DISCARDING, LEAVING, CLOSED, ABANDONED = State  # an enum's own look-up takes longer

SERVED = frozenset((BODY, REQUEST))
"""A request is here that has no answer: the connection belongs to the thread that serves it."""

TABLE: dict[State, dict[Event, State]] = {
    IDLE: {
        Event.HEAD_BEGINS: HEAD,
        Event.HEAD_ENDS: BODY,
        Event.REQUEST_ENDS: REQUEST,
        Event.HANG_UP: LEAVING,
        Event.CLOSE: CLOSED,
        Event.FORK: ABANDONED,
    },
    HEAD: {
        Event.HEAD_ENDS: BODY,
        Event.REQUEST_ENDS: REQUEST,
        Event.HANG_UP: LEAVING,
        Event.CLOSE: CLOSED,
        Event.FORK: ABANDONED,
    },
    BODY: {
        Event.REQUEST_ENDS: REQUEST,
        Event.ANSWERED: DISCARDING,
        Event.HANG_UP: LEAVING,
        Event.CLOSE: CLOSED,
        Event.FORK: ABANDONED,
    },
    REQUEST: {
        Event.ANSWERED: IDLE,
        Event.HANG_UP: LEAVING,
        Event.CLOSE: CLOSED,
        Event.FORK: ABANDONED,
    },
    DISCARDING: {
        Event.REQUEST_ENDS: IDLE,
        Event.CLOSE: CLOSED,
        Event.FORK: ABANDONED,
    },
    LEAVING: {
        Event.CLOSE: CLOSED,
        Event.FORK: ABANDONED,
    },
    CLOSED: {
        Event.CLOSE: CLOSED,
        Event.FORK: ABANDONED,
    },
    ABANDONED: {
        Event.CLOSE: ABANDONED,
        Event.FORK: ABANDONED,
    },
}
"""By state, then by event: the next state. What is not here cannot happen."""


class Transition(dict[State, State]):
    """One event: `transition[state]` is the next state. Raises IllegalTransition."""

    def __init__(self, event: Event) -> None:
        super().__init__({state: row[event] for state, row in TABLE.items() if event in row})
        self.event = event

    def __missing__(self, state: State) -> State:
        raise IllegalTransition(f"{self.event.name} in {state.name}")


HEAD_BEGINS, HEAD_ENDS, REQUEST_ENDS, ANSWERED, HANG_UP, CLOSE, FORK = map(Transition, Event)
