"""The log of all programs: loggers of our own, and a writer that never raises and never blocks.

The application shares our processes. It may close, replace or configure `logging`, `sys.stderr` and descriptor 2, and
whoever reads standard error may be stopped: neither may cost a line of ours, an exception in our threads, or a moment
of the arbiter's. So these loggers have the calls of `logging`, but share nothing with it. What they say goes

- in an AppServer and in the monitor, after `to_stderr`, to a private duplicate of standard error;
- elsewhere (in Apache, as CGI) to what `sys.stderr` was when this package was imported: mod_wsgi writes that into
  Apache's error log. Nothing below a warning goes there.
"""

from __future__ import annotations

import atexit
import contextlib
import errno
import fcntl
import io
import os
import signal
import stat
import sys
import threading
import time
from collections import deque
from collections.abc import Callable
from logging import LogRecord
from select import PIPE_BUF, POLLOUT, poll
from socket import MSG_DONTWAIT, MSG_NOSIGNAL
from socket import socket as Socket
from threading import RLock
from types import TracebackType
from typing import Protocol, TextIO

from lbadaptor.log import texts

DEBUG, INFO, WARNING, ERROR, CRITICAL = 10, 20, 30, 40, 50
"""Levels, as `logging` has them."""
BACKLOG = 64 * 1024
"""Bytes that wait for somebody to read them, at most; what is said beyond them is counted."""
MESSAGE = 2000
"""Characters of one line, at most."""
PATIENCE = 1.0
"""Seconds for which the application's own writing to `wsgi.errors` waits for a slow reader."""

_PIECE = 16 * 1024
_LONGEST_BEGUN = 8 * 1024
_LOWEST = 512, 64, 3
"""The private duplicate's number, at least: code that closes all descriptors it knows of begins at 3."""
_PRIORITY = {DEBUG: 7, INFO: 6, WARNING: 4, ERROR: 3, CRITICAL: 2}
"""The journal's (sd-daemon(3))."""
_HOW = MSG_DONTWAIT | MSG_NOSIGNAL
_NOBODY = (errno.EAGAIN, errno.EPIPE, errno.ECONNRESET)


class Handler(Protocol):
    """Whoever hears what is logged; `logging.Handler` is one."""

    @property
    def level(self) -> int: ...

    def handle(self, record: LogRecord, /) -> object: ...


class Logger:
    """Has the calls of `logging.Logger`. They never raise, whatever the arguments are; any thread may use them."""

    def __init__(self, name: str) -> None:
        self.name = name

    def log(self, level: int, text: str, *args: object, exc_info: object = None) -> None:
        if level < threshold():
            return
        with contextlib.suppress(Exception):  # there is nobody left who could be told
            error = exc_info if isinstance(exc_info, BaseException) else sys.exc_info()[1] if exc_info else None
            raised = (type(error), error, error.__traceback__) if error else None
            record = LogRecord(self.name, level, __file__, 0, text, args, raised)
            for handler in tuple(handlers):
                if level >= handler.level:
                    handler.handle(record)

    def debug(self, text: str, *args: object, exc_info: object = None) -> None:
        self.log(DEBUG, text, *args, exc_info=exc_info)

    def info(self, text: str, *args: object, exc_info: object = None) -> None:
        self.log(INFO, text, *args, exc_info=exc_info)

    def warning(self, text: str, *args: object, exc_info: object = None) -> None:
        self.log(WARNING, text, *args, exc_info=exc_info)

    def error(self, text: str, *args: object, exc_info: object = None) -> None:
        self.log(ERROR, text, *args, exc_info=exc_info)

    def critical(self, text: str, *args: object, exc_info: object = None) -> None:
        self.log(CRITICAL, text, *args, exc_info=exc_info)

    def exception(self, text: str, *args: object) -> None:
        """An error, with the traceback of the exception that is handled just now."""
        self.log(ERROR, text, *args, exc_info=True)


class _Output(Protocol):
    """Where lines go. Never raises."""

    journal: bool
    """each line begins with its priority"""

    def write(self, data: bytes, patient: bool = False) -> None: ...

    def flush(self) -> None: ...


