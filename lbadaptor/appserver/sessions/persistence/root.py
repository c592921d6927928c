"""The folder of sessions itself: made, looked at, and kept from another installation."""

from __future__ import annotations

import contextlib
import fcntl
import os
import time

from lbadaptor.appserver.sessions.persistence import safe_open
from lbadaptor.appserver.sessions.persistence.safe_open import Stranger
from lbadaptor.log import texts

INSTALLATION = "installation"
"""A file in it that the monitor writes: the run folder of the installation whose sessions these are. The monitor and
each of its AppServers hold a shared lock on it as long as they live."""
WAIT = 5.0
"""Seconds for which a monitor may hold its lock on that file when an AppServer starts."""

_PAUSE = 0.05
_LONGEST_PATH = 8192
_OTHER = "two installations cannot share a folder; set [sessions] folder to another one"


class UnsafeFolder(Exception):
    """Sessions cannot be kept there: the text says what is wrong with which path, and the cure."""


def open_root(path: str) -> int:
    """A descriptor of the folder, which is made if it is missing. Raises UnsafeFolder."""
    try:
        with contextlib.suppress(FileExistsError):
            os.mkdir(path, 0o700)
        return safe_open.folder(path)
    except Stranger as why:
        reason = f"{path}: {why}"
    except OSError as error:
        reason = f"{path} cannot be used: {texts.what(error)}"
    raise UnsafeFolder(f"{reason}; `install -d -m 0700 -o {os.geteuid()} {path}` makes a folder for this user")


def open_part(path: str, name: str, root: int) -> int:
    """A descriptor of a folder in it, which is made if it is missing. Raises UnsafeFolder, OSError."""
    with contextlib.suppress(FileExistsError):
        os.mkdir(name, 0o700, dir_fd=root)
    try:
        return safe_open.folder(name, root)
    except Stranger as why:
        raise UnsafeFolder(f"{path}/{name}: {why}; move it away, and it is made anew") from None


def share_installation(path: str, root: int, run_folder: str) -> int:
    """A descriptor that holds the shared lock on the monitor's file; -1: there is no such file.

    `run_folder`: the one that it has to name; empty: any. Waits for WAIT at most. Raises UnsafeFolder, OSError.
    """
    try:
        descriptor, size = safe_open.file(INSTALLATION, root)
    except FileNotFoundError:
        return -1
    except Stranger as why:
        raise UnsafeFolder(f"{path}/{INSTALLATION}: {why}; remove it, and start the monitor anew") from None
    until = time.monotonic() + WAIT
    try:
        while not locked(descriptor, fcntl.LOCK_SH):
            if time.monotonic() >= until:
                raise UnsafeFolder(f"{path}/{INSTALLATION} is locked by another monitor; {_OTHER}")
            time.sleep(_PAUSE)
        named = os.fsdecode(safe_open.read(descriptor, min(size, _LONGEST_PATH))).removesuffix("\n")
        if run_folder and named != os.path.realpath(run_folder):
            raise UnsafeFolder(f"{path} is that of the run folder {texts.clean(named)}; {_OTHER}")
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor


def locked(descriptor: int, kind: int) -> bool:
    """Lock a file, LOCK_SH or LOCK_EX, without waiting. False: another has it. Raises OSError."""
    try:
        fcntl.flock(descriptor, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
