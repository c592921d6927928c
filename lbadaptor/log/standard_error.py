"""Standard error as the log of this program, and what the log says of exceptions that nobody catches."""

from __future__ import annotations

import contextlib
import os
import sys
import threading
from collections.abc import Callable
from types import TracebackType

from lbadaptor.log import captured, descriptors, loggers, texts, wsgi_errors
from lbadaptor.log.captured import CapturedFile
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
    elif not isinstance(program.output, CapturedFile):
        with contextlib.suppress(OSError):  # no descriptor is left: the log stays sys.stderr
            descriptors.open_closed_standard_streams()
            program.output = Writer(2, prefix)
        _take_hooks()
    loggers.set_threshold(loggers.INFO)


def to_captured(descriptor: int = 2) -> None:
    """Make a captured file the log of this program. By default, standard error is that file.

    In a process that a template has forked, the template's file was the log. Standard output and standard error lead
    to the new file then, unless the application has replaced them. Raises OSError when no descriptor is left.
    """
    program = loggers.program
    before, program.output = program.output, CapturedFile(descriptor)
    program.prefix = ""  # the watcher puts one before each line
    if isinstance(before, CapturedFile):
        for number in (1, 2):
            if before.is_open_as(number):
                os.dup2(descriptor, number)
        before.close()
    else:
        sys.stdout = sys.__stdout__ = captured.stream(1, "<stdout>")  # type: ignore[misc]
        sys.stderr = sys.__stderr__ = captured.stream(2, "<stderr>")  # type: ignore[misc]
        _take_hooks()
    loggers.set_threshold(loggers.INFO)


def _take_hooks() -> None:
    sys.excepthook = _uncaught
    threading.excepthook = _uncaught_in_thread
    sys.unraisablehook = _unraisable


def set_json(json: bool) -> None:
    """Whether each record is an object from now on, or lines of text."""
    loggers.program.json = json


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
