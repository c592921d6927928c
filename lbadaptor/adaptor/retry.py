"""The retry table: what happens after a failure. Pure.

The table rests on one question: could the AppServer have begun to work on the request? If it could not, the request
is sent again, whatever its method. If it could, only a request that may be executed twice is sent again (RFC 9110
§9.2.2), and only once: a request that crashes its process must not run through all AppServers.

`decide` picks a `Step`. A step says everything: where the request goes next, the pause before that, and what is
remembered of the AppServer that failed. `walk` carries it out, and reads address.text anew before each new attempt.
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
    LOST = "connection lost before the first byte of the answer"
    BROKEN = "connection lost within the answer"
    CUT = "the application broke its answer off"
    MALFORMED = "the AppServer's answer is malformed"
    NOT_HTTP = "the answer is not HTTP, or not an AppServer's"
    FORBIDDEN = "the AppServer does not know our key"
    SILENT = "no answer in time"
    OURS = "our own shortage"


REFUSALS = {refusal.value: Failure[refusal.name] for refusal in Refusal}


class Next(Enum):
    """Where the request goes next."""

    HOLDER = "the holder, as long as address.text names it; without a holder, another AppServer"
    ANOTHER = "another AppServer; a holder is given up, and the verdict becomes LOST"
    NOBODY = "the visitor gets an error page"


class Avoid(Enum):
    """For how long this request avoids the AppServer that failed, when it is not the holder that is asked again."""

    ALWAYS = "to the end"
    UNLESS_ALONE = "to the end, if there is another AppServer"
    TILL_PAUSE = "until the request has waited for an AppServer"


@dataclass(frozen=True)
class Step:
    """What is done after a failure."""

    to: Next
    status: int = 0
    """the status of the error page; 0 if the request is sent again"""
    pause: float = 0.0
    """seconds before the next attempt"""
    waits: bool = False
    """the pause counts as waiting: only `waiters` requests may do so, until `wait` seconds are over. Then: 503"""
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
WAIT_FOR_HOLDER = Step(Next.HOLDER, pause=RETRY_PAUSE, waits=True)
"""To move a living session's visitor would destroy the session."""
ASK_OTHERS_FIRST = Step(Next.ANOTHER, avoid=Avoid.TILL_PAUSE)
ONCE_MORE = Step(Next.HOLDER, pause=RETRY_PAUSE, repeats=True, avoid=Avoid.UNLESS_ALONE)
"""A process that was killed is gone a moment later. Until then it accepts connections, and address.text names it. The
same holds for others that were killed together with it. The one repetition must not go to any of them."""


@dataclass(frozen=True)
class Row:
    """The steps after one failure."""

    held: Step
    """the verdict is HELD"""
    held_again: Step
    """the verdict is HELD, and it is remembered that this holder could not be reached"""
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
    return Row(step, step, step, step)


_NEVER_BEGAN = Row(ONE_MORE_LOOK, ELSEWHERE, ELSEWHERE, UNAVAILABLE)
_BUSY = Row(WAIT_FOR_HOLDER, WAIT_FOR_HOLDER, ASK_OTHERS_FIRST, UNAVAILABLE)
_REFUSED = Row(ELSEWHERE, ELSEWHERE, ELSEWHERE, UNAVAILABLE)
_DIED = Row(ONCE_MORE, ONCE_MORE, ONCE_MORE, BAD_GATEWAY, begun=True, died=True)

TABLE: dict[Failure, Row] = {
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
    Failure.NOT_HTTP: Row(ONCE_MORE, ONCE_MORE, ONCE_MORE, BAD_GATEWAY, begun=True),
    # The AppServer lives. It would do the same again, and so would another one.
    Failure.CUT: _error(BAD_GATEWAY),
    Failure.MALFORMED: _error(BAD_GATEWAY),
    Failure.SILENT: _error(TIMEOUT),
    Failure.OURS: _error(UNAVAILABLE),
}


def idempotent(method: str, *, key: bool) -> bool:
    """Whether a request may be executed twice. `key`: it has an Idempotency-Key, and the settings trust that."""
    return method in IDEMPOTENT or (key and method in IDEMPOTENT_WITH_KEY)


def decide(
    failure: Failure, verdict: Verdict, *, idempotent: bool, body_kept: bool, missed: bool, repeated: bool
) -> Step:
    """The step after a failure.

    `idempotent`: the request may be executed twice. `body_kept`: all that was sent of the body can be sent again.
    `missed`: it is remembered that this AppServer could not be reached. `repeated`: the request had its one
    repetition, or is refused one.
    """
    row = TABLE[failure]
    if not body_kept or (row.begun and (repeated or not idempotent)):
        return row.not_again
    if verdict is not Verdict.HELD:
        return row.other
    return row.held_again if missed else row.held
