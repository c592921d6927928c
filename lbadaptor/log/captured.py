"""The file that takes what an AppServer says: its standard output and its standard error.

The monitor opens it (`monitor.contract.captured`), and the AppServer inherits the descriptors 1 and 2. The file is a
regular one, so no write waits for a reader, and what was written outlives the process. The monitor's watcher forwards
the lines and gives what it has read back to the file system: it punches a hole (fallocate(2)). The AppServer does so
itself where nobody reads for long.
"""

from __future__ import annotations

import contextlib
import errno
import io
import os
import resource
import sys
from typing import Any

from lbadaptor.log import descriptors, texts

MOST_UNREAD = 8 << 20
"""Bytes that an AppServer leaves in its file, at most, where nobody reads them."""
KEPT = 1 << 20
"""Bytes that are left then: the newest."""
PAGE = 4096
"""Holes end at multiples of this: what is less is zeroed, but not given back."""
_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_KEEP_SIZE, _PUNCH_HOLE = 1, 2
"""linux/falloc.h"""


class CapturedFile:
    """An `Output` (`lbadaptor.log.writer`) that appends to the file. Never raises; any thread may use it.

    Each line begins with its priority, which the watcher forwards. `descriptor` is duplicated. Raises OSError when no
    descriptor is left.
    """

    journal = True
    backlog = False

    def __init__(self, descriptor: int) -> None:
        self._identity = _identity(descriptor)
        self._descriptor = descriptors.duplicate(descriptor)
        limit = resource.getrlimit(resource.RLIMIT_FSIZE)[0]
        self._largest = sys.maxsize if limit == resource.RLIM_INFINITY else limit // 2
        """bytes, holes included, at which the file begins anew: at the limit nothing could be written"""
        self._lost = 0
        self._why = ""

    def close(self) -> None:
        """Another one takes its place."""
        if self.is_open_as(self._descriptor):
            os.close(self._descriptor)

    def is_open_as(self, descriptor: int) -> bool:
        """Whether a descriptor leads to the file: the application may have closed it, and its number may be that of a
        visitor's connection by now."""
        try:
            return _identity(descriptor) == self._identity
        except OSError:
            return False

    def write(self, data: bytes) -> None:
        """Append whole lines. Where the disk is full they are lost, and counted."""
        lines = data.count(b"\n") or 1
        try:
            _append(self._found(), self._notice() + data)
        except OSError as error:
            self._lost += lines
            self._why = texts.of_os_error(error)
        else:
            self._lost = 0

    def flush(self) -> None:
        """Keep the file small where nobody reads it, and say what was lost. Costs next to nothing."""
        with contextlib.suppress(OSError):
            descriptor = self._found()
            found = os.fstat(descriptor)
            if found.st_size > self._largest or (
                found.st_blocks * 512 > MOST_UNREAD and not punch(descriptor, found.st_size - KEPT)
            ):
                os.ftruncate(descriptor, 0)
            if self._lost:
                _append(descriptor, self._notice())
                self._lost = 0

    def _found(self) -> int:
        """A descriptor of the file. Raises OSError when the application has closed all of them."""
        for descriptor in (self._descriptor, 2, 1):
            if self.is_open_as(descriptor):
                return descriptor
        raise OSError(errno.EBADF, "the application has closed the log's descriptor")

    def _notice(self) -> bytes:
        return f"<4>{texts.count(self._lost, 'line')} of the log lost: {self._why}\n".encode() if self._lost else b""


class _Raw(io.FileIO):
    """One of the standard streams. A full disk does not make `print` fail: what is written then is lost."""

    def write(self, data: Any, /) -> int:
        try:
            return super().write(data)
        except OSError as error:
            if error.errno not in _FULL:
                raise
            return memoryview(data).nbytes


def stream(descriptor: int, name: str) -> io.TextIOWrapper:
    """`sys.stdout` or `sys.stderr` of an AppServer. A line is written as soon as it ends, bytes at once."""
    raw = _Raw(descriptor, "wb", closefd=False)
    raw.name = name
    made = io.TextIOWrapper(raw, "utf-8", "backslashreplace", line_buffering=True)
    made.mode = "w"  # type: ignore[misc]
    return made


def _append(descriptor: int, data: bytes) -> None:
    """Write all of the data to a file that is open with O_APPEND. Raises OSError."""
    while data:
        data = data[os.write(descriptor, data) :]


def punch(descriptor: int, end: int) -> bool:
    """Give the file's bytes before `end` back to the file system; the file keeps its size. Raises OSError.

    False: the file system cannot do that.
    """
    number = _fallocate(descriptor, end - end % PAGE) if end >= PAGE else 0
    if number not in (0, errno.EOPNOTSUPP, errno.ENOSYS):
        raise OSError(number, os.strerror(number))
    return not number


def _fallocate(descriptor: int, end: int) -> int:
    """Punch a hole from the beginning to `end`. The error's number; 0: done."""
    try:
        import ctypes  # Apache's processes import this module, too, and do without it
    except ImportError:
        return errno.ENOSYS
    libc = ctypes.CDLL(None, use_errno=True)
    done = libc.fallocate(descriptor, _PUNCH_HOLE | _KEEP_SIZE, ctypes.c_long(0), ctypes.c_long(end)) == 0
    return 0 if done else ctypes.get_errno()


def _identity(descriptor: int) -> tuple[int, int]:
    found = os.fstat(descriptor)
    return found.st_dev, found.st_ino
