"""An AppServer's own folder: nobody sees it by its name before it is locked."""

from __future__ import annotations

import contextlib
import fcntl
import os
from itertools import count

from lbadaptor.appserver.sessions.persistence import layout, safe_open
from lbadaptor.appserver.sessions.persistence.layout import Alive
from lbadaptor.appserver.sessions.persistence.rename import rename_new
from lbadaptor.appserver.sessions.persistence.root import UnsafeFolder
from lbadaptor.appserver.sessions.persistence.safe_open import Stranger

LOCK_FLAGS = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC


def make(name: str, path: str, root: int, free: int, aside: int) -> tuple[int, int]:
    """Make it in the root, whose path is `path`. Descriptors of the folder and of its locked file.

    One of the same name that a dead AppServer has left is emptied into free/ first. Raises UnsafeFolder, OSError.
    """
    new = _make_new(root)
    with contextlib.ExitStack() as failed:
        own = safe_open.folder(new, root)
        failed.callback(os.close, own)
        failed.callback(_remove, new, own, root)
        lock = locked_file(own)
        failed.callback(os.close, lock)
        try:
            rename_new(new, root, root, name)
        except FileExistsError:
            _clear_former(name, path, root, free, aside)
            rename_new(new, root, root, name)
        failed.pop_all()
    return own, lock


def locked_file(own: int) -> int:
    """Make the file whose lock says that the folder's owner lives. Its descriptor. Raises OSError."""
    lock = os.open(layout.LOCK, LOCK_FLAGS | os.O_EXCL, 0o600, dir_fd=own)
    fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    return lock


def _make_new(root: int) -> str:
    for number in count():
        new = f"new.{os.getpid()}.{number}"
        with contextlib.suppress(FileExistsError):  # another process had this pid, and was killed
            os.mkdir(new, 0o700, dir_fd=root)
            break
    return new


def _remove(new: str, own: int, root: int) -> None:
    with contextlib.suppress(OSError):
        layout.remove(new, own, root)


def _clear_former(name: str, path: str, root: int, free: int, aside: int) -> None:
    try:
        with layout.of_dead(name, root) as folder:
            while layout.empty(folder, name, free, aside, 1000):
                pass
            layout.remove(name, folder, root)
    except Alive:
        raise UnsafeFolder(f"{path}/{name} belongs to another AppServer, which lives") from None
    except Stranger as why:
        raise UnsafeFolder(f"{path}/{name}: {why}; move it away") from None
