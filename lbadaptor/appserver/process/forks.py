"""Processes that the application forks: they close our descriptors, and end when they return from the application.

An application may fork in a request, at import, in its session count: by `os.fork`, `multiprocessing`, `os.forkpty`,
a `preexec_fn`. The child is a copy of the AppServer, with copies of its sockets and the one thread that forked. What
happens in it (`os.register_at_fork`):

- It closes its copies, and sends nothing: the parent still serves the callers at the other end.
- Signals that mean orders to an AppServer have their default effect: `multiprocessing`'s `terminate()` ends it.
- When the application returns in it (an answer, an exception, sys.exit()), it ends: `end`.

A lock that another thread held at the fork stays locked in the child, so nothing here takes one. A child that a C
library forks without these hooks keeps its copies.
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys
from collections.abc import Callable
from threading import get_ident
from typing import Any, NoReturn

from lbadaptor.log import logs, texts

log = logs.logger("lbadaptor.appserver")

_to_close: list[Callable[[], object]] = []
_handlers: dict[int, Callable[[int, Any], object]] = {}
_masks: dict[int, set[signal.Signals | int]] = {}
"""of each thread that forks, the signals that were blocked before"""
_is_child = False
_installed = False


def guard(close: Callable[[], object]) -> None:
    """Call `close` in every child that is forked from now on. It must take no lock, and send nothing."""
    global _installed
    if not _installed:
        os.register_at_fork(before=_before, after_in_parent=_after_in_parent, after_in_child=_after_in_child)
        _installed = True
    _to_close.append(close)


def release(close: Callable[[], object]) -> None:
    """Call it no more: its descriptors are closed in this process, too."""
    with contextlib.suppress(ValueError):
        _to_close.remove(close)


def handles(number: int, handler: Callable[[int, Any], object]) -> None:
    """This process handles a signal; in children it has its default effect again."""
    _handlers[number] = handler


def is_child() -> bool:
    """Whether the application has forked this process."""
    return _is_child


def belongs() -> None:
    """A template, not the application, has forked this process: it is an AppServer."""
    global _is_child
    _is_child = False


def end(error: BaseException | None) -> NoReturn:
    """End a child in which the application has returned: with an answer, which is not sent, or with an exception.

    What is registered with `atexit` is not called: it is the parent's.
    """
    status = 0
    with contextlib.suppress(BaseException):
        if isinstance(error, SystemExit):
            status = _status(error.code)
        elif error is not None:
            status = 1
            log.error("a process that the application forked in a request ends: %s", texts.of(error), exc_info=error)
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(BaseException):
            stream.flush()
    os._exit(status)


def _status(code: object) -> int:
    """The exit status, as the interpreter finds it (sys.exit)."""
    if code is None:
        return 0
    if isinstance(code, int):
        return code & 0xFF
    print(code, file=sys.stderr)
    return 1


def _before() -> None:
    """Block our signals: one that comes for the child waits until it has the default effect there."""
    if _handlers:
        _masks[get_ident()] = signal.pthread_sigmask(signal.SIG_BLOCK, _handlers)


def _after_in_parent() -> None:
    if (mask := _masks.pop(get_ident(), None)) is not None:
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)


def _after_in_child() -> None:
    global _is_child
    _is_child = True
    for number, handler in _handlers.items():
        with contextlib.suppress(Exception):
            if signal.getsignal(number) is handler:
                signal.signal(number, signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL)
    _handlers.clear()
    _after_in_parent()
    while _to_close:
        with contextlib.suppress(Exception):
            _to_close.pop()()
