"""The tracebacks of starts that failed: each is logged once, however many AppServers fail alike, and how often."""

from __future__ import annotations

from collections.abc import Sequence

from lbadaptor.log import logs, texts
from lbadaptor.log.once import Once

log = logs.logger("lbmonitor")

MAX_REMEMBERED = 20
"""Tracebacks that are remembered, by a number each."""
LINES = texts.TRACE_LINES + 1


class StartErrors:
    """Those since the last release. One thread."""

    def __init__(self) -> None:
        self._logged = Once(MAX_REMEMBERED)

    def log(self, name: str, trace: Sequence[str]) -> None:
        """Log it, a line for each line, unless an equal one was logged: from the same lines of the same files.

        `name` is the process that failed.
        """
        places = hash(tuple(line for line in trace if line.startswith('  File "')) or tuple(trace))
        if not trace or not self._logged.first(places):
            return
        for line in trace[:LINES]:
            log.error("%s: %s", name, texts.clean(line, texts.TRACE_WIDTH))

    def forget(self) -> None:
        """There is a new release: log them again."""
        self._logged.over()
