"""What lies where in the folder of sessions, and how sessions move there.

    at.SLOT.GENERATION/    an AppServer's own: its sessions, and `lock`, flocked as long as it lives
    new.PID.N/             such a folder while it is made
    free/00/ … free/ff/    sessions that nobody has, by the first two digits of their names
    aside/                 sessions that must not be served
    installation, sweep    locks of all AppServers, and of the one that sweeps

Folders are given by their descriptors. A session's name is 40 hex digits. Whatever has another name is left alone.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import re
from collections.abc import Iterator

from lbadaptor.appserver.sessions.persistence import safe_open
from lbadaptor.appserver.sessions.persistence.rename import rename_new
from lbadaptor.appserver.sessions.persistence.safe_open import Stranger
from lbadaptor.log import logs
from lbadaptor.log.once import Once

log = logs.logger("lbadaptor.appserver")

LOCK = "lock"
OWNER_DIED = 0o400
"""Mode of a file in free/ that comes from a dead owner; others have 0600. Whoever takes it counts a death."""

is_session = re.compile("[0-9a-f]{40}").fullmatch
is_temporary = re.compile(r"[0-9a-f]{40}\.[0-9]+").fullmatch
"""A session's file that was being written."""
is_owner = re.compile(r"at\.([0-9]{1,6})\.([0-9]{1,16})").fullmatch
is_new = re.compile(r"new\.[0-9]+\.[0-9]+").fullmatch

_strangers = Once(64)


class Alive(Exception):
    """The owner of the folder lives."""


def say_stranger(place: str, why: Stranger) -> None:
    """Log, once, what is left alone. `place`: below the root."""
    if _strangers.first(place):
        log.warning("%s is not a file of these AppServers, and is left alone: %s", place, why)


def entries(folder: int) -> Iterator[os.DirEntry[str]]:
    """What is in a folder; any number of threads may do this at once. Raises OSError."""
    descriptor = os.open(".", safe_open.FOLDER, dir_fd=folder)  # of its own: a descriptor has one place in the list
    try:
        with os.scandir(descriptor) as found:
            yield from found
    finally:
        os.close(descriptor)


def sessions(folder: int) -> Iterator[str]:
    """The names of the sessions in a folder. Raises OSError."""
    return (entry.name for entry in entries(folder) if is_session(entry.name))


def owners(root: int, but: str) -> list[str]:
    """The AppServers' own folders, dead ones' too; `but`: not this one. Raises OSError."""
    return [
        entry.name
        for entry in entries(root)
        if is_owner(entry.name) and entry.name != but and entry.is_dir(follow_symlinks=False)
    ]


@contextlib.contextmanager
def of_dead(name: str, root: int) -> Iterator[int]:
    """A dead owner's folder. Raises Alive where the owner lives; Stranger, OSError.

    It is tested with a shared lock: two that test with exclusive ones take each other for the owner. The lock file is
    opened anew each time, because a lock belongs to what `open` has made. No lock file: a sweep was interrupted.
    """
    with contextlib.ExitStack() as stack:
        folder = safe_open.folder(name, root)
        stack.callback(os.close, folder)
        with contextlib.suppress(FileNotFoundError):
            lock, _ = safe_open.file(LOCK, folder)
            stack.callback(os.close, lock)
            try:
                fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
            except BlockingIOError:
                raise Alive(name) from None
        yield folder


@contextlib.contextmanager
def subfolder(free: int, name: str, make: bool = False) -> Iterator[int]:
    """The subfolder of free/ where this session belongs. `make`: where it is missing. Raises Stranger, OSError."""
    digits = name[:2]
    try:
        folder = safe_open.folder(digits, free)
    except FileNotFoundError:
        if not make:
            raise
        with contextlib.suppress(FileExistsError):
            os.mkdir(digits, 0o700, dir_fd=free)
        folder = safe_open.folder(digits, free)
    try:
        yield folder
    finally:
        os.close(folder)


def put_aside(name: str, folder: int, aside: int) -> None:
    """Move a session into aside/, never over another: a number is added to its name. Raises OSError."""
    for number in range(1000):
        with contextlib.suppress(FileExistsError):
            rename_new(name, folder, aside, f"{name}.{number}" if number else name)
            return
    raise FileExistsError(f"aside/{name}")


def empty(folder: int, place: str, free: int, aside: int, most: int) -> int:
    """Move a dead owner's sessions into free/, and remove its temporary files: `most` at a time. How many there were.

    Takers may take from there meanwhile. What free/ has under such a name was served before, and goes to aside/.
    Strangers stay.
    `place`: the folder's name, for the log. Raises OSError.
    """
    done = 0
    for entry in entries(folder):
        name = entry.name
        try:
            if is_session(name):
                _free(name, folder, free, aside)
            elif is_temporary(name):
                safe_open.status(name, folder)
                os.unlink(name, dir_fd=folder)
            else:
                continue
        except FileNotFoundError:
            pass  # a taker was first
        except Stranger as why:
            say_stranger(f"{place}/{name}", why)
            continue
        done += 1
        if done == most:
            break
    return done


def _free(name: str, folder: int, free: int, aside: int) -> None:
    """Raises Stranger, OSError."""
    descriptor, _ = safe_open.file(name, folder)
    try:
        with subfolder(free, name, make=True) as target:
            os.fchmod(descriptor, OWNER_DIED)
            try:
                rename_new(name, folder, target)
            except FileExistsError:  # one that had ended, say, and the framework went on with its id
                safe_open.status(name, target)
                with contextlib.suppress(FileNotFoundError):
                    put_aside(name, target, aside)
                    log.warning(
                        "a session of a dead AppServer is in free/ already, from before; that one goes to aside/%s",
                        name,
                    )
                rename_new(name, folder, target)
    finally:
        os.close(descriptor)


def remove(name: str, folder: int, root: int) -> None:
    """Remove an owner's folder; its lock goes first. Raises OSError: it is not empty, say."""
    with contextlib.suppress(FileNotFoundError):
        os.unlink(LOCK, dir_fd=folder)
    os.rmdir(name, dir_fd=root)
