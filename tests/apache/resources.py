"""What a test with real processes takes of the machine, and gives back: ports, a folder, time, processes."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import signal
import socket
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

TIMEOUT = 30.0
"""Seconds that anything here may take; nothing takes nearly as long."""


def eventually(what: str, look: Callable[[], Any], timeout: float = TIMEOUT) -> Any:
    """What `look` returns as soon as that is true."""
    deadline = time.monotonic() + timeout
    pause = 0.005
    while not (found := look()):
        assert time.monotonic() < deadline, f"not within {timeout:.0f} s: {what}"
        time.sleep(pause)
        pause = min(1.2 * pause, 0.025)  # to look takes processor time from what is waited for
    return found


class StoodStill(Exception):
    """For longer than a short time that the test goes by, and what it asserts is not promised then."""


def unless_it_stands_still(attempt: Callable[[], None]) -> None:
    """Do what goes by a short time of the test's; again, if the machine stood still for longer (StoodStill)."""
    for _ in range(2):
        with contextlib.suppress(StoodStill):
            attempt()
            return
    attempt()


def ended(pid: int) -> bool:
    """Whether all its threads are dead, though perhaps nobody has reaped it: its files and sockets are closed."""
    try:
        state, *fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return True
    threads = int(fields[16])
    return state == "Z" and threads <= 1


def kill(pid: int, number: int = signal.SIGKILL) -> None:
    """Send a signal that it dies of, and wait until it has: the kernel takes its time to close its sockets."""
    os.kill(pid, number)
    eventually(f"{pid} is dead", lambda: ended(pid))


def listens(address: tuple[str, int]) -> bool:
    """Whether something accepts connections there."""
    with contextlib.suppress(ConnectionError), socket.create_connection(address, TIMEOUT):
        return True
    return False


_EXITING = 0x4
"""PF_EXITING of a process's flags (proc_pid_stat(5))."""


def _is_killed(process: Path) -> bool:
    """Whether SIGKILL is under way to it."""
    pending = re.findall(r"^S(?:ig|hd)Pnd:\s+(\w+)$", (process / "status").read_text(), re.MULTILINE)
    return any(int(signals, 16) >> (signal.SIGKILL - 1) & 1 for signals in pending)


@contextlib.contextmanager
def short_folder() -> Iterator[Path]:
    """A folder in /tmp that everybody may enter, and whose name is short enough for sockets."""
    folder = Path(tempfile.mkdtemp(prefix="lbt-", dir="/tmp"))
    folder.chmod(0o711)
    try:
        yield folder
    finally:
        shutil.rmtree(folder)


def processes_of(folder: Path, sessions: frozenset[int] = frozenset()) -> dict[int, str]:
    """Living processes that have to do with a folder: by command, environment, open files, or kernel session.

    Not those that are dying already: on a busy machine, the kernel takes its time.
    """
    name = str(folder).encode()
    found = {}
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit() or int(entry.name) == os.getpid():
            continue
        with contextlib.suppress(OSError):
            state, *fields = (entry / "stat").read_text().rpartition(")")[2].split()
            if state == "Z" or int(fields[5]) & _EXITING or _is_killed(entry):
                continue
            command = (entry / "cmdline").read_bytes()
            traces = [command]
            with contextlib.suppress(PermissionError):
                traces.append((entry / "environ").read_bytes())
                for link in (entry / "fd").iterdir():
                    with contextlib.suppress(OSError):
                        traces.append(os.readlink(link).encode())
            if any(name in trace for trace in traces) or int(fields[2]) in sessions:
                found[int(entry.name)] = command.replace(b"\0", b" ").decode(errors="replace")
    return found
