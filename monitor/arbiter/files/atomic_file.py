"""Files that are replaced as a whole: a temporary file is written beside the old one, and renamed."""

from __future__ import annotations

import contextlib
import os
import time
from pathlib import Path

MIN_MTIME_STEP = 1_000
"""Nanoseconds between the mtimes of two writes: a reader that looks at the mtime alone has to see each write."""


class AtomicFile:
    """A reader sees the old content or the new one, never a part of it.

    `group` is a number; None leaves the writer's own. No fsync, because run folders are tmpfs. Each write gets a
    later mtime than the one before, even if the clock was set back.
    """

    def __init__(self, path: Path, mode: int, group: int | None = None) -> None:
        self._path = path
        self._mtime = 0
        with contextlib.suppress(OSError):
            self._mtime = path.stat().st_mtime_ns
        self._temporary = path.with_name(f".{path.name}.new")
        self._mode = mode
        self._group = group
        self._stamp: tuple[int, ...] | None = None

    def write(self, data: bytes) -> None:
        """Replace the content. Raises OSError; the old file stays then."""
        mtime = max(time.time_ns(), self._mtime + MIN_MTIME_STEP)
        descriptor = os.open(self._temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, self._mode)
        with open(descriptor, "wb", buffering=0) as file:
            left = memoryview(data)
            while left:
                left = left[file.write(left) :]
            if self._group is not None:
                os.fchown(descriptor, -1, self._group)
            os.fchmod(descriptor, self._mode)
            os.utime(descriptor, ns=(mtime, mtime))
            stamp = _stamp(os.fstat(descriptor))
        os.rename(self._temporary, self._path)
        self._stamp = stamp
        self._mtime = mtime

    def intact(self) -> bool:
        """Whether the file is as it was written last: not deleted, not edited, its mode and group not changed."""
        try:
            return _stamp(os.stat(self._path)) == self._stamp
        except OSError:
            return False


def _stamp(status: os.stat_result) -> tuple[int, ...]:
    return status.st_ino, status.st_mtime_ns, status.st_mode, status.st_gid