class _Stream:
    """A text stream that somebody else has made."""

    journal = False

    def __init__(self, stream: TextIO | None) -> None:
        self._stream = stream

    def write(self, data: bytes, patient: bool = False) -> None:
        if self._stream is not None:
            with contextlib.suppress(Exception):
                self._stream.write(data.decode())
                self._stream.flush()

    def flush(self) -> None:
        """It keeps nothing back."""


class _Descriptor:
    """A private duplicate of a descriptor. Never raises; blocks for nobody who does not read.

    Only a regular file is waited for: the kernel does not say whether a disk answers.
    """

    def __init__(self, descriptor: int, prefix: str) -> None:
        self.prefix = prefix
        self._original = descriptor
        self._renew()
        self._open()
        self.journal = os.environ.get("JOURNAL_STREAM") == f"{self._identity[0]}:{self._identity[1]}"

    def _renew(self) -> None:
        """After a fork, too: another thread may have held the lock, and what waits is the parent's to write."""
        self._lock = RLock()
        self._waiting: deque[bytes] = deque()
        self._size = 0
        self._lost = 0
        self._why: OSError | None = None
        self._draining = False

    after_fork = _renew

    def _open(self) -> None:
        found = os.fstat(self._original)
        self._identity = found.st_dev, found.st_ino
        self._descriptor, self._put = _private(self._original, found.st_mode)

    def write(self, data: bytes, patient: bool = False) -> None:
        """Say whole lines, or `patient`ly what an application says: as much of it as somebody reads in a second."""
        for begin in range(0, len(data), _PIECE):
            self._write(data[begin : begin + _PIECE], patient)

    def _write(self, data: bytes, patient: bool) -> None:
        until = time.monotonic() + PATIENCE if patient else 0.0
        while True:
            with self._lock:
                self._drain()
                if not self._lost and self._size + len(data) <= BACKLOG:
                    self._waiting.append(data)
                    self._size += len(data)
                    self._drain()
                    return
                left = until - time.monotonic()
                if self._lost or left <= 0 or self._why is None or self._why.errno != errno.EAGAIN:
                    self._lost += data.count(b"\n") or 1
                    return
            waiting = poll()
            waiting.register(self._descriptor, POLLOUT)
            waiting.poll(left * 1000)

    def flush(self) -> None:
        """Try again to write what waits. Costs next to nothing where nothing does."""
        if self._waiting or self._lost:
            with self._lock:
                self._drain()

    def _drain(self) -> None:
        if self._draining:
            return  # a signal's handler has come between: what it says follows
        self._draining = True
        try:
            while self._waiting or self._lost:
                if not self._waiting:
                    self._waiting.append(self._notice())
                    self._size, self._lost = len(self._waiting[0]), 0
                data = self._waiting[0]
                written = self._some(data)
                self._size -= written
                if written < len(data):
                    self._waiting[0] = data[written:]
                else:
                    self._waiting.popleft()
            self._why = None
        except OSError as error:
            self._why = error
        except Exception as error:
            self._why = OSError(0, texts.of(error))
        finally:
            self._draining = False

    def _notice(self) -> bytes:
        why = self._why
        said = "nobody read them" if why is None or why.errno in _NOBODY else texts.of_os_error(why)
        mark = "<4>" if self.journal else ""
        return f"{mark}{self.prefix}{self._lost} lines of the log were lost: {said}\n".encode()

    def _some(self, data: bytes) -> int:
        """Write a part of it. Raises OSError."""
        try:
            found = os.fstat(self._descriptor)
            same = (found.st_dev, found.st_ino) == self._identity
        except OSError:
            same = False
        if not same:  # somebody has closed it, and its number may be another's by now: a visitor's connection
            found = os.fstat(self._original)
            if (found.st_dev, found.st_ino) != self._identity:
                raise OSError(errno.EBADF, "the application has closed the log's descriptor")
            self._open()
        return self._put(data)


