"""How far a release is, shown in a terminal: a bar, and what it is waiting for."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

BAR = 20
"""Characters."""
LOOK_AGAIN = 0.5
"""Seconds between two looks at the status."""
INTERRUPTED = 130
"""The exit status after Ctrl-C, as shells have it."""


def line(status: dict[str, Any]) -> str:
    """One line on the release in a status."""
    done, of = status["replaced"]
    filled = BAR * done // of if of else BAR
    waiting = f" · {status['release']}" if status["release"] else ""
    return f"[{'#' * filled}{'.' * (BAR - filled)}] {done} of {of} replaced{waiting}"


def follow(look: Callable[[], dict[str, Any]], say: Callable[[str], object], pause: Callable[[float], object]) -> int:
    """Show a release until it is over, or Ctrl-C; the exit status. The release goes on without anybody looking.

    `look` gives the monitor's status, and may raise; `say` writes to a terminal.
    """
    shown = ""
    try:
        while True:
            status = look()
            if line(status) != shown:
                shown = line(status)
                say(f"\r\x1b[K{shown}")
            if not status["release"]:
                break
            pause(LOOK_AGAIN)
    except KeyboardInterrupt:
        say("\nthe release goes on; `lbctl status` shows it\n")
        return INTERRUPTED
    except BaseException:
        say("\n")
        raise
    say("".join(["\n", *(f"ended: {who}\n" for who in status["ended"])]))
    return 0
