"""Errors in the gateway's own work, such as MemoryError: they are logged, and cost a connection at most."""

from __future__ import annotations

import contextlib
import sys
from collections import deque
from time import monotonic, sleep

from lbadaptor.log import logs

log = logs.logger("lbadaptor.appserver")

PERIOD, MAX_REPORTS = 10.0, 3
"""The same error is logged MAX_REPORTS times within PERIOD seconds at most."""
PAUSE = 0.05
"""Seconds that a thread sleeps after an error, so that an error that lasts does not keep a processor busy."""


class OwnErrors:
    """Logs errors of the gateway. Any thread may use it."""

    def __init__(self) -> None:
        self._logged: dict[str, deque[float]] = {}
        """by error, when it was logged last"""

    def report(self, what: str) -> None:
        """Log the exception that is being handled, and sleep for PAUSE. Never raises."""
        with contextlib.suppress(BaseException):
            now = monotonic()
            times = self._logged.setdefault(f"{what}: {sys.exc_info()[0]}", deque(maxlen=MAX_REPORTS))
            if len(times) < MAX_REPORTS or now - times[0] >= PERIOD:
                times.append(now)
                log.exception("%s", what)
        with contextlib.suppress(BaseException):
            sleep(PAUSE)
