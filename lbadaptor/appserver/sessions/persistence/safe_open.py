"""Opens files and folders of sessions without following links, and only those that are this user's alone.

What a session's file holds is unpickled, that is, run. So whatever is not surely ours is a Stranger: it is not
followed, not loaded, not written over and not deleted. None of this blocks, whatever lies there (a FIFO, a device).
"""

from __future__ import annotations

import os
import stat

FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
"""Flags that open a folder."""

_FILE = os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
_OTHERS = stat.S_IRWXG | stat.S_IRWXO


class Stranger(Exception):
    """It is there, and it is not ours; the text says why, such as "it is a symbolic link"."""


def folder(name: str, at: int | None = None) -> int:
    """A descriptor of a folder of this user's, mode 0700. `at`: a descriptor of the folder that it is in.

    Raises Stranger, OSError.
    """
    try:
        descriptor = os.open(name, FOLDER, dir_fd=at)
    except OSError as error:
        raise _reason(error, name, at, stat.S_IFDIR) from None
    try:
        if why := doubt(os.fstat(descriptor), stat.S_IFDIR):
            raise Stranger(why)
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor


def file(name: str, at: int, flags: int = os.O_RDONLY) -> tuple[int, int]:
    """A descriptor of a regular file of this user's, and its size in bytes. It is not made.

    Raises Stranger, OSError.
    """
    try:
        descriptor = os.open(name, flags | _FILE, dir_fd=at)
    except OSError as error:
        raise _reason(error, name, at, stat.S_IFREG) from None
    try:
        found = os.fstat(descriptor)
        if why := doubt(found, stat.S_IFREG):
            raise Stranger(why)
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor, found.st_size


def status(name: str, at: int) -> os.stat_result:
    """The status of a regular file of this user's. Raises Stranger, OSError."""
    found = os.stat(name, dir_fd=at, follow_symlinks=False)
    if why := doubt(found, stat.S_IFREG):
        raise Stranger(why)
    return found


def read(descriptor: int, size: int) -> bytes:
    """So many bytes from the file's begin; fewer where it is shorter. Raises OSError."""
    parts = []
    place = 0
    while place < size and (part := os.pread(descriptor, size - place, place)):
        parts.append(part)
        place += len(part)
    return b"".join(parts)


def doubt(found: os.stat_result, kind: int) -> str:
    """Why this is not ours; empty: it is. `kind`: S_IFREG or S_IFDIR."""
    mode = found.st_mode
    if stat.S_IFMT(mode) != kind:
        if stat.S_ISLNK(mode):
            return "it is a symbolic link"
        return f"it is not a {'folder' if kind == stat.S_IFDIR else 'regular file'}"
    if found.st_uid != os.geteuid():
        return f"it belongs to the user {found.st_uid}, and this process runs as {os.geteuid()}"
    if kind == stat.S_IFDIR:
        return "" if mode & 0o777 == stat.S_IRWXU else f"its mode is {mode & 0o777:04o} instead of 0700"
    if mode & _OTHERS:
        return f"its mode is {mode & 0o777:04o} instead of 0600"
    return "" if found.st_nlink == 1 else f"it has {found.st_nlink} names (hard links)"


def _reason(error: OSError, name: str, at: int | None, kind: int) -> Exception:
    """Stranger where that is why it could not be opened, else the error."""
    try:
        found = os.stat(name, dir_fd=at, follow_symlinks=False)
    except OSError:
        return error
    why = doubt(found, kind)
    return Stranger(why) if why else error
