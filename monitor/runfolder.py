"""The run folder: one monitor has it, and Apache's group may read in it."""

from __future__ import annotations

import fcntl
import os
from pathlib import Path

from lbadaptor.errors import LbadaptorError, SettingsError


class AlreadyRunning(LbadaptorError):
    """Another monitor has the run folder."""


def lock(folder: Path) -> int:
    """Take the lock on the run folder, which is made where it is missing. Not inherited by any child.

    Raises AlreadyRunning, OSError.
    """
    folder.mkdir(mode=0o755, parents=True, exist_ok=True)
    descriptor = os.open(folder / "monitor.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        owner = os.read(descriptor, 20).decode("ascii", "replace").strip()
        os.close(descriptor)
        raise AlreadyRunning(f"another monitor (pid {owner}) runs from {folder}") from None
    os.ftruncate(descriptor, 0)
    os.write(descriptor, f"{os.getpid()}\n".encode())
    return descriptor


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