def _private(descriptor: int, mode: int) -> tuple[int, Callable[[bytes], int]]:
    """A duplicate, and how to write to it without waiting for a reader. Raises OSError.

    O_NONBLOCK belongs to the open file description, which is shared with the application and with whoever started
    us: so a pipe or a terminal is opened again. Where that is not allowed (a pipe that root made, and another user),
    a pipe is written to by splice(2), a terminal in pieces that fit.
    """
    if stat.S_ISSOCK(mode):
        own = _high(descriptor)
        return own, _sending(own)
    terminal = os.isatty(descriptor)
    if not terminal and not stat.S_ISFIFO(mode):
        own = _high(descriptor)
        return own, lambda data: os.write(own, data)
    try:
        flags = os.O_WRONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
        opened = os.open(f"/proc/self/fd/{descriptor}", flags)
    except OSError:
        own = _high(descriptor)
        return own, _fitting(own) if terminal else _splicing(own)
    try:
        own = _high(opened)
    finally:
        os.close(opened)
    return own, lambda data: _unbroken(lambda: os.write(own, data))


def _high(descriptor: int) -> int:
    """A duplicate with a high number. Raises OSError."""
    for lowest in _LOWEST:
        with contextlib.suppress(OSError):
            return fcntl.fcntl(descriptor, fcntl.F_DUPFD_CLOEXEC, lowest)
    return os.dup(descriptor)


def _sending(descriptor: int) -> Callable[[bytes], int]:
    sender = Socket(fileno=descriptor)
    atexit.register(sender.detach)  # never closed: by then the number may be another's
    return lambda data: sender.send(data, _HOW)


def _splicing(descriptor: int) -> Callable[[bytes], int]:
    """By way of a pipe of our own, since splice(2) can be told not to wait, and write(2) cannot."""
    own: tuple[int, int] | None = None
    owner = 0

    def put(data: bytes) -> int:
        nonlocal own, owner
        if own is None or owner != os.getpid():  # it was forked: that one is its parent's
            own, owner = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK), os.getpid()
        reader, writer = own
        length = os.write(writer, data[:PIPE_BUF])
        moved = 0
        try:
            moved = _unbroken(lambda: os.splice(reader, descriptor, length, flags=os.SPLICE_F_NONBLOCK))
        finally:
            if moved < length:
                os.read(reader, length - moved)
        return moved

    return put


def _fitting(descriptor: int) -> Callable[[bytes], int]:
    """As much as a terminal is ready for: at least 256 bytes when it is (WAKEUP_CHARS in Linux's tty layer)."""

    def put(data: bytes) -> int:
        ready = poll()
        ready.register(descriptor, POLLOUT)
        if not ready.poll(0):
            raise BlockingIOError(errno.EAGAIN, os.strerror(errno.EAGAIN))
        return os.write(descriptor, data[:256])

    return put


def _unbroken(write: Callable[[], int]) -> int:
    """A write to a pipe. Where nobody reads any more, that is an error and no SIGPIPE, whatever the application made
    of that signal. Raises OSError."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGPIPE])
    try:
        return write()
    except BrokenPipeError:
        signal.sigtimedwait([signal.SIGPIPE], 0)
        raise
    finally:
        if signal.SIGPIPE not in before:
            signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGPIPE])


class _Lines:
    """The handler: a line for each record, and one for each line of its traceback."""

    level = 0

    def __init__(self, prefix: str, output: _Output) -> None:
        self.prefix = prefix
        self.output = output

    def handle(self, record: LogRecord, /) -> None:
        try:
            text = record.getMessage()
        except Exception:
            text = str(record.msg)
        lines = [texts.clean(text, MESSAGE)]
        if record.exc_info and record.exc_info[1] is not None:
            lines += texts.trace(record.exc_info[1])
        mark = f"<{_PRIORITY.get(record.levelno, 6)}>" if self.output.journal else ""
        said = "".join(f"{mark}{self.prefix}{line}\n" for line in lines)
        self.output.write(said.encode("utf-8", "backslashreplace"))


class Errors(io.TextIOBase):
    """`wsgi.errors` (PEP 3333): it goes where the log goes, whatever the application makes of `sys.stderr`.

    A line goes out as soon as it ends, whole; one that does not end, with the next `flush` of the log.
    """

    encoding = "utf-8"
    errors = "backslashreplace"

    def __init__(self) -> None:
        super().__init__()
        self.begun: dict[int, str] = {}
        """by thread; 8 KiB each, at most"""

    def writable(self) -> bool:
        return True

    def write(self, text: str, /) -> int:
        thread = threading.get_ident()
        lines, end, begun = (self.begun.pop(thread, "") + text).rpartition("\n")
        if len(begun) > _LONGEST_BEGUN:
            lines, end, begun = lines + end + begun, "", ""
        if begun:
            self.begun[thread] = begun
        if lines or end:
            _lines.output.write((lines + end).encode("utf-8", "backslashreplace"), patient=True)
        return len(text)

    def flush(self) -> None:
        self._flush(threading.get_ident())

    def flush_all(self) -> None:
        """What any thread has begun. Waits for no reader."""
        for thread in tuple(self.begun):
            self._flush(thread, patient=False)

    def _flush(self, thread: int, patient: bool = True) -> None:
        if begun := self.begun.pop(thread, ""):
            _lines.output.write(begun.encode("utf-8", "backslashreplace"), patient)

    def close(self) -> None:
        """It is everybody's."""


