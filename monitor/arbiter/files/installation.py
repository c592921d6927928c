"""Which installation uses a folder of session files: the file `installation` in it.

It names a run folder: that of the AppServers whose sessions these are. The monitor and each of its AppServers hold a
shared lock (flock) on this file as long as they live. So a monitor with another run folder finds the folder in use,
since it needs an exclusive lock to write its own name.
"""

from __future__ import annotations

import errno
import fcntl
import os
import stat
import time
from pathlib import Path
from typing import Protocol

from lbadaptor.contract.errors import SettingsError
from lbadaptor.contract.settings import Settings
from lbadaptor.log import texts

INSTALLATION = "installation"
_TRIES = 10
_PAUSE = 0.03
"""So often, and after so many seconds, a lock is asked for again that another monitor has for a moment."""
_MAX_BYTES = 8192
"""Bytes of `installation` that are read."""
_MODE = 0o600


class Account(Protocol):
    """The user that AppServers run as, by number."""

    @property
    def user(self) -> int: ...
    @property
    def group(self) -> int: ...
    @property
    def groups(self) -> tuple[int, ...]: ...


def wrong(text: str) -> SettingsError:
    """What is wrong with the folder, as an error of its setting."""
    return SettingsError(f"[sessions] folder: {text}")


def name(settings: Settings) -> str:
    """The name of this installation: its run folder, with links followed."""
    return os.path.realpath(settings.run_folder)


def lock(path: Path, folder: int, settings: Settings, account: Account | None) -> int:
    """`installation` in an open folder, which names this one now, with a shared lock. Blocks for a moment.

    Raises SettingsError where another installation has it, OSError.
    """
    mine, who = name(settings), ""
    for _ in range(_TRIES):
        descriptor = _open_installation(path, folder, os.O_RDWR | os.O_CREAT)
        try:
            who = _claim(descriptor, folder, account, mine) or who
        except BaseException:
            os.close(descriptor)
            raise
        if who == mine:
            return descriptor
        os.close(descriptor)
        time.sleep(_PAUSE)
    raise _in_use(path, who)


def _claim(descriptor: int, folder: int, account: Account | None, mine: str) -> str:
    """Lock `installation` for this installation. Whose it is now; empty: that is to be tried again."""
    if not _locked(descriptor, fcntl.LOCK_EX):  # somebody has it
        return _named(descriptor) if _locked(descriptor, fcntl.LOCK_SH) and _is_there(descriptor, folder) else ""
    if not _is_there(descriptor, folder) or not _owned(descriptor, folder, account):
        return ""
    if _named(descriptor) != mine:
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, os.fsencode(mine) + b"\n", 0)
    return mine if _locked(descriptor, fcntl.LOCK_SH) else ""


def _owned(descriptor: int, folder: int, account: Account | None) -> bool:
    """Whether it belongs to the AppServers' user, who has to open it; a new one is given to that user.

    One with a content that belongs to somebody else is deleted: it may have been moved there, and is not written to.
    """
    found = os.fstat(descriptor)
    if account is not None and found.st_uid != account.user:
        if found.st_size:
            os.unlink(INSTALLATION, dir_fd=folder)
            return False
        os.fchown(descriptor, account.user, account.group)
    if stat.S_IMODE(found.st_mode) != _MODE:
        os.fchmod(descriptor, _MODE)
    return True


def is_named(settings: Settings, folder: int) -> bool:
    """Whether `installation` names this one. Raises OSError."""
    descriptor = os.open(INSTALLATION, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=folder)
    try:
        return _named(descriptor) == name(settings)
    finally:
        os.close(descriptor)


def refuse_held(path: Path, folder: int, settings: Settings) -> None:
    """Raise SettingsError if another installation has the folder now."""
    descriptor = _open_installation(path, folder, os.O_RDONLY)
    try:
        who = _named(descriptor)
        if who not in ("", name(settings)) and not _locked(descriptor, fcntl.LOCK_EX):
            raise _in_use(path, who)
    finally:
        os.close(descriptor)


def _open_installation(path: Path, folder: int, flags: int) -> int:
    """Raises OSError, and SettingsError where something else has its name."""
    flags |= os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
    why = f"{path / INSTALLATION} is not the file that the monitor makes; look at what it is, and remove it"
    try:
        descriptor = os.open(INSTALLATION, flags, _MODE, dir_fd=folder)
    except OSError as error:
        if error.errno in (errno.EISDIR, errno.ELOOP, errno.ENXIO):
            raise wrong(why) from None
        error.filename = str(path / INSTALLATION)
        raise
    found = os.fstat(descriptor)
    if not stat.S_ISREG(found.st_mode) or found.st_nlink > 1:
        os.close(descriptor)
        raise wrong(why)
    return descriptor


def _is_there(descriptor: int, folder: int) -> bool:
    """Whether it is still the file of that name."""
    try:
        return os.path.samestat(os.fstat(descriptor), os.stat(INSTALLATION, dir_fd=folder, follow_symlinks=False))
    except FileNotFoundError:
        return False


def _named(descriptor: int) -> str:
    return os.fsdecode(os.pread(descriptor, _MAX_BYTES, 0)).removesuffix("\n")


def _locked(descriptor: int, kind: int) -> bool:
    """Take a lock, or change its kind. False: another process has one that stands against it. Raises OSError."""
    try:
        fcntl.flock(descriptor, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _in_use(path: Path, who: str) -> SettingsError:
    other = f"the run folder {texts.clean(who)}" if who else "another run folder"
    return wrong(f"{path} is in use by the monitor or AppServers of {other}; each installation needs its own")
