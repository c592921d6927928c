"""How far a release is, shown in a terminal: a bar, and what it is waiting for."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from typing import Any

BAR = 20
"""Characters."""
POLL_INTERVAL = 0.5
"""Seconds between two requests for the status."""
FAILED_AFTER = 10.0
"""Seconds: a release whose replacements have not started for so long has failed. Each was tried again meanwhile."""
FAILS = "failed: "
"""The status of a release begins with this while a replacement does not start."""
FAILED = 1
"""The exit status."""
INTERRUPTED = 130
"""The exit status after Ctrl-C, as shells have it."""

_SERVING = "OK", "DYING", "FAILING"


def line(status: dict[str, Any]) -> str:
    """One line on the release in a status."""
    done, of = status["replaced"]
    waiting = f" · {status['release']}" if status["release"] else ""
    return f"{drawn(done, of)} {done} of {of} replaced{waiting}"


def drawn(done: int, of: int) -> str:
    """The bar."""
    filled = BAR * done // of if of else BAR
    return f"[{'#' * filled}{'.' * (BAR - filled)}]"


def writer(bar: bool) -> Callable[[str], object]:
    """What writes the progress; without a bar, what went wrong goes to standard error."""

    def write(text: str) -> None:
        apart = not bar and text.startswith("lbctl: ")
        print(text, end="", flush=True, file=sys.stderr if apart else sys.stdout)

    return write


def generation(status: dict[str, Any], slot: int) -> int:
    """Of the AppServer in a slot; 0: there is none."""
    return next((int(one["generation"]) for one in status["appservers"] if one["slot"] == slot), 0)


def of_slot(status: dict[str, Any], slot: int, old: int) -> dict[str, Any]:
    """A status in which the replacement of one AppServer looks like a release. `old`: its generation.

    It is replaced when it takes no new visitors any more and no other is on its way.
    """
    servers = status["appservers"]
    here = [one for one in servers if one["slot"] == slot and one["generation"] == old]
    leaves = not here or here[0]["state"] in ("DYING", "STOPPING")
    waiting = next((_on_its_way(one) for one in servers if one["state"] in ("STARTING", "BACKOFF")), "")
    if not waiting and not leaves:
        waiting = "its replacement starts"
    return {**status, "release": waiting, "replaced": [int(not waiting), 1], "ended": []}


def _on_its_way(server: dict[str, Any]) -> str:
    if server["why"]:
        return f"{FAILS}slot {server['slot']}: {server['why']}"
    return f"slot {server['slot']} is {server['state']}"


def follow(
    get_status: Callable[[], dict[str, Any]],
    write: Callable[[str], object],
    pause: Callable[[float], object],
    clock: Callable[[], float] = time.monotonic,
    bar: bool = True,
    limit: float = float("inf"),
) -> int:
    """Wait for the end of a release; the exit status: 0 all are replaced, FAILED, INTERRUPTED.

    The release does not depend on this. It has failed when replacements have not started for FAILED_AFTER seconds.
    `get_status` returns the monitor's status; what it raises is raised here. `write` writes to standard output.
    `bar`: draw a progress bar, in a terminal. `limit`: seconds to wait at most.
    """
    shown = ""
    until = clock() + limit
    failing_since: float | None = None
    replaced: object = None
    try:
        while True:
            status = get_status()
            now = clock()
            if bar and line(status) != shown:
                shown = line(status)
                write(f"\r\x1b[K{shown}")
            if status.get("stopping"):
                return given_up(write, shown, "the monitor is ending everything in order")
            if not status["release"]:
                break
            if status["replaced"] != replaced:
                replaced, failing_since = status["replaced"], None
            if status["release"].startswith(FAILS):
                failing_since = now if failing_since is None else failing_since
                if now - failing_since >= FAILED_AFTER:
                    return given_up(write, shown, f"the release has {status['release']}; {_goes_on(status)}")
            if now >= until:
                return given_up(write, shown, f"not done within {limit:g} s: {status['release']}; {_goes_on(status)}")
            pause(POLL_INTERVAL)
    except KeyboardInterrupt:
        write("\nthe release goes on; `lbctl status` shows it\n")
        return INTERRUPTED
    except BaseException:
        if shown:
            write("\n")
        raise
    done, of = status["replaced"]
    end = "\n" if bar else f"{done} of {of} replaced\n"
    write("".join([end, *(f"ended: {appserver}\n" for appserver in status["ended"])]))
    return 0 if done == of else FAILED


def _goes_on(status: dict[str, Any]) -> str:
    serving = any(server["state"] in _SERVING for server in status.get("appservers", [{"state": "OK"}]))
    so_far = "the old AppServers serve on, and" if serving else "no AppServer serves;"
    return f"{so_far} the monitor goes on trying (`lbctl status`)"


def given_up(write: Callable[[str], object], shown: str, why: str) -> int:
    """Say why it is waited for no longer, below the line that is `shown`. FAILED."""
    newline = "\n" if shown else ""
    write(f"{newline}lbctl: {why}\n")
    return FAILED
