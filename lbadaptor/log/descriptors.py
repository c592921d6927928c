"""Private duplicates of a descriptor, and how to write to them without waiting for a reader.

O_NONBLOCK belongs to the open file description, which is shared with the application and with the program that
started this one. So it is not set there. Linux only.
"""

from __future__ import annotations

import atexit
import contextlib
import errno
import fcntl
import os
import signal
import stat
from collections.abc import Callable
from select import PIPE_BUF, POLLOUT, poll
from socket import MSG_DONTWAIT, MSG_NOSIGNAL
from socket import socket as Socket

Put = Callable[[bytes], int]
"""Writes some of the bytes and returns how many. Raises OSError; BlockingIOError where none can be written now."""

_LOWEST_NUMBERS = 512, 64, 3
"""Numbers of the duplicate, at least: code that closes all descriptors that it knows of begins at 3."""
_SEND_FLAGS = MSG_DONTWAIT | MSG_NOSIGNAL
_TERMINAL_PIECE = 256
"""Bytes that a terminal takes when it is ready, at least (WAKEUP_CHARS in Linux's tty layer)."""


def private(descriptor: int, mode: int) -> tuple[int, Put]:
    """A duplicate of a descriptor whose `st_mode` is `mode`, and how to write to it. Raises OSError.

    A pipe or a terminal is opened again. Where that is not allowed (a pipe that root made, and another user), a pipe
    is written to by splice(2), and a terminal in pieces that fit. A regular file is written to as it is: the kernel
    does not tell whether a disk answers.
    """
    if stat.S_ISSOCK(mode):
        own = duplicate(descriptor)
        return own, _by_send(own)
    terminal = os.isatty(descriptor)
    if not terminal and not stat.S_ISFIFO(mode):
        own = duplicate(descriptor)
        return own, lambda data: os.write(own, data)
    try:
        flags = os.O_WRONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
        opened = os.open(f"/proc/self/fd/{descriptor}", flags)
    except OSError:
        own = duplicate(descriptor)
        return own, _in_pieces(own) if terminal else _by_splice(own)
    try:
        own = duplicate(opened)
    finally:
        os.close(opened)
    return own, lambda data: _without_sigpipe(lambda: os.write(own, data))


def duplicate(descriptor: int) -> int:
    """A duplicate with a high number, which no child inherits. Raises OSError."""
    for lowest in _LOWEST_NUMBERS:
        with contextlib.suppress(OSError):
            return fcntl.fcntl(descriptor, fcntl.F_DUPFD_CLOEXEC, lowest)
    return os.dup(descriptor)


def open_closed_standard_streams() -> None:
    """Open /dev/null for each of the descriptors 0, 1 and 2 that is closed. Raises OSError.

    Else the next file or socket that is opened gets such a number, and is written to as if it were that stream.
    """
    for descriptor in (0, 1, 2):
        try:
            os.fstat(descriptor)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # gets the lowest number that is free


def _by_send(descriptor: int) -> Put:
    sender = Socket(fileno=descriptor)
    atexit.register(sender.detach)  # never closed: by then the number may belong to another file
    return lambda data: sender.send(data, _SEND_FLAGS)


def _by_splice(descriptor: int) -> Put:
    """Write by way of a pipe of this process: splice(2) can be told not to wait, and write(2) cannot."""
    own: tuple[int, int] | None = None
    owner = 0

    def put(data: bytes) -> int:
        nonlocal own, owner
        if own is None or owner != os.getpid():  # after a fork the pipe is shared with the parent
            own, owner = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK), os.getpid()
        reader, writer = own
        length = os.write(writer, data[:PIPE_BUF])
        moved = 0
        try:
            moved = _without_sigpipe(lambda: os.splice(reader, descriptor, length, flags=os.SPLICE_F_NONBLOCK))
        finally:
            if moved < length:
                os.read(reader, length - moved)
        return moved

    return put


def _in_pieces(descriptor: int) -> Put:
    """Write as much as a terminal is ready for."""

    def put(data: bytes) -> int:
        ready = poll()
        ready.register(descriptor, POLLOUT)
        if not ready.poll(0):
            raise BlockingIOError(errno.EAGAIN, os.strerror(errno.EAGAIN))
        return os.write(descriptor, data[:_TERMINAL_PIECE])

    return put


def _without_sigpipe(write: Callable[[], int]) -> int:
    """Write to a pipe. When its reader has gone, this raises BrokenPipeError and sends no SIGPIPE, whatever the
    application does with that signal. Raises OSError."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGPIPE])
    try:
        return write()
    except BrokenPipeError:
        signal.sigtimedwait([signal.SIGPIPE], 0)
        raise
    finally:
        if signal.SIGPIPE not in before:
            signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGPIPE])
