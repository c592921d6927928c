"""Who may read what, by owners and modes. Pure.

Access control lists may allow more, so a file with one counts as readable.
"""

from __future__ import annotations

import stat
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

READ, WRITE, ENTER = 4, 2, 1
_VERBS = {READ: "read", WRITE: "write to", ENTER: "enter"}


@dataclass(frozen=True)
class Who:
    """A user and all groups of a process."""

    name: str
    uid: int
    gids: frozenset[int]
    group: str = ""
    """the group that a cure names"""


@dataclass(frozen=True)
class Inode:
    """A file or folder."""

    path: Path
    uid: int
    gid: int
    mode: int
    has_acl: bool = False

    @property
    def is_folder(self) -> bool:
        return stat.S_ISDIR(self.mode)


def may(who: Who, inode: Inode, what: int) -> bool:
    """Whether READ, WRITE or ENTER is allowed (path_resolution(7))."""
    if who.uid == 0 or inode.has_acl:
        return True
    if inode.uid == who.uid:
        return bool(inode.mode >> 6 & what)
    if inode.gid in who.gids:
        return bool(inode.mode >> 3 & what)
    return bool(inode.mode & what)


def obstacle(who: Who, way: Sequence[Inode], what: int) -> tuple[str, str]:
    """What stands in the way to the last of these, folder by folder, and the cure; both empty: nothing."""
    for number, inode in enumerate(way):
        wanted = what if number == len(way) - 1 else ENTER
        if not may(who, inode, wanted):
            return f"{who.name} may not {_VERBS[wanted]} {inode.path} ({mode(inode)})", _cure(who, inode, wanted)
    return "", ""


def mode(inode: Inode) -> str:
    return f"mode {stat.S_IMODE(inode.mode):04o}"


def _cure(who: Who, inode: Inode, what: int) -> str:
    if what == ENTER:
        return f"`chmod o+x {inode.path}`, or move what is in it to a folder that all may enter, such as /opt"
    if inode.gid in who.gids:
        return f"`chmod g+{'w' if what == WRITE else 'r'} {inode.path}`"
    letter = "w" if what == WRITE else "r"
    return f"`chgrp {who.group or who.name} {inode.path} && chmod g+{letter} {inode.path}`"
