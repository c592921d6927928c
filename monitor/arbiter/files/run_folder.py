"""The run folder: one monitor uses it at a time, and Apache's group may read in it.

The monitor holds a lock on `monitor.pid`, which only its own user and root can open. A lock on the folder alone would
not do, because any user may open the folder and lock it. The monitor locks the folder as well, so that no second
monitor starts while `monitor.pid` is deleted.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import stat
from pathlib import Path

from lbadaptor.contract.errors import LbadaptorError, SettingsError
from monitor.contract.processes import boot_id, start_time


class AlreadyRunning(LbadaptorError):
    """Another monitor has the run folder."""


PID_FILE = "monitor.pid"
"""The monitor's pid; in a second line its start time and boot, so that no other process with that pid counts."""
FILE_WAIT = 5.0
"""Seconds after which `monitor.pid` is made again if it alone was deleted."""
_MODE = 0o600
_NO_FILE = "the monitor makes a file of this name, and something else (a folder, perhaps) has it; remove that"
_MAX_BYTES = 200
"""Bytes of it that are read."""


class RunFolderLock:
    """The lock on a run folder, which is made if it is missing. No child inherits it.

    Raises AlreadyRunning, OSError.
    """

    def __init__(self, folder: Path) -> None:
        self._path = folder
        self._folder = self._file = -1
        self._mode = 0o755
        self._owner_written: tuple[int, int] | None = None
        """size and mtime in ns of `monitor.pid` after the owner was written; None: it is not complete yet"""
        self._missed: float | None = None
        """monotonic seconds since when `monitor.pid` is missing"""
        folder.mkdir(mode=0o755, parents=True, exist_ok=True)
        try:
            self._lock()
        except BaseException:
            self.release()
            raise
        self._mode = stat.S_IMODE(os.fstat(self._folder).st_mode)

    def keep(self, now: float) -> bool:
        """Make and lock again what was deleted. Whether the folder was. `now` is monotonic seconds.

        Raises AlreadyRunning: another monitor was first; OSError: it cannot be made again.
        """
        file = self._path / PID_FILE
        folder = _same(self._folder, self._path)
        if folder and _same(self._file, file):
            self._missed = None
            if self._owner_written != _written(self._file):  # it was emptied, say; `lbctl stop --all` needs it
                self._write_owner()
            return False
        if folder and not os.path.lexists(file):  # the folder is still locked, so there is time
            self._missed = now if self._missed is None else self._missed
            if now - self._missed < FILE_WAIT:
                return False
        self._missed = None
        self._make_again()
        return not folder

    def _make_again(self) -> None:
        self._path.mkdir(mode=0o755, parents=True, exist_ok=True)
        before = self._folder, self._file
        self._file = -1
        if not _same(self._folder, self._path):
            self._folder = -1
        try:
            self._lock()
            os.fchmod(self._folder, self._mode)
        except BaseException:
            for mine, other in zip((self._folder, self._file), before, strict=True):
                if mine not in (-1, other):
                    os.close(mine)
            self._folder, self._file = before
            raise
        for descriptor in {*before} - {self._folder, self._file}:
            os.close(descriptor)

    def release(self) -> None:
        """Give the lock up."""
        for descriptor in (self._file, self._folder):
            if descriptor >= 0:
                os.close(descriptor)
        self._folder = self._file = -1

    def _lock(self) -> None:
        if self._folder < 0:
            self._folder = os.open(self._path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            if not _locked(self._folder) and _held_by_us(self._folder):
                raise self._taken()
        path = self._path / PID_FILE
        while True:
            self._file = _open(path, os.O_CREAT)
            if not _locked(self._file):
                raise self._taken()
            if _same(self._file, path):
                break
            os.close(self._file)  # it was deleted meanwhile
            self._file = -1
        os.fchmod(self._file, _MODE)
        self._write_owner()

    def _write_owner(self) -> None:
        """Write pid, start time and boot. If they cannot be found out (no descriptor is left), `keep` tries again."""
        text, complete = f"{os.getpid()}\n", False
        self._owner_written = None
        with contextlib.suppress(OSError):
            started, boot = start_time(os.getpid()), boot_id()
            if boot:
                text += f"{started} {boot}\n"
                complete = True
        os.ftruncate(self._file, 0)
        os.pwrite(self._file, text.encode(), 0)
        if complete:
            self._owner_written = _written(self._file)

    def _taken(self) -> AlreadyRunning:
        return AlreadyRunning(f"another monitor (pid {owner(self._path)[0] or 'unknown'}) runs from {self._path}")


def running(folder: Path) -> bool:
    """Whether a monitor has the run folder. Raises OSError where that cannot be found out (PermissionError)."""
    try:
        descriptor = _open(folder / PID_FILE)
    except FileNotFoundError:
        return _folder_held(folder)
    try:
        return not _locked(descriptor)
    finally:
        os.close(descriptor)


def _open(path: Path, flags: int = 0) -> int:
    """Open `monitor.pid`. Raises OSError, which says what to do where something else has its name."""
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC | flags, _MODE)
    except OSError as error:
        if error.errno in (errno.EISDIR, errno.ELOOP, errno.ENXIO):
            raise OSError(error.errno, _NO_FILE, str(path)) from None
        raise
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise OSError(errno.EINVAL, _NO_FILE, str(path))
    return descriptor


