"""Where the lines of the log go: a text stream, or a descriptor that is written to without waiting for a reader."""

from __future__ import annotations

import contextlib
import errno
import os
from collections import deque
from threading import RLock
from typing import Protocol, TextIO

from lbadaptor.log import descriptors, texts

BACKLOG = 64 * 1024
"""Bytes that wait for a reader, at most. The lines beyond them are lost and counted."""

_PIECE = 16 * 1024
"""Bytes that are added to the backlog, or lost, at a time."""
_NO_READER = (errno.EAGAIN, errno.EPIPE, errno.ECONNRESET)


class Output(Protocol):
    """Where lines go. Never raises."""

    journal: bool
    """each line begins with its priority"""

    @property
    def backlog(self) -> bool:
        """Whether something waits for a reader."""

    def write(self, data: bytes) -> None: ...

    def flush(self) -> None: ...


class TextStream:
    """A text stream that another program part has made, such as mod_wsgi's `sys.stderr`. Never raises."""

    journal = False
    backlog = False

    def __init__(self, stream: TextIO | None) -> None:
        self._stream = stream

    def write(self, data: bytes) -> None:
        if self._stream is not None:
            with contextlib.suppress(Exception):
                self._stream.write(data.decode())
                self._stream.flush()

    def flush(self) -> None:
        """Does nothing: nothing is kept back."""


class Writer:
    """Writes to a private duplicate of a descriptor. Never raises; any thread may use it.

    Does not block when nobody reads. A regular file is waited for: the kernel does not tell whether a disk answers.
    """

    def __init__(self, descriptor: int, prefix: str) -> None:
        """Raises OSError when no descriptor is left."""
        self.prefix = prefix
        self._original = descriptor
        self._reset()
        self._open()
        self.journal = os.environ.get("JOURNAL_STREAM") == f"{self._identity[0]}:{self._identity[1]}"

    def _reset(self) -> None:
        self._lock = RLock()
        self._waiting: deque[bytes] = deque()
        self._size = 0
        self._lost = 0
        self._error: OSError | None = None
        """why the last attempt to write failed"""
        self._draining = False

    after_fork = _reset
    """In the child: another thread may have held the lock, and the parent writes what waits."""

    def _open(self) -> None:
        found = os.fstat(self._original)
        self._identity = found.st_dev, found.st_ino
        self._descriptor, self._put = descriptors.private(self._original, found.st_mode)

    def write(self, data: bytes) -> None:
        """Write whole lines."""
        for begin in range(0, len(data), _PIECE):
            self._write(data[begin : begin + _PIECE])

    def _write(self, data: bytes) -> None:
        with self._lock:
            self._drain()
            if self._lost or self._size + len(data) > BACKLOG:
                self._lost += data.count(b"\n") or 1
                return
            self._waiting.append(data)
            self._size += len(data)
            self._drain()

    @property
    def backlog(self) -> bool:
        """Whether something waits for a reader."""
        return bool(self._waiting or self._lost)

    def flush(self) -> None:
        """Try again to write what waits. Costs next to nothing when nothing waits."""
        if self.backlog:
            with self._lock:
                self._drain()

    def _drain(self) -> None:
        if self._draining:
            return  # called by a signal's handler within the other call, which writes these lines next
        self._draining = True
        try:
            while self._waiting or self._lost:
                if not self._waiting:
                    self._waiting.append(self._notice())
                    self._size, self._lost = len(self._waiting[0]), 0
                data = self._waiting[0]
                written = self._write_some(data)
                self._size -= written
                if written < len(data):
                    self._waiting[0] = data[written:]
                else:
                    self._waiting.popleft()
            self._error = None
        except OSError as error:
            self._error = error
        except Exception as error:
            self._error = OSError(0, texts.of(error))
        finally:
            self._draining = False

    def _notice(self) -> bytes:
        """The line that says how many lines were lost."""
        error = self._error
        reason = "nobody read them" if error is None or error.errno in _NO_READER else texts.of_os_error(error)
        mark = "<4>" if self.journal else ""
        return f"{mark}{self.prefix}{texts.count(self._lost, 'line')} of the log lost: {reason}\n".encode()

    def _write_some(self, data: bytes) -> int:
        """Write a part of the data, and return its length. Raises OSError."""
        try:
            found = os.fstat(self._descriptor)
            same = (found.st_dev, found.st_ino) == self._identity
        except OSError:
            same = False
        if not same:  # the application has closed it, and its number may be that of a visitor's connection by now
            found = os.fstat(self._original)
            if (found.st_dev, found.st_ino) != self._identity:
                raise OSError(errno.EBADF, "the application has closed the log's descriptor")
            self._open()
        return self._put(data)
