"""How empty a machine is that leaves (`lbctl drain --all`), in words and in a terminal."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from monitor.ctl.terminal import progress, times

EMPTY = "empty: it can be switched off"


def words(status: dict[str, Any]) -> str:
    """How far it is. Pure."""
    machine = status["machine"]
    if machine["empty"]:
        return EMPTY
    if not machine["sessions"]:
        return "no session is left; it is empty if none comes in the next moments"
    longest = machine["longest_session"]  # 0: an application that counts its sessions itself does not tell
    until = f", the last of them ends in {times.duration(longest)} at the latest" if longest else ""
    return f"{_sessions(machine)} left{until}"


def note(status: dict[str, Any]) -> str:
    """The line of `lbctl status` and `top`; empty for a machine that is alone and stays. Pure.

    How far it is comes first: a narrow screen cuts off the end.
    """
    machine = status.get("machine", {})
    number = machine.get("number")
    name = "this machine" if number is None else f"machine {number}"
    if machine.get("leaving"):
        return f"{name} is leaving: {words(status)} (set at run time; `lbctl undrain --all` takes it back)"
    return "" if number is None else f"{name}: {_sessions(machine)}"


def follow(
    get_status: Callable[[], dict[str, Any]],
    write: Callable[[str], object],
    pause: Callable[[float], object],
    clock: Callable[[], float] = time.monotonic,
    wall_clock: Callable[[], float] = time.time,
    bar: bool = True,
    limit: float = float("inf"),
) -> int:
    """Wait until a machine that leaves is empty; the exit status. The parameters are those of `progress.follow`.

    The drain does not depend on this. FAILED: it is not empty within `limit` seconds, or it does not leave any more.
    """
    shown, most = "", 0
    until = clock() + limit
    try:
        while True:
            status = get_status()
            machine = status["machine"]
            most = max(most, machine["sessions"])
            text = f"{progress.drawn(most - machine['sessions'], most)} {words(status)}"
            if bar and text != shown:
                shown = text
                write(f"\r\x1b[K{shown}")
            if status["stopping"]:
                return progress.given_up(write, shown, "the monitor is ending everything in order")
            if not machine["leaving"]:
                return progress.given_up(write, shown, "somebody has taken it back: this machine stays")
            if machine["empty"]:
                write("\n" if bar else f"this machine is {EMPTY}\n")
                return 0
            if clock() >= until:
                return progress.given_up(write, shown, _not_yet(machine, limit, wall_clock()))
            pause(progress.POLL_INTERVAL)
    except KeyboardInterrupt:
        write("\nthe machine goes on leaving; `lbctl status` shows it\n")
        return progress.INTERRUPTED
    except BaseException:
        if shown:
            write("\n")
        raise


def _sessions(machine: dict[str, Any]) -> str:
    count = machine["sessions"]
    return "1 session" if count == 1 else f"{count} sessions"


def _not_yet(machine: dict[str, Any], limit: float, now: float) -> str:
    longest = machine["longest_session"]
    last = times.moment(now + longest)
    until = f", of which the last can live until {last} if nobody uses it again" if longest else ""
    return f"not empty within {limit:g} s: {_sessions(machine)} left{until}; it goes on leaving (`lbctl status`)"
