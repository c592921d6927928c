"""Since when the machine's clock has gone evenly. Pure: the times are given.

A machine that begins with a wrong clock, goes back to a snapshot or sleeps has a clock that jumps.
"""

from __future__ import annotations

JUMP = 100
"""Milliseconds by which the clock may be off against the monotonic clock from one look to the next: some is due to
pauses between the two readings, and to NTP, which slews it."""


class EvenClock:
    """`since`: unix time in ms, as of the last look."""

    def __init__(self) -> None:
        self.since = 0
        self._offset = float("-inf")

    def look(self, now: float, wall_ms: int) -> None:
        """`now`: monotonic seconds, read just before or after `wall_ms`, unix time."""
        offset = wall_ms - now * 1000
        if abs(offset - self._offset) > JUMP:
            self.since = wall_ms
        self._offset = offset
