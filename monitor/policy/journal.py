"""What has happened and is not written down yet. Pure: the arbiter puts the time to it, and writes it."""

from __future__ import annotations

from collections import deque

from monitor.contract.events import Happened, What
from monitor.policy.life import Life

MOST_WAITING = 1000
"""Events that wait to be written; the oldest are forgotten."""


class Journal:
    """Events in their order. One thread."""

    def __init__(self) -> None:
        self._waiting: deque[Happened] = deque(maxlen=MOST_WAITING)

    def note(self, what: What, why: str = "", slot: int | None = None) -> None:
        """Something that is about no AppServer; about a slot, perhaps."""
        self._waiting.append(Happened(what, why=why, slot=slot))

    def note_life(self, what: What, life: Life, why: str = "", lost: int = 0) -> None:
        """Something that is about an AppServer."""
        self._waiting.append(
            Happened(
                what,
                slot=life.slot,
                generation=life.generation,
                pid=life.pid,
                state=life.state.value,
                why=why,
                sessions=life.sessions,
                lost=lost,
            )
        )

    def take(self) -> list[Happened]:
        """All that happened since the last call."""
        taken = list(self._waiting)
        self._waiting.clear()
        return taken
