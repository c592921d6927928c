"""Keys that are pressed while a command draws a full screen."""

from __future__ import annotations

import contextlib
import os
import select
import signal
import sys
import termios
import time
import tty
from collections.abc import Iterator
from types import FrameType


def pressed(seconds: float) -> str:
    """Wait for so long at most, and until a key is pressed: that key; "": none, or standard input is no terminal.

    "q" where the terminal has gone.
    """
    if not _is_terminal():
        time.sleep(seconds)
        return ""
    if not select.select([sys.stdin], [], [], seconds)[0]:
        return ""
    try:
        return os.read(sys.stdin.fileno(), 64).decode("utf-8", "replace") or "q"
    except OSError:
        return "q"


@contextlib.contextmanager
def taken() -> Iterator[None]:
    """Keys take effect without Enter, and are not shown. The terminal is as before at the end, after a signal too.

    Ctrl-C counts even where a shell without job control has SIGINT ignored. Main thread alone.
    """
    ends = {signal.SIGINT: signal.default_int_handler, signal.SIGTERM: _end, signal.SIGHUP: _end}
    handlers = {number: signal.signal(number, end) for number, end in ends.items()}
    try:
        with at_once():
            yield
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)


@contextlib.contextmanager
def at_once() -> Iterator[None]:
    """Keys take effect without Enter, and are not shown. Signals are the caller's."""
    before = termios.tcgetattr(sys.stdin) if _is_terminal() else None
    try:
        if before is not None:
            tty.setcbreak(sys.stdin, termios.TCSADRAIN)
        yield
    finally:
        if before is not None:
            with contextlib.suppress(termios.error):  # it has gone
                termios.tcsetattr(sys.stdin, termios.TCSADRAIN, before)


def _is_terminal() -> bool:
    """Of standard input; Python has none where it was closed."""
    return sys.stdin is not None and sys.stdin.isatty()


def _end(number: int, frame: FrameType | None) -> None:
    raise SystemExit(128 + number)
