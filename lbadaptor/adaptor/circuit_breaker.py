"""A circuit breaker for requests that AppServers die of. Pure; each Apache process has its own.

A request whose AppServer is killed is repeated (see `retry`). But a request that ends its process each time must not
end one AppServer after the other, even if a robot sends it again and again. So the breaker counts the AppServers that
died in a row while they worked on requests of one kind: the same method and path, or the same query too.

- Closed: such requests are sent. From two deaths in a row on they are not repeated.
- Open, from five deaths in a row on: such requests are refused for `OPEN_SECONDS` after the last death.
- Half-open, after that: one request is sent, and the others are refused for another `OPEN_SECONDS`.

Any answer to such a request closes the breaker. A stream may never end in order, so a death is also forgotten after
`FORGET_SECONDS`.

AppServers that die together were killed from outside and count once. They may also be killed from outside one after
the other. So a request that was already sent when another AppServer died is repeated all the same, up to the fifth
death.
"""

from __future__ import annotations

import hashlib
import threading
from dataclasses import dataclass, field

NO_RETRY_DEATHS = 2
"""Deaths in a row after which such requests are not repeated."""
OPEN_DEATHS = 5
"""Deaths in a row after which the breaker opens: such requests are refused."""
OPEN_SECONDS = 30.0
"""After the last death, or after the last request that was let through."""
TOGETHER_SECONDS = 0.04
"""AppServers that die within this time count once."""
FORGET_SECONDS = 600.0
"""After the last death. Then it counts no more."""
STREAM_SECONDS = 10.0
"""A visitor who leaves a stream after this time had an answer."""
MAX_KINDS = 256
"""Kinds of requests that are remembered, at 2 KiB each. Beyond that, the kind with the oldest death is forgotten."""
_MAX_TICKETS = 16
"""AppServers that are remembered for one kind of requests."""

Kinds = tuple[bytes, ...]
"""The kinds that one request belongs to, from coarse to fine."""


@dataclass
class _Deaths:
    """The deaths at requests of one kind. Times are monotonic seconds."""

    count: int = 0
    """in a row"""
    last: float = float("-inf")
    """the last death that counted"""
    before: float = float("-inf")
    """the one before it"""
    last_ticket: str = ""
    """the AppServer that died last, and counted"""
    half_open: float = float("-inf")
    """when a request was let through last although the breaker was open"""
    tickets: list[str] = field(default_factory=list)
    """the AppServers that died last; each counts once"""


def kinds(method: str, path: str, query: str) -> Kinds:
    """The kinds that a request belongs to. Only digests are kept, because a query may hold a secret."""
    texts = [f"{method} {path}", f"{method} {path}?{query}"] if query else [f"{method} {path}"]
    return tuple(hashlib.blake2b(text.encode("latin-1", "replace"), digest_size=8).digest() for text in texts)


class CircuitBreaker:
    """Any thread may use it. As long as no AppServer died, `deaths` is empty, and no method needs to be called."""

    def __init__(self) -> None:
        self.deaths: dict[bytes, _Deaths] = {}
        """by kind of requests"""
        self._lock = threading.Lock()

    def record_death(self, kinds: Kinds, ticket: str, now: float, sent: float = float("inf")) -> int:
        """An AppServer, named by its ticket, died while it worked on such a request. Returns the deaths in a row.

        `sent`: when the request was sent to it. Returns 0 if that was before the last death of another AppServer, as
        long as the breaker is closed.
        """
        with self._lock:
            count = 0
            for kind in kinds:
                deaths = self.deaths.setdefault(kind, _Deaths())
                if ticket not in deaths.tickets:
                    deaths.tickets = [*deaths.tickets[-_MAX_TICKETS + 1 :], ticket]
                    if now - deaths.last >= FORGET_SECONDS:
                        deaths.count = 0
                    if now - deaths.last >= TOGETHER_SECONDS:
                        deaths.count += 1
                        deaths.before, deaths.last, deaths.last_ticket = deaths.last, now, ticket
                other = deaths.before if ticket == deaths.last_ticket else deaths.last
                if sent >= other or deaths.count >= OPEN_DEATHS:
                    count = max(count, deaths.count)
            while len(self.deaths) > MAX_KINDS:
                del self.deaths[min(self.deaths, key=lambda kind: self.deaths[kind].last)]
            return count

    def record_answer(self, kinds: Kinds) -> None:
        """Such a request was answered, so AppServers do not die of it: close the breaker."""
        with self._lock:
            for kind in kinds:
                self.deaths.pop(kind, None)

    def refuses(self, kinds: Kinds, now: float) -> int:
        """The deaths in a row if the breaker is open for such a request, otherwise 0.

        Half-open: 0 for this request, which is to be sent; the next ones are refused.
        """
        with self._lock:
            found = [deaths for kind in kinds if (deaths := self.deaths.get(kind)) and deaths.count >= OPEN_DEATHS]
            for deaths in found:
                if now - max(deaths.last, deaths.half_open) < OPEN_SECONDS:
                    return deaths.count
            for deaths in found:
                deaths.half_open = now
            return 0
