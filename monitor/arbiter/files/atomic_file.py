"""Files that are written whole or not at all: by a temporary file beside them, and rename."""

from __future__ import annotations

import contextlib
import os
import time
from pathlib import Path

LEAST_STEP = 1_000
"""Nanoseconds between the mtimes of two writes: a reader that looks at nothing else must see each."""


class AtomicFile:
    """`group`: a number; None leaves the writer's own. No fsync: run folders are tmpfs.

    Every write gets an mtime of its own, later than the one before, also when the clock was set back.
    """

    def __init__(self, path: Path, mode: int, group: int | None = None) -> None:
        self._path = path
        self._mtime = 0
        with contextlib.suppress(OSError):
            self._mtime = path.stat().st_mtime_ns
        self._beside = path.with_name(f".{path.name}.new")
        self._mode = mode
        self._group = group
        self._stamp: tuple[int, ...] | None = None

    def write(self, data: bytes) -> None:
        """Write it anew. Raises OSError; the file before stays whole then."""
        mtime = max(time.time_ns(), self._mtime + LEAST_STEP)
        descriptor = os.open(self._beside, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, self._mode)
        with open(descriptor, "wb", buffering=0) as file:
            left = memoryview(data)
            while left:
                left = left[file.write(left) :]
            if self._group is not None:
                os.fchown(descriptor, -1, self._group)
            os.fchmod(descriptor, self._mode)
            os.utime(descriptor, ns=(mtime, mtime))
            stamp = _stamp(os.fstat(descriptor))
        os.rename(self._beside, self._path)
        self._stamp = stamp
        self._mtime = mtime

    def intact(self) -> bool:
        """Whether the file is the one that was written last: not deleted, not edited, not locked away by its mode."""
        try:
            return _stamp(os.stat(self._path)) == self._stamp
        except OSError:
            return False


def _stamp(status: os.stat_result) -> tuple[int, ...]:
    return status.st_ino, status.st_mtime_ns, status.st_mode, status.st_gid
