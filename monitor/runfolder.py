"""The run folder: one monitor has it, and Apache's group may read in it."""

from __future__ import annotations

import fcntl
import os
from pathlib import Path

from lbadaptor.errors import LbadaptorError, SettingsError


class AlreadyRunning(LbadaptorError):
    """Another monitor has the run folder."""


PID_FILE = "monitor.pid"
"""Whose the run folder is, for people and `lbctl stop --all`."""


def lock(folder: Path) -> int:
    """Take the lock on the run folder, which is made where it is missing. Not inherited by any child.

    It is on the folder itself, for a file could be deleted. Raises AlreadyRunning, OSError.
    """
    folder.mkdir(mode=0o755, parents=True, exist_ok=True)
    descriptor = opened(folder)
    try:
        if not locked(descriptor):
            raise AlreadyRunning(f"another monitor (pid {owner(folder) or 'unknown'}) runs from {folder}")
        (folder / PID_FILE).write_text(f"{os.getpid()}\n")
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor


def opened(folder: Path) -> int:
    """A descriptor to lock it by. Raises OSError."""
    return os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)


def locked(descriptor: int) -> bool:
    """Take the lock, unless somebody has it; whether that was so. Raises OSError."""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def owner(folder: Path) -> int:
    """The pid of the monitor that took the lock last; 0: unknown."""
    try:
        return int((folder / PID_FILE).read_text())
    except (OSError, ValueError):
        return 0


def group(name: str) -> int | None:
    """The number of Apache's group; None where none is named. Raises SettingsError."""
    if not name:
        return None
    import grp

    try:
        number = grp.getgrnam(name).gr_gid
    except KeyError:
        raise SettingsError(f"[files] apache_group: there is no group {name!r} on this machine") from None
    if os.geteuid() != 0 and number not in (os.getegid(), *os.getgroups()):
        raise SettingsError(f"[files] apache_group: the monitor's user is not in the group {name!r}")
    return number
