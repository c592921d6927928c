"""The folder of session files ([sessions] folder): made, looked at, and held for one installation.

Session files are pickles: whoever can write into this folder runs code in the AppServers. So the monitor makes it for
the AppServers' user alone, and refuses one that is not so. Only AppServers open the sessions in it.

The file `installation` keeps other installations out.
"""

from __future__ import annotations

import contextlib
import errno
import os
import pwd
import stat
import subprocess
import sys
from pathlib import Path
from typing import Any

from lbadaptor.contract.errors import SettingsError
from lbadaptor.contract.settings import NOTHING, Settings
from lbadaptor.log import texts
from monitor.arbiter.files import mounts, trust
from monitor.arbiter.files.installation import INSTALLATION, Account, is_named, lock, refuse_held, wrong

TRIAL_LIMIT = 4.0
"""Seconds in which a child process has to find the folder locked."""
_KILL_WAIT = 0.5
_TRIAL = """
import fcntl, os, sys
try:
    descriptor = os.open(sys.argv[1], os.O_RDWR | os.O_NOFOLLOW)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        print("it keeps no other process out")
    except BlockingIOError:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
        print("good")
except OSError as error:
    print(error.strerror)
"""
"""Run while this process has a shared lock on the file: a second one is given, an exclusive one is not."""
_MAY_PASS = frozenset(
    (errno.ENOSPC, errno.EDQUOT, errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.EAGAIN, errno.EINTR)
)
"""Errors that a later try may not meet: they say nothing about the settings."""


class HeldFolder:
    """What this monitor holds. No child inherits it."""

    def __init__(self) -> None:
        self._descriptor = -1

    def prepare(self, settings: Settings, account: Account | None) -> None:
        """At the start: `prepare`, and hold it. Blocks for TRIAL_LIMIT at most. Raises SettingsError, OSError."""
        if settings.sessions_survive:
            self._keep(prepare(settings, account))

    def take(self, settings: Settings, account: Account | None) -> None:
        """At a release, after another process has done `prepare`: hold it. Raises SettingsError.

        Where sessions survive no more, what is held stays so: AppServers of before still have the folder.
        """
        if settings.sessions_survive:
            try:
                self._keep(_hold(settings, account))
            except OSError as error:
                raise wrong(texts.of_os_error(error)) from None

    def release(self) -> None:
        """Give it up."""
        self._keep(-1)

    def _keep(self, descriptor: int) -> None:
        before, self._descriptor = self._descriptor, descriptor
        if before >= 0:
            os.close(before)


def check(settings: Settings, account: Account | None) -> None:
    """Do what a monitor with these settings does at its start. Blocks, and raises, as `prepare`."""
    if settings.sessions_survive:
        os.close(prepare(settings, account))


def prepare(settings: Settings, account: Account | None) -> int:
    """Make the folder if it is missing, look at it, and make it this installation's. `installation`, locked.

    `account`: the AppServers' user; None: the monitor's own. Raises SettingsError; OSError where a later try may
    succeed. Blocks for TRIAL_LIMIT at most, and as long as the file system takes.
    """
    path = path_of(settings)
    try:
        _refuse_remote(path, mounts.of_path(str(path)))  # first: a server that is gone answers no look
        path.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
        with contextlib.suppress(FileExistsError):
            path.mkdir(mode=0o700)
        held = _hold(settings, account, change=True)
        try:
            _try_lock(path, account)
        except BaseException:
            os.close(held)
            raise
    except OSError as error:
        if error.errno in _MAY_PASS:
            raise
        raise wrong(texts.of_os_error(error)) from None
    return held


def fault(settings: Settings, account: Account | None) -> str:
    """Why a monitor with these settings would refuse the folder, which need not exist yet; empty: it would not.

    Nothing is made or changed.
    """
    path = path_of(settings)
    try:
        _refuse_remote(path, mounts.of_path(str(path)))
        try:
            folder = _open(path)
        except FileNotFoundError:
            trust.refuse_untrusted_parents(path)
            return ""
        try:
            _judge(path, folder, account)
            with contextlib.suppress(FileNotFoundError):
                refuse_held(path, folder, settings)
        finally:
            os.close(folder)
    except SettingsError as error:
        return str(error)
    except OSError as error:
        return str(wrong(texts.of_os_error(error)))
    return ""


