"""When may a request be tried again? One table, pure.

It rests on one question: could the AppServer have begun? Where it could not, another may be asked,
whatever the method. Where it could, only a method that may be repeated is (RFC 9110 §9.2.2), and only
once: a request that crashes its process must not run through all of them.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum, auto

from lbadaptor.contract.headers import Refusal
from lbadaptor.contract.ticket import Verdict

IDEMPOTENT = frozenset(("GET", "HEAD", "OPTIONS", "TRACE", "PUT", "DELETE"))
WITH_KEY = frozenset(("POST", "PATCH"))
"""What an Idempotency-Key makes idempotent (draft-ietf-httpapi-idempotency-key-header §2)."""


class Failure(Enum):
    """What happened to an exchange, named by how far it came."""

    UNREACHABLE = "connection refused or unreachable"
    UNSENT = "connection lost before anything was sent"
    UNREAD = "connection reset before the request was read"
    """A request without a body, by a Unix socket. The kernel resets such a connection when it is closed while bytes
    wait on it to be read, or before it was accepted; where all was read, it just ends. By TCP that is not certain:
    short of memory, the kernel resets any connection."""
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


class Deed(Enum):
    """What is done next."""

    ELSEWHERE = auto()
    """redispatch"""
    LOOK = auto()
    """read address.text anew: the holder again if it is still there and this was the first time; else
    redispatch as `lost`"""
    GONE = auto()
    """read address.text anew; redispatch, as `lost`"""
    LATER = auto()
    """redispatch; the same one again, too, after a pause, when no other is left, until the deadline; then 503 with
    Retry-After"""
    SAME = auto()
    """the same one again until the deadline, then 503 with Retry-After"""
    ONCE = auto()
    """once more (elsewhere, as `lost` if it was held, when the holder is gone), and 502 after that"""
    BAD_GATEWAY = auto()
    """502"""
    UNAVAILABLE = auto()
    """503 with Retry-After"""
    TIMEOUT = auto()
    """504"""


@dataclass(frozen=True)
class Row:
    """What is done when the ticket was HELD, and otherwise."""

    held: Deed
    other: Deed


_NEEDS_BODY = frozenset((Deed.ELSEWHERE, Deed.LATER, Deed.LOOK, Deed.GONE, Deed.SAME))
_NEVER_BEGAN = Row(Deed.LOOK, Deed.ELSEWHERE)
_WAITS = Row(Deed.SAME, Deed.LATER)
"""It may have time in a moment."""
_REFUSED = Row(Deed.GONE, Deed.ELSEWHERE)
_MAY_HAVE_BEGUN = Row(Deed.ONCE, Deed.ONCE)
_FAILED = Row(Deed.BAD_GATEWAY, Deed.BAD_GATEWAY)
"""The AppServer lives: what it did to this request it, or another, would do again."""

TABLE: dict[Failure, Row] = {
    Failure.UNREACHABLE: _NEVER_BEGAN,
    Failure.UNSENT: _NEVER_BEGAN,
    Failure.UNREAD: _NEVER_BEGAN,
    Failure.CONNECT_TIMEOUT: _WAITS,
    Failure.BUSY: _WAITS,
    Failure.STALE: _REFUSED,
    Failure.DYING: _REFUSED,
    Failure.INCOMPLETE: _REFUSED,
    Failure.LOST: _MAY_HAVE_BEGUN,
    Failure.BROKEN: _MAY_HAVE_BEGUN,
    Failure.CUT: _FAILED,
    Failure.MALFORMED: _FAILED,
    Failure.NOT_HTTP: _MAY_HAVE_BEGUN,
    Failure.FORBIDDEN: _REFUSED,
    Failure.SILENT: Row(Deed.TIMEOUT, Deed.TIMEOUT),
    Failure.OURS: Row(Deed.UNAVAILABLE, Deed.UNAVAILABLE),
}

NEVER_BEGAN = frozenset(failure for failure, row in TABLE.items() if row is _NEVER_BEGAN)
REFUSALS = {refusal.value: Failure[refusal.name] for refusal in Refusal}


def idempotent(method: str, *, key: bool) -> bool:
    """Whether a request may be executed twice. `key`: it has an Idempotency-Key that is to be relied on."""
    return method in IDEMPOTENT or (key and method in WITH_KEY)


def decide(failure: Failure, verdict: Verdict, *, idempotent: bool, body_kept: bool, again: bool) -> Deed:
    """What to do after a failure.

    `idempotent`: the request may be executed twice. `body_kept`: all of the body that was sent can be sent again.
    `again`: for what never began (UNREACHABLE, UNSENT, UNREAD), the same AppServer failed so before; for the rest,
    the request was repeated before.
    """
    row = TABLE[failure]
    deed = row.held if verdict is Verdict.HELD else row.other
    if deed is Deed.ONCE and (again or not idempotent or not body_kept):
        return Deed.BAD_GATEWAY
    if not body_kept and deed in _NEEDS_BODY:
        return Deed.UNAVAILABLE
    if deed is Deed.LOOK and again:
        return Deed.GONE
    return deed
