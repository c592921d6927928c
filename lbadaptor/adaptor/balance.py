"""Load balancing: which AppServer gets a new visitor. Pure.

The load is what this Apache process knows of it. For `FRESH` seconds that is what the AppServer reported itself
(`LB-Load`, on every answer). After that it is the session count in address.text, and the requests that this process
has in flight.
"""

from __future__ import annotations

import hashlib
import math
import random
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from lbadaptor.contract.address import Entry

FRESH = 2.0
"""Seconds for which the load counts that an AppServer reported."""
AVOIDANCE = 1.0
"""Seconds for which an AppServer is avoided that accepts no connection or does not answer; doubled each time."""
MAX_AVOIDANCE = 5.0
"""Seconds."""


@dataclass
class Load:
    """What this process knows of one AppServer. Any thread may use it."""

    avoided_until: float = float("-inf")
    """monotonic seconds; until then it is not chosen if there is another one"""
    said_dying: int = -1
    """The serial of the table when it answered DYING. That counts until a newer table comes."""
    threads: int = 1
    """requests that it works on at once: by the settings, until it has reported the number"""
    _reported: str = ""
    _reported_at: float = float("-inf")
    _misses: int = 0
    _in_flight: list[None] = field(default_factory=list)
    """one item for each request: to append or pop one is atomic and needs no lock"""
    _lock: threading.Lock = field(default_factory=threading.Lock, repr=False)

    @property
    def in_flight(self) -> int:
        """Requests of this process that are at this AppServer now."""
        return len(self._in_flight)

    def begin(self) -> None:
        self._in_flight.append(None)

    def end(self) -> None:
        self._in_flight.pop()

    def missed(self, now: float) -> None:
        """It accepted no connection, or did not answer in time: avoid it for a moment, each time for longer."""
        with self._lock:
            if now >= self.avoided_until:  # requests that failed at the same time are one miss
                self._misses += 1
                self.avoided_until = now + min(MAX_AVOIDANCE, AVOIDANCE * 2 ** min(self._misses - 1, 10))

    def answered(self, report: str, now: float) -> None:
        """It answers. `report`: its LB-Load, `in-flight/threads/sessions`."""
        self._reported = report
        self._reported_at = now
        if self._misses:
            with self._lock:
                self._misses = 0
                self.avoided_until = float("-inf")

    def measure(self, entry: Entry, now: float) -> tuple[float, float, int]:
        """Its load, to be compared: smaller is less. `now`: monotonic seconds."""
        weight, threads = _weight(entry), self.threads
        try:
            in_flight, own_threads, sessions = map(int, self._reported.split("/"))
            if own_threads > 0:
                threads = own_threads
                if now - self._reported_at <= FRESH:
                    return in_flight / threads * 100 / weight, sessions / weight, self.in_flight
        except (ValueError, ArithmeticError):
            pass  # it has reported nothing, or nonsense
        return self.in_flight / threads * 100 / weight, entry.sessions / weight, 0


Measure = Callable[[Entry], tuple[float, ...]]
Policy = Callable[[Sequence[Entry], Measure], Entry]
"""Picks one of a non-empty sequence of AppServers for a visitor without a session."""


def _weight(entry: Entry) -> int:
    """Entries of weight 0 reach a policy only if all of them have it: then they are equal."""
    return entry.weight or 100


def random_one(entries: Sequence[Entry], measure: Measure) -> Entry:
    """A random AppServer, by weight."""
    return random.choices(entries, [_weight(entry) for entry in entries])[0]


def less_loaded(entries: Sequence[Entry], measure: Measure) -> Entry:
    """The less loaded of two random ones, so that many adaptors do not all choose the one that looks idle.

    An AppServer of half the weight is a candidate half of the time. Otherwise a new one, which is idle, would get all
    visitors at once.
    """
    weights = [*map(_weight, entries)]
    highest = max(weights)
    if min(weights) < highest:
        entries = [entry for entry in entries if random.random() * highest < _weight(entry)]
    count = len(entries)
    place, further = int(random.random() * count), 1 + int(random.random() * (count - 1))
    one, other = entries[place], entries[(place + further) % count]
    first, second = measure(one), measure(other)
    if first == second:
        return random.choice((one, other))
    return one if first < second else other


POLICIES: dict[str, Policy] = {"less-loaded": less_loaded, "random": random_one}


def same_for(visitor: str, entries: Sequence[Entry]) -> Entry:
    """The AppServer for a visitor whose holder is gone: the same one for all their parallel requests.

    Weighted rendezvous hashing: when one of the entries leaves, only its own visitors get another AppServer.
    """

    def score(entry: Entry) -> float:
        digest = hashlib.blake2b(f"{visitor} {entry.identity}".encode(), digest_size=8).digest()
        # With 52 bits, number + 0.5 is exact as a float, and the quotient is never 0 or 1.
        return _weight(entry) / -math.log(((int.from_bytes(digest, "big") >> 12) + 0.5) / 2**52)

    return max(entries, key=score)