def is_of(settings: Settings) -> bool:
    """Whether the folder holds what AppServers of this installation have left there. Never raises."""
    try:
        folder = _open(path_of(settings))
    except (OSError, SettingsError):
        return False
    try:
        return is_named(settings, folder) and _holds_files(folder)
    except OSError:
        return False
    finally:
        os.close(folder)


def lost_by_change(before: str, settings: Settings) -> str:
    """What a release to these settings means for sessions that survive by those of before; empty: nothing."""
    if before == NOTHING or settings.sessions_survive:
        return ""
    return (
        f'[sessions] survive = "{NOTHING}": AppServers that are started from now on take up no session. Those of '
        f'before, which run with survive = "{before}", still move theirs to {path_of(settings)} as they leave, where '
        "they stay and are lost to their visitors"
    )


def path_of(settings: Settings) -> Path:
    """Where the folder is: absolute."""
    return Path(os.path.abspath(settings.session_folder))


# The folder.


def _hold(settings: Settings, account: Account | None, change: bool = False) -> int:
    """Look at the folder, and make it this installation's. `change`: an empty one may get another owner."""
    path = path_of(settings)
    folder = _open(path)
    try:
        _judge(path, folder, account, change)
        return lock(path, folder, settings, account)
    finally:
        os.close(folder)


def _open(path: Path) -> int:
    if path.is_symlink():
        raise wrong(f"{path} is a link; name the folder that it leads to")
    return os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)


def _judge(path: Path, folder: int, account: Account | None, change: bool = False) -> None:
    """Raise SettingsError, PermissionError for a folder that is not to be used."""
    _refuse_remote(path, mounts.of_descriptor(folder, path))
    trust.refuse_untrusted_parents(path)
    found = os.fstat(folder)
    if found.st_mode & 0o077:
        raise wrong(
            f"others than its owner can enter {path} or write to it (mode {stat.S_IMODE(found.st_mode):04o}), and "
            f"run code in the AppServers; look at what is in it, then `chmod 0700 {path}`"
        )
    owner = os.geteuid() if account is None else account.user
    if found.st_uid == owner:
        return
    if os.geteuid() != 0 or _holds_files(folder):
        raise wrong(
            f"{path} belongs to the user {_user(found.st_uid)}, and AppServers run as {_user(owner)}; stop "
            f"everything, then `chown -R {_user(owner)} {path}`, or name another folder"
        )
    if change:
        os.fchown(folder, owner, -1 if account is None else account.group)


def _refuse_remote(path: Path, kind: str) -> None:
    if mounts.remote(kind):
        raise wrong(f"{path} is on a network file system ({kind}); it has to be on a disk of this machine")


def _holds_files(folder: int) -> bool:
    return any(entry != INSTALLATION for entry in os.listdir(folder))


def _user(number: int) -> str:
    try:
        return pwd.getpwuid(number).pw_name
    except KeyError:
        return str(number)


# The trial of the lock.


def _try_lock(path: Path, account: Account | None) -> None:
    """See in a process of the AppServers' user that the lock on `installation` holds, as each of them needs it."""
    as_user: dict[str, Any] = {}
    if account is not None and os.geteuid() == 0:
        as_user = {"user": account.user, "group": account.group, "extra_groups": account.groups}
    command = [sys.executable, "-I", "-S", "-c", _TRIAL, str(path / INSTALLATION)]
    trial = subprocess.Popen(
        command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, cwd="/", **as_user
    )
    try:
        said = trial.communicate(timeout=TRIAL_LIMIT)[0].decode("utf-8", "replace").strip()
    except subprocess.TimeoutExpired:
        trial.kill()
        with contextlib.suppress(subprocess.TimeoutExpired):
            trial.wait(_KILL_WAIT)  # not longer: it may hang in the kernel
        said = f"no answer within {TRIAL_LIMIT:g} s"
    finally:
        assert trial.stdout is not None
        trial.stdout.close()
    if said != "good":
        who = _user(os.geteuid() if account is None else account.user)
        raise wrong(
            f"a lock (flock) on {path / INSTALLATION} does not work for the user {who}: {said or 'the trial failed'}"
        )