def _folder_held(folder: Path) -> bool:
    """Whether a monitor runs whose `monitor.pid` was deleted."""
    try:
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except FileNotFoundError:
        return False
    try:
        return not _locked(descriptor) and _held_by_us(descriptor)
    finally:
        os.close(descriptor)


def owner(folder: Path) -> tuple[int, int]:
    """Pid and start time of the monitor that took the lock last; zeros: unknown, or from another boot."""
    try:
        with open(folder / PID_FILE, "rb") as file:
            pid, started, boot = file.read(_MAX_BYTES).decode("ascii").split()
        return (int(pid), int(started)) if boot == boot_id() else (0, 0)
    except (OSError, ValueError):
        return 0, 0


def _locked(descriptor: int) -> bool:
    """Take the lock. False if another process has it. Raises OSError."""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _held_by_us(descriptor: int) -> bool:
    """Whether a process of this user or of root holds the lock on a folder: any other user could, too.

    /proc/locks (proc(5)) has pid and inode. A lock that it does not show counts as another user's.
    """
    inode = os.fstat(descriptor).st_ino
    try:
        with open("/proc/locks", encoding="ascii") as file:
            for line in file:
                words = line.split()
                if words[1] == "FLOCK" and words[5].rpartition(":")[2] == str(inode):
                    with contextlib.suppress(OSError):
                        if os.stat(f"/proc/{int(words[4])}").st_uid in (0, os.geteuid()):
                            return True
    except (OSError, ValueError, IndexError):
        pass
    return False


def _written(descriptor: int) -> tuple[int, int]:
    """Size and mtime in ns, which change when a file is written."""
    found = os.fstat(descriptor)
    return found.st_size, found.st_mtime_ns


def _same(descriptor: int, path: Path) -> bool:
    """Whether a path leads to the file that is open as this descriptor."""
    try:
        return os.path.samestat(os.fstat(descriptor), os.stat(path, follow_symlinks=path.name != PID_FILE))
    except (FileNotFoundError, NotADirectoryError):
        return False


def group(name: str, setting: str = "apache_group") -> int | None:
    """The number of the group that a setting names; None where it names none. Raises SettingsError."""
    if not name:
        return None
    import grp

    try:
        number = grp.getgrnam(name).gr_gid
    except KeyError:
        raise SettingsError(f"[files] {setting}: there is no group {name!r} on this machine") from None
    if os.geteuid() != 0 and number not in (os.getegid(), *os.getgroups()):
        raise SettingsError(f"[files] {setting}: the monitor's user is not in the group {name!r}")
    return number
