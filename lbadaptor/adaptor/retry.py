"""The retry table: what happens after a failure. Pure.

The table rests on one question: could the AppServer have begun to work on the request? If it could not, the request
is sent again, whatever its method. If it could, only a request that may be executed twice is sent again (RFC 9110
§9.2.2), and only once: a request that crashes its process must not run through all AppServers.

`decide` picks a `Step`. A step says everything: where the request goes next, the pause before that, and what is
remembered of the AppServer that failed. `walk` carries it out, and reads address.text anew before each new attempt.

A refusal as MOVED began nothing. It tells where the visitor's session is (`Moved`), and the request follows it.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

from lbadaptor.contract.headers import Refusal
from lbadaptor.contract.ticket import Verdict

IDEMPOTENT = frozenset(("GET", "HEAD", "OPTIONS", "TRACE", "PUT", "DELETE"))
IDEMPOTENT_WITH_KEY = frozenset(("POST", "PATCH"))
"""Methods that an Idempotency-Key makes idempotent (draft-ietf-httpapi-idempotency-key-header §2)."""

RETRY_PAUSE = 0.05
"""Seconds between two attempts at the same AppServer, or between two looks at address.text while a request waits."""


class Failure(Enum):
    """How far an exchange came before it failed."""

    UNREACHABLE = "connection refused or unreachable"
    UNSENT = "connection lost before anything was sent"
    UNREAD = "connection reset before the request was read"
    """Only for a request without a body, and by a Unix socket. The kernel resets such a connection if it is closed
    before all its bytes were read, or before it was accepted. If all bytes were read, the connection just ends. TCP
    gives no such certainty: the kernel resets any TCP connection when it is short of memory."""
    CONNECT_TIMEOUT = "connect timed out"
    BUSY = "refused: BUSY"
    STALE = "refused: STALE"
    DYING = "refused: DYING"
    INCOMPLETE = "refused: INCOMPLETE"
    MOVED = "refused: MOVED"
    """It has no row: `Moved` has five."""
    LOST = "connection lost before the first byte of the answer"
    BROKEN = "connection lost within the answer"
    CUT = "the application broke its answer off"
    MALFORMED = "the AppServer's answer is malformed"
    NOT_HTTP = "the answer is not HTTP, or not an AppServer's"
    FORBIDDEN = "the AppServer does not know our key"
    SILENT = "no answer in time"
    OURS = "our own shortage"


REFUSALS = {refusal.value: Failure[refusal.name] for refusal in Refusal}

MAX_HOPS = 8
"""So often in a row a request follows a session to the AppServer that LB-Moved-To names."""


class Moved(Enum):
    """Where the session is, after a refusal as MOVED."""

    FREE = "at no AppServer: the next one that is asked takes it over"
    FURTHER = "at an AppServer of the table that this request has not asked"
    BACK = "at an AppServer of the table that this request has asked"
    OUTSIDE = "at an AppServer that is not in the table, or LB-Moved-To is malformed"
    ENDLESS = "at yet another AppServer, after MAX_HOPS"


def moved(moved_to: str, *, named: bool, asked: bool, hops: int) -> Moved:
    """What a refusal as MOVED says.

    `moved_to`: the value of LB-Moved-To, empty if there is none. `named`: it names an AppServer of the table.
    `asked`: this request has asked that one. `hops`: how often in a row one was named, this time included.
    """
    if not named:
        return Moved.OUTSIDE if moved_to else Moved.FREE
    if hops > MAX_HOPS:
        return Moved.ENDLESS
    return Moved.BACK if asked else Moved.FURTHER


class Next(Enum):
    """Where the request goes next."""

    HOLDER = "the holder, as long as address.text names it; without a holder, another AppServer"
    ANOTHER = "another AppServer; a holder is given up, and the verdict becomes LOST"
    NAMED = "the AppServer that LB-Moved-To names, as the holder: the verdict becomes HELD"
    CHOSEN = "the AppServer that is chosen for the visitor, whose tickets count no more: the verdict becomes LOST"
    NOBODY = "the visitor gets an error page"


class Avoid(Enum):
    """For how long this request avoids the AppServer that failed, when it is not the holder that is asked again."""

    NEVER = "not at all"
    ALWAYS = "to the end"
    UNLESS_ALONE = "to the end, if there is another AppServer"
    TILL_PAUSE = "until the request has waited for an AppServer"


class Wait(Enum):
    """What a request waits for. For each, only `waiters` requests wait at once, until `wait` seconds are over."""

    FOR_HOLDER = "the holder has no time"
    FOR_MOVE = "the session is on its way, or at an AppServer that does not answer"


@dataclass(frozen=True)
class Step:
    """What is done after a failure."""

    to: Next
    status: int = 0
    """the status of the error page; 0 if the request is sent again"""
    pause: float = 0.0
    """seconds before the next attempt"""
    waits: Wait | None = None
    """the pause counts as waiting, which has its bounds. Beyond them: 503"""
    repeats: bool = False
    """this is the one repetition of a request that an AppServer may have begun"""
    remembers: bool = False
    """it is remembered that this AppServer could not be reached"""
    avoid: Avoid = Avoid.ALWAYS


BAD_GATEWAY = Step(Next.NOBODY, status=502)
UNAVAILABLE = Step(Next.NOBODY, status=503)
TIMEOUT = Step(Next.NOBODY, status=504)
ELSEWHERE = Step(Next.ANOTHER)
ONE_MORE_LOOK = Step(Next.HOLDER, remembers=True)
"""The table may have been old: ask the holder again if it is still there."""
WAIT_FOR_HOLDER = Step(Next.HOLDER, pause=RETRY_PAUSE, waits=Wait.FOR_HOLDER)
"""To move a living session's visitor would destroy the session."""
ASK_OTHERS_FIRST = Step(Next.ANOTHER, avoid=Avoid.TILL_PAUSE)
ONCE_MORE = Step(Next.HOLDER, pause=RETRY_PAUSE, repeats=True, avoid=Avoid.UNLESS_ALONE)
"""A process that was killed is gone a moment later. Until then it accepts connections, and address.text names it. The
same holds for others that were killed together with it. The one repetition must not go to any of them."""
FOLLOW = Step(Next.NAMED, avoid=Avoid.NEVER)
FOLLOW_BACK = Step(Next.NAMED, pause=RETRY_PAUSE, waits=Wait.FOR_MOVE, avoid=Avoid.NEVER)
TAKE_OVER = Step(Next.CHOSEN, avoid=Avoid.NEVER)
WAIT_FOR_MOVE = Step(Next.CHOSEN, pause=RETRY_PAUSE, waits=Wait.FOR_MOVE, avoid=Avoid.NEVER)
"""The chosen AppServer looks anew where the session is. To call the application now would make a second session of
the same name."""


