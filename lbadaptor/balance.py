"""Which AppServer gets a visitor. Pure: what is known of the load, and the policies.

The load is what this Apache process knows: the AppServer's own word (`LB-Load`, on every answer) for as
long as it is fresh, then the session count in address.text and the requests that this process itself has
in flight.
"""

from __future__ import annotations

import hashlib
import random
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from lbadaptor.address import Entry

FRESH = 2.0
"""Seconds for which an AppServer's own word on its load is believed."""


@dataclass
class Load:
    """What this process knows of one AppServer. Any thread may use it."""

    in_flight: int = 0
    """requests that this process has there now"""
    said_dying: int = -1
    """the serial of the table in force when it said DYING: heeded until a newer table comes"""
    _reported: tuple[float, int] = (0.0, 0)
    _reported_at: float = float("-inf")
    _lock: threading.Lock = field(default_factory=threading.Lock, repr=False)

    def begin(self) -> None:
        with self._lock:
            self.in_flight += 1

    def end(self) -> None:
        with self._lock:
            self.in_flight -= 1

    def report(self, value: str, now: float) -> None:
        """Take an `LB-Load` header, `in-flight/threads/sessions`; what is not one is passed over."""
        try:
            in_flight, threads, sessions = map(int, value.split("/"))
            self._reported = (in_flight / threads, sessions)
        except (ValueError, ArithmeticError):
            return
        self._reported_at = now

    def measure(self, entry: Entry, now: float) -> tuple[float, float, int]:
        """The smaller, the less loaded. `now` is the monotonic time in seconds."""
        if now - self._reported_at <= FRESH:
            busy, sessions = self._reported
            return busy, sessions / entry.weight if entry.weight else sessions, self.in_flight
        return float(self.in_flight), entry.sessions / entry.weight if entry.weight else entry.sessions, 0


Measure = Callable[[Entry], tuple[float, ...]]
Policy = Callable[[Sequence[Entry], Measure], Entry]
"""One of a non-empty sequence of AppServers, for a visitor without a session."""


def random_one(entries: Sequence[Entry], measure: Measure) -> Entry:
    """A random AppServer: the proposal's way."""
    return random.choice(entries)


def less_loaded(entries: Sequence[Entry], measure: Measure) -> Entry:
    """The less loaded of two random ones, so that many adaptors do not all run to the one that looks idle."""
    if len(entries) < 3:
        one, other = entries[0], entries[-1]
    else:
        one, other = random.sample(entries, 2)
    first, second = measure(one), measure(other)
    if first == second:
        return random.choice((one, other))
    return one if first < second else other


POLICIES: dict[str, Policy] = {"less-loaded": less_loaded, "random": random_one}


def same_for(visitor: str, entries: Sequence[Entry]) -> Entry:
    """The AppServer for a visitor whose holder is gone: one and the same for all parallel requests.

    Highest random weight: when one of the entries goes, only its own visitors get another.
    """
    return max(
        entries, key=lambda entry: hashlib.blake2b(f"{visitor} {entry.identity}".encode(), digest_size=8).digest()
    )
