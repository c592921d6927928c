"""Which requests are at work in an AppServer, since when, and how long the others were. Pure.

A request is at work while a thread serves it: from when the thread takes it until the application's `close()` has
returned. It has waited for the thread before.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable
from typing import Generic, TypeVar

Task = TypeVar("Task")

_STEPS = "1", "1.2", "1.5", "1.8", "2.2", "2.7", "3.3", "3.9", "4.7", "5.6", "6.8", "8.2"  # E12 of IEC 60063
BOUNDS = tuple(float(f"{step}e{power}") for power in range(-5, 2) for step in _STEPS)
"""Seconds, from 10 µs to 82 s. No bound is more than a quarter above the one before."""
_NAMES = [*(f"{bound:g}" for bound in BOUNDS), "+Inf"]


class Worker(Generic[Task]):
    """What one thread serves. It alone writes here; any thread may read."""

    __slots__ = ("since", "task")

    def __init__(self) -> None:
        self.task: Task | None = None
        """None: it serves nothing"""
        self.since = 0.0
        """when it began to serve the task, in monotonic seconds; set before `task` is"""


class Durations:
    """How many requests were at work for how long. One thread at a time may call `add`."""

    def __init__(self) -> None:
        self._counts = [0] * (len(BOUNDS) + 1)

    def add(self, seconds: float) -> None:
        self._counts[bisect_left(BOUNDS, seconds)] += 1

    def told(self) -> dict[str, int]:
        """The bound that they kept within (seconds; "+Inf": none), and how many did; without zeros."""
        return {name: count for name, count in zip(_NAMES, self._counts, strict=True) if count}


def oldest(workers: Iterable[Worker[Task]], now: float, most: int) -> list[tuple[Task, float]]:
    """The tasks that are at work, and for how many seconds: `most` of them, the oldest first."""
    found = []
    for worker in workers:
        task = worker.task  # first: so a task that has just begun is never told with another one's beginning
        if task is not None:
            found.append((task, max(0.0, now - worker.since)))
    return sorted(found, key=lambda one: -one[1])[:most]
