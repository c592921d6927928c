"""Which file system a folder is on, by /proc/self/mountinfo (proc_pid_mountinfo(5)).

A lock (flock) on a network file system may hold between machines, or not at all; and a server that does not answer
stops every process that looks.
"""

from __future__ import annotations

import contextlib
import os
import re
from pathlib import Path
from typing import NamedTuple

MOUNTINFO = Path("/proc/self/mountinfo")
REMOTE = frozenset(
    (
        *("nfs", "nfs4", "cifs", "smb3", "smbfs", "ncpfs", "9p", "virtiofs", "vboxsf", "afs", "coda"),
        *("ceph", "glusterfs", "lustre", "gpfs", "beegfs", "orangefs", "pvfs2", "ocfs2", "gfs2"),
    )
)
"""Types whose files other machines can have, too."""
_LOCAL_FUSE = ("fuse.fuse-overlayfs",)
"""Of the file systems that a program provides, those that are known to be on this machine: of containers."""


class Mount(NamedTuple):
    number: str
    point: str
    kind: str


def remote(kind: str) -> bool:
    """Whether a file system of this type is another machine's, or may be: a program provides it (FUSE)."""
    return kind in REMOTE or kind == "fuse" or (kind.startswith("fuse.") and kind not in _LOCAL_FUSE)


def of_descriptor(descriptor: int, path: Path) -> str:
    """The type of the file system that an open folder is on; empty: unknown. `path` leads to that folder."""
    found = {mount.number: mount.kind for mount in _mounts()}
    with contextlib.suppress(OSError):
        for line in Path(f"/proc/self/fdinfo/{descriptor}").read_text("ascii").splitlines():
            name, _, value = line.partition(":")
            if name == "mnt_id" and value.strip() in found:
                return found[value.strip()]
    return of_path(os.path.realpath(path))


def of_path(path: str) -> str:
    """The same of a path, as far as its text tells: the path is not looked at, which could block."""
    best = Mount("", "", "")
    for mount in _mounts():  # of several in one place the last one counts
        inside = path == mount.point or path.startswith(mount.point.rstrip("/") + "/")
        if inside and len(mount.point) >= len(best.point):
            best = mount
    return best.kind


def _mounts() -> list[Mount]:
    try:
        lines = MOUNTINFO.read_text("utf-8", "surrogateescape").splitlines()
    except OSError:
        return []
    found = []
    for line in lines:
        before, dash, after = line.partition(" - ")
        words = before.split(" ")
        if dash and len(words) > 4:
            found.append(Mount(words[0], _plain(words[4]), after.split(" ")[0]))
    return found


def _plain(text: str) -> str:
    r"""A path as it is: blanks stand as \040 there."""
    return re.sub(r"\\([0-7]{3})", lambda found: chr(int(found[1], 8)), text)
