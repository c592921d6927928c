"""The tracebacks of starts that failed: each is said once, however many AppServers fail alike, and however often."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence

from lbadaptor.log import logs, texts

log = logs.logger("lbmonitor")

MOST = 20
"""So many are remembered, by a number each."""
LINES = texts.TRACE_LINES + 1


class StartErrors:
    """What was said already, since the last release. One thread."""

    def __init__(self) -> None:
        self._said: deque[int] = deque(maxlen=MOST)

    def say(self, who: str, trace: Sequence[str]) -> None:
        """A line of the log for each line, unless an equal one was said: from the same lines of the same files."""
        places = hash(tuple(line for line in trace if line.startswith('  File "')) or tuple(trace))
        if not trace or places in self._said:
            return
        self._said.append(places)
        for line in trace[:LINES]:
            log.error("%s: %s", who, texts.clean(line, texts.TRACE_WIDTH))

    def forget(self) -> None:
        """There is a new release: say them again."""
        self._said.clear()
