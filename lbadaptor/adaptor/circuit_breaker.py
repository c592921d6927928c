"""Requests that AppServers seem to die of. Pure; what one Apache process has seen.

A request whose AppServer is killed under it is repeated (see `failover`). One that ends its process every time must
not end one after the other, nor may a robot that asks again and again. So it is counted how many AppServers in a row
died at work on requests like it: of the same method and path, and of the same query. Two deaths: such requests are
not repeated any more. Five: they are refused for a while, then one is let through. Any answer to one of them ends it.

AppServers that died together were killed from outside, and count once. They may be killed one after the other, too:
so a request that its AppServer had already when another one died is repeated all the same, up to the fifth. And what
was long ago is forgotten, for a stream may never end in order.
"""

from __future__ import annotations

import hashlib
import threading
from dataclasses import dataclass, field

NOT_REPEATED = 2
"""Deaths in a row after which such requests are not repeated."""
REFUSED = 5
"""Deaths in a row after which such requests are refused."""
REFUSAL = 30.0
"""Seconds after the last death, for which they are."""
TOGETHER = 0.04
"""Seconds; AppServers that die within them count once."""
FORGOTTEN = 600.0
"""Seconds after the last death, after which it counts no more."""
LASTING = 10.0
"""Seconds after which a visitor who leaves a stream has had an answer."""
MOST = 256
"""Kinds of requests that are remembered, at 2 KiB each; of more, those whose last death was first are forgotten."""
_LIVES = 16
"""Of a kind of requests, as many AppServers are remembered that died."""

Keys = tuple[bytes, ...]
"""What requests are told apart by, finer and finer."""


@dataclass
class _Deaths:
    """Of one kind of requests."""

    count: int = 0
    last: float = float("-inf")
    """the last death that counted"""
    before: float = float("-inf")
    """the one before it"""
    life: str = ""
    """who died last, and counted"""
    tried: float = float("-inf")
    """when one was let through although they are refused"""
    lives: list[str] = field(default_factory=list)
    """the last that died, each of which counts once"""


def keys(method: str, path: str, query: str) -> Keys:
    """The kinds to which a request belongs; only digests, for a query may hold a secret."""
    texts = [f"{method} {path}", f"{method} {path}?{query}"] if query else [f"{method} {path}"]
    return tuple(hashlib.blake2b(text.encode("latin-1", "replace"), digest_size=8).digest() for text in texts)


class Suspects:
    """Any thread may use it. As long as nothing died it is false, and nobody need ask."""

    def __init__(self) -> None:
        self._deaths: dict[bytes, _Deaths] = {}
        self._lock = threading.Lock()

    def __bool__(self) -> bool:
        return bool(self._deaths)

    def died(self, kinds: Keys, life: str, now: float, asked: float = float("inf")) -> int:
        """An AppServer, this life of it, died at work on such a request. How many have, in a row.

        `asked`: when the request was sent to it. 0 where that was before the last death of another one, up to five.
        """
        with self._lock:
            count = 0
            for kind in kinds:
                deaths = self._deaths.setdefault(kind, _Deaths())
                if life not in deaths.lives:
                    deaths.lives = [*deaths.lives[-_LIVES + 1 :], life]
                    if now - deaths.last >= FORGOTTEN:
                        deaths.count = 0
                    if now - deaths.last >= TOGETHER:
                        deaths.count += 1
                        deaths.before, deaths.last, deaths.life = deaths.last, now, life
                other = deaths.before if life == deaths.life else deaths.last
                if asked >= other or deaths.count >= REFUSED:
                    count = max(count, deaths.count)
            while len(self._deaths) > MOST:
                del self._deaths[min(self._deaths, key=lambda kind: self._deaths[kind].last)]
            return count

    def answered(self, kinds: Keys) -> None:
        """Such a request was answered: it is not what AppServers die of."""
        with self._lock:
            for kind in kinds:
                self._deaths.pop(kind, None)

    def refused(self, kinds: Keys, now: float) -> int:
        """How many died in a row, where such a request is refused now; else 0, and others are refused meanwhile."""
        with self._lock:
            found = [deaths for kind in kinds if (deaths := self._deaths.get(kind)) and deaths.count >= REFUSED]
            for deaths in found:
                if now - max(deaths.last, deaths.tried) < REFUSAL:
                    return deaths.count
            for deaths in found:
                deaths.tried = now
            return 0
