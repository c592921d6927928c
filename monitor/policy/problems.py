"""What is wrong and lasts: said once when it begins, and once when it is over; `lbctl status` shows it meanwhile.

Pure, but for the log. One thread.
"""

from __future__ import annotations

from collections.abc import Iterator

from lbadaptor.log import logs
from monitor.contract.events import What
from monitor.policy.journal import Journal

log = logs.logger("lbmonitor")

MAX_PROBLEMS = 100
"""Problems that are remembered at once. One more is logged each time it is reported, and is not shown."""
MAX_LENGTH = 1000
"""Characters of a text."""


class Problems:
    """All that there are now, by name. A problem whose text changes is said again."""

    def __init__(self) -> None:
        self.journal = Journal()
        """where what begins and ends is noted, and whatever else happens"""
        self._texts: dict[str, str] = {}

    def __iter__(self) -> Iterator[str]:
        return iter(list(self._texts.values()))

    def __contains__(self, name: str) -> bool:
        return name in self._texts

    def begin(self, name: str, text: str, level: int = logs.ERROR) -> None:
        """It is so now. Said unless it was said already."""
        text = text[:MAX_LENGTH]
        if self._texts.get(name) == text:
            return
        if name not in self._texts:
            self.journal.note(What.PROBLEM_BEGUN, text)
        if name in self._texts or len(self._texts) < MAX_PROBLEMS:
            self._texts[name] = text
        log.log(level, "%s", text)

    def end(self, name: str, text: str = "") -> None:
        """It is over. Said, with `text`, where the problem was."""
        was = self._texts.pop(name, None)
        if was is not None:
            log.info("%s", text or f"over: {was}")
            self.journal.note(What.PROBLEM_ENDED, text or f"over: {was}")

    def say(self, name: str, problem: str, over: str = "") -> None:
        """`begin` with a text, `end` with an empty one."""
        if problem:
            self.begin(name, problem)
        else:
            self.end(name, over)
