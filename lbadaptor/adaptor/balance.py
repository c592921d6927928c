"""Which AppServer gets a visitor. Pure: what is known of the load, and the policies.

The load is what this Apache process knows: the AppServer's own word (`LB-Load`, on every answer) for as
long as it is fresh, then the session count in address.text and the requests that this process itself has
in flight.
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
"""Seconds for which an AppServer's own word on its load is believed."""
AVOIDANCE = 1.0
"""Seconds for which one that takes no connection, or does not answer in time, is avoided; doubled each time."""
LONGEST_AVOIDANCE = 5.0
"""Seconds, at most."""


@dataclass
class Load:
    """What this process knows of one AppServer. Any thread may use it."""

    avoided_until: float = float("-inf")
    """monotonic seconds; till then it is not chosen while there is another"""
    said_dying: int = -1
    """the serial of the table in force when it said DYING: heeded until a newer table comes"""
    threads: int = 1
    """what it works on at once, by the settings, until it has said so itself"""
    _reported: str = ""
    _reported_at: float = float("-inf")
    _misses: int = 0
    _in_flight: list[None] = field(default_factory=list)
    """one thing for each request: to add or take one is atomic, and needs no lock"""
    _lock: threading.Lock = field(default_factory=threading.Lock, repr=False)

    @property
    def in_flight(self) -> int:
        """Requests that this process has there now."""
        return len(self._in_flight)

    def begin(self) -> None:
        self._in_flight.append(None)

    def end(self) -> None:
        self._in_flight.pop()

    def missed(self, now: float) -> None:
        """It took no connection, or did not answer in time: avoid it for a moment, a longer one each time."""
        with self._lock:
            if now >= self.avoided_until:  # requests that failed along with others are one miss
                self._misses += 1
                self.avoided_until = now + min(LONGEST_AVOIDANCE, AVOIDANCE * 2 ** min(self._misses - 1, 10))

    def answered(self, report: str, now: float) -> None:
        """It answers, and says how it is: `in-flight/threads/sessions`, as in `LB-Load`."""
        self._reported = report
        self._reported_at = now
        if self._misses:
            with self._lock:
                self._misses = 0
                self.avoided_until = float("-inf")

    def measure(self, entry: Entry, now: float) -> tuple[float, float, int]:
        """The smaller, the less loaded. `now` is the monotonic time in seconds."""
        weight, threads = _weight(entry), self.threads
        try:
            in_flight, said_threads, sessions = map(int, self._reported.split("/"))
            if said_threads > 0:
                threads = said_threads
                if now - self._reported_at <= FRESH:
                    return in_flight / threads * 100 / weight, sessions / weight, self.in_flight
        except (ValueError, ArithmeticError):
            pass  # it says nothing
        return self.in_flight / threads * 100 / weight, entry.sessions / weight, 0


Measure = Callable[[Entry], tuple[float, ...]]
Policy = Callable[[Sequence[Entry], Measure], Entry]
"""One of a non-empty sequence of AppServers, for a visitor without a session."""


def _weight(entry: Entry) -> int:
    """Weight 0 has been minded before a policy is asked: where all have it, they are equals."""
    return entry.weight or 100


def random_one(entries: Sequence[Entry], measure: Measure) -> Entry:
    """A random AppServer, by weight: the proposal's way."""
    return random.choices(entries, [_weight(entry) for entry in entries])[0]


def less_loaded(entries: Sequence[Entry], measure: Measure) -> Entry:
    """The less loaded of two random ones, so that many adaptors do not all run to the one that looks idle.

    One of half the weight is among the candidates half of the time: a newcomer, which is idle, would else
    get everybody at once.
    """
    highest = max(map(_weight, entries))
    entries = [entry for entry in entries if random.random() * highest < _weight(entry)]
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

    Weighted rendezvous hashing: when one of the entries goes, only its own visitors get another.
    """

    def score(entry: Entry) -> float:
        digest = hashlib.blake2b(f"{visitor} {entry.identity}".encode(), digest_size=8).digest()
        # Of 52 bits, each number and a half is a float of its own, and none is 1.
        return _weight(entry) / -math.log(((int.from_bytes(digest, "big") >> 12) + 0.5) / 2**52)

    return max(entries, key=score)
