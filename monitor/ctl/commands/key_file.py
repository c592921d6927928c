"""The key file, for the commands that change it.

It is replaced whole: whatever happens in between, there is a key file with which all that run can go on.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import secrets
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from lbadaptor.contract.errors import KeyFileError
from lbadaptor.contract.settings import Settings
from lbadaptor.contract.ticket import read_keys
from lbadaptor.log import texts
from monitor.arbiter.files import run_folder
from monitor.contract import client, key_lines
from monitor.contract.client import NoAnswer
from monitor.contract.key_lines import KeyLines
from monitor.ctl.commands import order
from monitor.ctl.commands.which_monitor import Which

UPGRADED_WITHIN = 30.0
"""Seconds in which the monitor has to read the key file anew."""
POLL_INTERVAL = 0.1
"""Seconds between two looks at whether it has."""
LOCKED_WITHIN = 10.0
"""Seconds for which another command may change it meanwhile."""
_MODE = 0o640


@contextlib.contextmanager
def locked(settings: Settings) -> Iterator[None]:
    """No other command changes it meanwhile: the later one would take back what the other one has written, and a key
    would be lost. Makes the folder, too. Blocks for LOCKED_WITHIN at most. Raises KeyFileError, OSError."""
    path = settings.key_file
    if not path.parent.exists():
        owner = _owner_of_new(settings)
        path.parent.mkdir(parents=True)
        path.parent.chmod(0o755)  # whatever the umask: Apache enters it
        os.chown(path.parent, *owner)  # systemd gives what is in it to the monitor's user and group if not
    # The folder: the file is replaced by each change, and a file for the lock alone would need an owner, too.
    descriptor = os.open(os.path.dirname(os.path.realpath(path)), os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        until = time.monotonic() + LOCKED_WITHIN
        while not _lock(descriptor):
            if time.monotonic() >= until:
                raise KeyFileError(f"key file {path}: another command changes it; nothing was changed")
            time.sleep(POLL_INTERVAL)
        yield
    finally:
        os.close(descriptor)


def read(path: Path) -> KeyLines:
    """Raises KeyFileError."""
    read_keys(path)
    try:
        return key_lines.parse(path.read_text("ascii"))
    except (OSError, UnicodeDecodeError) as error:
        raise KeyFileError(f"key file {path}: {texts.what(error)}") from None


def replace(path: Path, lines: KeyLines) -> None:
    """Write it whole, with its owner, group and mode. Raises OSError; the old one stays then."""
    real = Path(os.path.realpath(path))
    there = os.stat(real)
    beside = _write(real, lines, there.st_uid, there.st_gid, there.st_mode & 0o7777)
    try:
        os.rename(beside, real)
    except BaseException:
        beside.unlink(missing_ok=True)
        raise


def make(settings: Settings, lines: KeyLines) -> None:
    """Write it where there is none: mode 0640, Apache's group. Root gives it to the monitor's user, by the folder.

    Raises OSError, FileExistsError among them, and SettingsError.
    """
    path = settings.key_file
    group = run_folder.group(settings.files.apache_group)
    user, own_group = _owner_of_new(settings)
    beside = _write(path, lines, user, own_group if group is None else group, _MODE)
    try:
        os.link(beside, path)  # unlike rename, never over one that came meanwhile
    finally:
        beside.unlink(missing_ok=True)


def read_anew(which: Which, settings: Settings, before: dict[str, Any]) -> None:
    """Have the monitor read it, by an upgrade in place. Blocks until then. `before`: its status. Raises NoAnswer."""
    print(order.give(which, "reexec"), flush=True)
    deadline = time.monotonic() + UPGRADED_WITHIN
    while time.monotonic() < deadline:
        try:
            if client.ask(settings.control_socket).get("began") != before.get("began"):
                return
        except NoAnswer:
            pass  # it is between two programs
        time.sleep(POLL_INTERVAL)
    raise NoAnswer(f"the monitor was not upgraded within {UPGRADED_WITHIN:g} s; its log may tell why")


def _owner_of_new(settings: Settings) -> tuple[int, int]:
    """User and group: those of the key file's folder, which the monitor's user owns. Before the monitor's first start
    there may be only the run folder, which was made at boot or by the installation."""
    if os.geteuid() != 0:
        return os.geteuid(), os.getegid()
    for folder in (settings.key_file.parent, settings.run_folder):
        try:
            status = os.stat(folder)
        except FileNotFoundError:
            continue
        return status.st_uid, status.st_gid
    return 0, os.getegid()


def _lock(descriptor: int) -> bool:
    """Whether nobody else has locked the folder. Raises OSError."""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError as error:
        if error.errno not in (errno.EBADF, errno.ENOLCK, errno.EOPNOTSUPP):
            raise  # NFS locks no folder (flock(2)): there, nobody is kept out
    return True


def _write(path: Path, lines: KeyLines, user: int, group: int, mode: int) -> Path:
    """A new file beside `path`."""
    beside = path.with_name(f".{path.name}.{os.getpid()}.{secrets.token_hex(4)}")
    descriptor = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        with open(descriptor, "w", encoding="ascii") as file:
            file.write(lines.text())
            file.flush()
            os.fchown(descriptor, user, group)
            os.fchmod(descriptor, mode)
            os.fsync(descriptor)
    except BaseException:
        beside.unlink(missing_ok=True)
        raise
    return beside
