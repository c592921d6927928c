"""How a session's file is written: what was there before, or all of the new one, and never a link followed."""

from __future__ import annotations

import contextlib
import errno
import os
from itertools import count

from lbadaptor.appserver.sessions.persistence import layout, safe_open
from lbadaptor.appserver.sessions.persistence.format import MAX_SESSION
from lbadaptor.appserver.sessions.persistence.safe_open import Stranger

BLOCK = 4096
"""Bytes in which file systems give out space. A smaller session's file is filled up with zeros to this size, so that
it can be written over in place, without more space and without a new length."""

_NEW = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_numbers = count()
"""of temporary files"""


def write(name: str, data: bytes, folder: int) -> None:
    """Write a file: in place, with one pwrite, where the old one and the new one are one block, else as a new file.

    A write within a page is not interrupted by SIGKILL. Raises OSError; what was there before stays.
    """
    if len(data) > MAX_SESSION:
        raise OSError(errno.EFBIG, f"the session has {len(data)} bytes; {MAX_SESSION} are the most")
    if len(data) > BLOCK:
        _replace(name, data, folder)
    elif not _in_place(name, data, folder):
        _replace(name, data.ljust(BLOCK, b"\0"), folder)


def cut(name: str, data: bytes, folder: int) -> None:
    """Write a bare head; where there is no room for a second file, over the old one. Raises OSError."""
    try:
        write(name, data, folder)
    except OSError:
        descriptor, size = open_own(name, folder, os.O_WRONLY)
        try:
            _pwrite(descriptor, data)
            os.ftruncate(descriptor, min(size, max(BLOCK, len(data))))
        finally:
            os.close(descriptor)


def open_own(name: str, folder: int, flags: int = os.O_RDONLY) -> tuple[int, int]:
    """As `safe_open.file`; a stranger is said, and raises OSError."""
    try:
        return safe_open.file(name, folder, flags)
    except Stranger as why:
        raise not_ours(name, why) from None


def not_ours(place: str, why: Stranger) -> OSError:
    """Says a stranger; the error for it."""
    layout.say_stranger(place, why)
    return OSError(errno.EEXIST, f"what has this name is not a session of these AppServers: {why}", place)


def _in_place(name: str, data: bytes, folder: int) -> bool:
    """Whether that can be done, and was. Raises OSError."""
    try:
        descriptor, size = open_own(name, folder, os.O_WRONLY)
    except (FileNotFoundError, PermissionError):  # the mode of a dead owner's session: see layout.OWNER_DIED
        return False
    try:
        if size != BLOCK:
            return False
        _pwrite(descriptor, data)
    finally:
        os.close(descriptor)
    return True


def _replace(name: str, data: bytes, folder: int) -> None:
    """By temporary file and rename. Raises OSError."""
    try:
        safe_open.status(name, folder)
    except FileNotFoundError:
        pass
    except Stranger as why:
        raise not_ours(name, why) from None
    temporary = f"{name}.{next(_numbers)}"
    descriptor = os.open(temporary, _NEW, 0o600, dir_fd=folder)
    try:
        try:
            _pwrite(descriptor, data)
        finally:
            os.close(descriptor)
        os.rename(temporary, name, src_dir_fd=folder, dst_dir_fd=folder)
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(temporary, dir_fd=folder)
        raise


def _pwrite(descriptor: int, data: bytes) -> None:
    """Write all of it, from the file's begin on. Raises OSError."""
    done = os.pwrite(descriptor, data, 0)
    while done < len(data):
        more = os.pwrite(descriptor, memoryview(data)[done:], done)
        if not more:
            raise OSError(errno.EIO, "no more can be written")
        done += more
