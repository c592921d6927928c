"""Standard error as the log of this program, and what the log says of exceptions that nobody catches."""

from __future__ import annotations

import contextlib
import os
import sys
import threading
from collections.abc import Callable
from types import TracebackType

from lbadaptor.log import descriptors, loggers, texts, wsgi_errors
from lbadaptor.log.writer import Writer

_log = loggers.logger("lbadaptor")


def to_stderr(prefix: str) -> None:
    """Make standard error the log of this program. Every line begins with `prefix`; nothing below INFO is written.

    Call it before anything else. The log also gets the exceptions that nobody catches.
    """
    program = loggers.program
    program.prefix = prefix
    if isinstance(program.output, Writer):
        program.output.prefix = prefix
    else:
        with contextlib.suppress(OSError):  # no descriptor is left: the log stays sys.stderr
            descriptors.open_closed_standard_streams()
            program.output = Writer(2, prefix)
        sys.excepthook = _uncaught
        threading.excepthook = _uncaught_in_thread
        sys.unraisablehook = _unraisable
    loggers.set_threshold(loggers.INFO)


def flush() -> None:
    """Try again to write what nobody has read yet. Never raises, never blocks; costs next to nothing."""
    if wsgi_errors.stream.unfinished:
        wsgi_errors.stream.flush_all()
    loggers.program.output.flush()


def guarded(work: Callable[[], object], log: loggers.Logger) -> Callable[[], None]:
    """The target of a thread: does the work, and logs an exception that ends it, whatever the application has done to
    Python's hooks."""

    def run() -> None:
        try:
            work()
        except SystemExit:
            raise
        except BaseException:
            log.exception("the thread %s has ended", threading.current_thread().name)

    return run


def _uncaught(kind: type[BaseException], error: BaseException, _: TracebackType | None) -> None:
    _log.error("it ends: %s", texts.of(error), exc_info=error)


def _uncaught_in_thread(raised: threading.ExceptHookArgs) -> None:
    if raised.exc_type is not SystemExit:
        name = raised.thread.name if raised.thread is not None else "?"
        _log.error("the thread %s has ended", name, exc_info=raised.exc_value)


def _unraisable(raised: sys.UnraisableHookArgs) -> None:
    with contextlib.suppress(Exception):
        message = raised.err_msg or "Exception ignored in"
        _log.error("%s: %s", message, texts.clean(repr(raised.object)), exc_info=raised.exc_value)


def _after_fork() -> None:
    if isinstance(loggers.program.output, Writer):
        loggers.program.output.after_fork()


os.register_at_fork(after_in_child=_after_fork)
