"""Whether a folder can be trusted: no other user can write into it, or put another in its place."""

from __future__ import annotations

import contextlib
import errno
import os
import stat
from pathlib import Path


def refuse_untrusted(path: Path, found: os.stat_result, writers: int, sticky: bool) -> None:
    """Raise PermissionError for a folder that belongs to another user, or that others can write to.

    `sticky`: others may write to a folder with the sticky bit, since they cannot rename what is not theirs.
    """
    if found.st_uid not in (0, os.geteuid()):
        raise PermissionError(
            errno.EPERM, f"it belongs to user {found.st_uid}, who could put another in its place", str(path)
        )
    if found.st_mode & writers and not (sticky and found.st_mode & stat.S_ISVTX):
        raise PermissionError(errno.EPERM, "others can write to it", str(path))


def refuse_untrusted_parents(folder: Path) -> None:
    """The same for all folders above a folder."""
    for above in Path(os.path.realpath(folder)).parents:
        with contextlib.suppress(FileNotFoundError):
            refuse_untrusted(above, os.lstat(above), stat.S_IWOTH, sticky=True)