_lines = _Lines("", _Stream(sys.stderr))
errors = Errors()
handlers: list[Handler] = [_lines]
_threshold = WARNING


def logger(name: str) -> Logger:
    """A logger; two of the same name do the same."""
    return Logger(name)


def threshold() -> int:
    """The level below which nothing is said."""
    return _threshold


def set_threshold(level: int) -> None:
    """Say nothing below this level from now on."""
    global _threshold
    _threshold = level


def to_stderr(prefix: str) -> None:
    """This program's log is standard error; every line begins with `prefix`. Nothing below INFO is said.

    Call it first of all. What this process fails of without being caught goes there, too.
    """
    _lines.prefix = prefix
    if isinstance(_lines.output, _Descriptor):
        _lines.output.prefix = prefix
    else:
        _have_standard_streams()
        with contextlib.suppress(OSError):  # no descriptor is left: then to sys.stderr, as it is
            _lines.output = _Descriptor(2, prefix)
        sys.excepthook = _uncaught
        threading.excepthook = _uncaught_in_thread
        sys.unraisablehook = _unraisable
    set_threshold(INFO)


def flush() -> None:
    """Try again to write what nobody has read yet. Never raises, never blocks; costs next to nothing."""
    if errors.begun:
        errors.flush_all()
    _lines.output.flush()


def guarded(work: Callable[[], object], log: Logger) -> Callable[[], None]:
    """What a thread is to do; if that raises, the log says so, whatever the application made of Python's hooks."""

    def run() -> None:
        try:
            work()
        except SystemExit:
            raise
        except BaseException:
            log.exception("the thread %s has ended", threading.current_thread().name)

    return run


def _have_standard_streams() -> None:
    """What is opened next must not get the number of one that is closed, and be written to as if it were that."""
    for descriptor in (0, 1, 2):
        try:
            os.fstat(descriptor)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # gets the lowest number that is free


def _uncaught(kind: type[BaseException], error: BaseException, _: TracebackType | None) -> None:
    _log.error("it ends: %s", texts.of(error), exc_info=error)


def _uncaught_in_thread(told: threading.ExceptHookArgs) -> None:
    if told.exc_type is not SystemExit:
        name = told.thread.name if told.thread is not None else "?"
        _log.error("the thread %s has ended", name, exc_info=told.exc_value)


def _unraisable(told: sys.UnraisableHookArgs) -> None:
    with contextlib.suppress(Exception):
        what = told.err_msg or "Exception ignored in"
        _log.error("%s: %s", what, texts.clean(repr(told.object)), exc_info=told.exc_value)


def _after_fork() -> None:
    errors.begun.clear()  # the parent says them
    if isinstance(_lines.output, _Descriptor):
        _lines.output.after_fork()


os.register_at_fork(after_in_child=_after_fork)
_log = logger("lbadaptor")
