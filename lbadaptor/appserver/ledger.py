"""The ledger: which sessions live in this process, by the application's own session cookie. Pure.

A session counts from the moment the application sets its cookie until the application deletes it or nobody
has used it for the idle time. Where there is affinity without session, what counts are visitors, from their
last request on. Times are monotonic seconds, given by the caller. Any thread may use it.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Iterable

OVERLAP = 60.0
"""Seconds for which a replaced value is still known: parallel requests may carry it."""


class Ledger:
    """Live sessions, in the order of their last use, so that a sweep looks at nothing but what has ended.

    `most`: how many are known at most; beyond that the one longest unused is forgotten. None: any number.
    """

    def __init__(self, idle: float, most: int | None = None) -> None:
        self._idle = idle
        self._most = most
        self._last_use: OrderedDict[str, float] = OrderedDict()
        self._replaced: OrderedDict[str, float] = OrderedDict()
        self._sweep_at = float("inf")
        """nothing ends before"""
        self._lock = threading.Lock()

    def use(self, values: Iterable[str], now: float) -> bool:
        """A request brought these values: whether one is of a living session, which is now used."""
        known = False
        with self._lock:
            if now >= self._sweep_at:
                self._sweep(now)
            for value in values:
                if value in self._last_use:
                    self._last_use[value] = now
                    self._last_use.move_to_end(value)
                    known = True
                elif value in self._replaced:
                    known = True
        return known

    def assign(self, value: str, brought: Iterable[str], now: float) -> None:
        """The application set its cookie, on a request that brought these values, which it replaces."""
        with self._lock:
            for old in brought:
                if old != value and self._last_use.pop(old, None) is not None:
                    self._replaced[old] = now
                    self._replaced.move_to_end(old)
            self._last_use[value] = now
            self._last_use.move_to_end(value)
            self._replaced.pop(value, None)
            self._sweep_at = min(self._sweep_at, now + min(self._idle, OVERLAP))
            if self._most is not None and len(self._last_use) > self._most:
                self._last_use.popitem(last=False)

    def end(self, values: Iterable[str]) -> None:
        """The application deleted these sessions."""
        with self._lock:
            for value in values:
                self._last_use.pop(value, None)
                self._replaced.pop(value, None)

    def abandon(self) -> None:
        """In a forked child: the lock may be held by a thread that is not there."""
        self._lock = threading.Lock()

    def clear(self) -> None:
        """No session is known any more."""
        with self._lock:
            self._last_use.clear()
            self._replaced.clear()

    def count(self, now: float) -> int:
        """How many sessions live."""
        with self._lock:
            self._sweep(now)
            return len(self._last_use)

    def longest(self, now: float) -> float:
        """Seconds until the last of today's sessions ends if nobody uses it again; 0 when there is none."""
        with self._lock:
            self._sweep(now)
            if not self._last_use:
                return 0.0
            return self._last_use[next(reversed(self._last_use))] + self._idle - now

    def _sweep(self, now: float) -> None:
        self._sweep_at = float("inf")
        for values, limit in ((self._last_use, self._idle), (self._replaced, OVERLAP)):
            while values:
                oldest = next(iter(values))
                if now - values[oldest] < limit:
                    self._sweep_at = min(self._sweep_at, values[oldest] + limit)
                    break
                del values[oldest]