@dataclass(frozen=True)
class Row:
    """The steps after one failure."""

    held: Step
    """the verdict is HELD"""
    held_again: Step
    """the verdict is HELD, and it is remembered that this holder could not be reached"""
    named: Step
    """the verdict is HELD, because LB-Moved-To named this AppServer"""
    other: Step
    """any other verdict"""
    not_again: Step
    """the request may not be sent again"""
    begun: bool = False
    """The AppServer may have begun: the request may be sent again only if it may be executed twice, and only once."""
    died: bool = False
    """To all appearances the AppServer has died: the circuit breaker counts it."""


def _error(step: Step) -> Row:
    """The same error page in any case."""
    return Row(step, step, step, step, step)


def _moved(held: Step, other: Step) -> Row:
    """After a refusal as MOVED."""
    return Row(held, held, held, other, UNAVAILABLE)


_NEVER_BEGAN = Row(ONE_MORE_LOOK, ELSEWHERE, WAIT_FOR_MOVE, ELSEWHERE, UNAVAILABLE)
_BUSY = Row(WAIT_FOR_HOLDER, WAIT_FOR_HOLDER, WAIT_FOR_HOLDER, ASK_OTHERS_FIRST, UNAVAILABLE)
_REFUSED = Row(ELSEWHERE, ELSEWHERE, WAIT_FOR_MOVE, ELSEWHERE, UNAVAILABLE)
_DIED = Row(ONCE_MORE, ONCE_MORE, ONCE_MORE, ONCE_MORE, BAD_GATEWAY, begun=True, died=True)

TABLE: dict[Failure | Moved, Row] = {
    Failure.UNREACHABLE: _NEVER_BEGAN,
    Failure.UNSENT: _NEVER_BEGAN,
    Failure.UNREAD: _NEVER_BEGAN,
    Failure.CONNECT_TIMEOUT: _BUSY,
    Failure.BUSY: _BUSY,
    Failure.STALE: _REFUSED,
    Failure.DYING: _REFUSED,
    Failure.INCOMPLETE: _REFUSED,
    Failure.FORBIDDEN: _REFUSED,
    Failure.LOST: _DIED,
    Failure.BROKEN: _DIED,
    Failure.NOT_HTTP: Row(ONCE_MORE, ONCE_MORE, ONCE_MORE, ONCE_MORE, BAD_GATEWAY, begun=True),
    # The AppServer lives. It would do the same again, and so would another one.
    Failure.CUT: _error(BAD_GATEWAY),
    Failure.MALFORMED: _error(BAD_GATEWAY),
    Failure.SILENT: _error(TIMEOUT),
    Failure.OURS: _error(UNAVAILABLE),
    # Without a holder, it is the chosen AppServer itself that refuses: it would only be chosen again.
    Moved.FREE: _moved(TAKE_OVER, WAIT_FOR_MOVE),
    Moved.FURTHER: _moved(FOLLOW, FOLLOW),
    Moved.BACK: _moved(FOLLOW_BACK, FOLLOW_BACK),
    Moved.OUTSIDE: _moved(WAIT_FOR_MOVE, WAIT_FOR_MOVE),
    Moved.ENDLESS: _error(UNAVAILABLE),
}


def idempotent(method: str, *, key: bool) -> bool:
    """Whether a request may be executed twice. `key`: it has an Idempotency-Key, and the settings trust that."""
    return method in IDEMPOTENT or (key and method in IDEMPOTENT_WITH_KEY)


def decide(
    failure: Failure | Moved,
    verdict: Verdict,
    *,
    idempotent: bool,
    body_kept: bool,
    missed: bool,
    repeated: bool,
    named: bool,
) -> Step:
    """The step after a failure; after a refusal as MOVED, by what it says.

    `idempotent`: the request may be executed twice. `body_kept`: all that was sent of the body can be sent again.
    `missed`: it is remembered that this AppServer could not be reached. `repeated`: the request had its one
    repetition, or is refused one. `named`: the AppServer is the holder because LB-Moved-To named it.
    """
    row = TABLE[failure]
    if not body_kept or (row.begun and (repeated or not idempotent)):
        return row.not_again
    if verdict is not Verdict.HELD:
        return row.other
    if named:
        return row.named
    return row.held_again if missed else row.held
