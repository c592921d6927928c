"""Appends to `events.jsonl` in the run folder. Nothing else writes it.

It is in memory (tmpfs), like the rest of the run folder: nothing waits for a disk.
"""

from __future__ import annotations

import errno
import os
import time
from collections.abc import Callable
from pathlib import Path

import msgspec

from lbadaptor.log import texts
from monitor.contract.events import MAX_BYTES, NAME, OLDER_NAME, Happened, encode
from monitor.policy.journal import MOST_WAITING
from monitor.policy.problems import Problems

_MODE = 0o600
_STEP = 1e-5
"""Seconds between two lines, at least: who asks for what came after a line must miss none."""


class EventsFile:
    """`clock` returns unix seconds."""

    def __init__(self, folder: Path, problems: Problems, clock: Callable[[], float] = time.time) -> None:
        self._path = folder / NAME
        self._older = folder / OLDER_NAME
        self._problems = problems
        self._clock = clock
        self._unwritten: list[Happened] = []
        self._last = 0.0

    def keep(self) -> None:
        """Write what has happened. A failure is a problem, and the next call tries again. Never raises."""
        for happened in self._problems.journal.take():
            self._last = max(round(self._clock(), 6), self._last + _STEP)
            self._unwritten.append(msgspec.structs.replace(happened, time=round(self._last, 6)))
        if not self._unwritten:
            return
        try:
            self._append(b"".join(encode(happened) + b"\n" for happened in self._unwritten))
        except OSError as error:
            del self._unwritten[:-MOST_WAITING]
            why = f"{self._path} cannot be written: {texts.what(error)}; `lbctl events` does not show the newest"
            self._problems.begin(NAME, why)
        else:
            self._unwritten.clear()
            self._problems.end(NAME, f"{self._path} is written again")

    def _append(self, data: bytes) -> None:
        flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK
        descriptor = os.open(self._path, flags, _MODE)
        try:
            size = os.fstat(descriptor).st_size
            if size and size + len(data) > MAX_BYTES:
                os.rename(self._path, self._older)
                os.close(descriptor)
                descriptor = os.open(self._path, flags | os.O_EXCL, _MODE)
                size = 0
            if os.write(descriptor, data) < len(data):
                os.ftruncate(descriptor, size)  # a part of a line would spoil the next
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        finally:
            os.close(descriptor)
