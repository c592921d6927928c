"""Renames without replacing what has the new name: renameat2(2), which Python does not offer."""

from __future__ import annotations

import ctypes
import errno
import os

_NOREPLACE = 1
"""RENAME_NOREPLACE of linux/fs.h"""
_UNKNOWN = (errno.EINVAL, errno.ENOSYS, errno.EPERM)
"""The kernel, the file system, or the filter of a container does not know it."""

_libc = ctypes.CDLL(None, use_errno=True)


def rename_new(name: str, source: int, target: int, new_name: str = "") -> None:
    """Rename within a file system, from one folder into another; both are descriptors. `new_name` empty: the same.

    Not `link` and `unlink`: between the two a taker may rename the one, and the other stays as a second copy.
    Raises FileExistsError, FileNotFoundError, another OSError.
    """
    new_name = new_name or name
    code = _renameat2(name, source, new_name, target)
    if code in _UNKNOWN:
        try:
            os.stat(new_name, dir_fd=target, follow_symlinks=False)
        except FileNotFoundError:
            os.rename(name, new_name, src_dir_fd=source, dst_dir_fd=target)
            return
        code = errno.EEXIST
    if code:
        raise OSError(code, os.strerror(code), name, None, new_name)


def _renameat2(name: str, source: int, new_name: str, target: int) -> int:
    """0, or the error's number."""
    function = getattr(_libc, "renameat2", None)  # glibc has it from 2.28 on
    if function is None:
        return errno.ENOSYS
    if function(source, os.fsencode(name), target, os.fsencode(new_name), ctypes.c_uint(_NOREPLACE)):
        return ctypes.get_errno()
    return 0
