"""Says once what repeats, and counts it. Pure.

What repeats is a line, or several in a row, such as a traceback. While the lines go on as they did before, they are
held back: either they complete the repetition and are counted, or they are said after all. None is lost, and their
order stays.
"""

from __future__ import annotations

from collections import deque

from monitor.watcher.lines.line import Said

LONGEST = 64
"""Lines of what repeats, at most."""
INTERVAL = 10.0
"""Seconds after which what still repeats is said in full again."""


class Repeats:
    """Of one AppServer. `now`: monotonic seconds."""

    def __init__(self) -> None:
        self._began = 0.0
        """when what repeats was said in full"""
        self._said: deque[Said] = deque(maxlen=LONGEST)
        """what was said last"""
        self._number = 0
        """of lines that were said"""
        self._last: dict[Said, int] = {}
        """what the number was when a line was said last"""
        self._cycle: tuple[Said, ...] = ()
        """what repeats"""
        self._held: list[Said] = []
        """its beginning, once more"""
        self._count = 0

    def take(self, line: Said, now: float) -> list[Said]:
        """What to say now that a line has come."""
        said: list[Said] = []
        if now - self._began > INTERVAL:
            said += self.end()
            self._began = now
        if self._cycle:
            if line == self._cycle[len(self._held)]:
                self._hold(line)
                return said
            said += self._say_held()
        distance = self._number - self._last.get(line, self._number - LONGEST - 1)
        if distance < len(self._said):
            self._cycle = tuple(self._said)[-1 - distance :]
            self._hold(line)
            return said
        self._note(line)
        return [*said, line]

    def quiet(self, now: float) -> list[Said]:
        """What to say where no line has come for a while."""
        if self._held or (self._count and now - self._began > INTERVAL):
            return self.end()
        return []

    def end(self) -> list[Said]:
        """What to say where nothing follows."""
        said = self._say_held()
        self._forget()
        return said

    def _forget(self) -> None:
        """What comes now repeats nothing that was said."""
        self._said.clear()
        self._last.clear()

    def _hold(self, line: Said) -> None:
        self._held.append(line)
        if len(self._held) == len(self._cycle):
            self._held.clear()
            self._count += 1

    def _say_held(self) -> list[Said]:
        """The number of repetitions, and what was held back of the one that was not completed."""
        said: list[Said] = []
        if self._count * len(self._cycle) == 1:
            self._held.append(self._cycle[0])  # it is as short as its number
        elif self._count:
            self._forget()
            what = "line" if len(self._cycle) == 1 else f"{len(self._cycle)} lines"
            often = "once" if self._count == 1 else f"{self._count} times"
            said.append(Said(min(line.priority for line in self._cycle), f"(the last {what} came {often} more)"))
        for line in self._held:
            self._note(line)
        said += self._held
        self._cycle, self._held, self._count = (), [], 0
        return said

    def _note(self, line: Said) -> None:
        """It is said."""
        self._said.append(line)
        self._number += 1
        self._last[line] = self._number
        if len(self._last) > 4 * LONGEST:
            self._last = {one: number for one, number in self._last.items() if number > self._number - LONGEST}
