"""One session that lives in this process, and what its file holds."""

from __future__ import annotations

from enum import Enum
from threading import Lock

from lbadaptor.appserver.sessions.persistence.format import Head

MAX_VALUES = 8
"""Values of the session cookie by which a session is known at admission, the latest ones. An application that signs
the cookie may set another value with each answer."""


class FileState(Enum):
    """What a session's file holds."""

    NONE = "there is no file"
    BARE = "a bare head"
    WHOLE = "the session as of its last answer"


class Kept:
    """One session. `lock` is held while its store is read and its file is written, removed or moved, and by the
    thread that looks for it. `pending`, `leaving` and `values` are changed under the lock of the Keeper."""

    __slots__ = (
        "dirty",
        "file",
        "head",
        "here",
        "ident",
        "leaving",
        "lock",
        "lost",
        "mark",
        "missed",
        "name",
        "pending",
        "size",
        "values",
        "whereto",
        "why",
    )

    def __init__(self, ident: str, name: str, head: Head) -> None:
        self.ident = ident
        """the store's own id"""
        self.name = name
        """of its file"""
        self.head = head
        """as it is in the file, or will be"""
        self.lock = Lock()
        self.pending = 0
        """its requests that wait for a thread or are at work"""
        self.leaving = False
        """it is being moved"""
        self.here = False
        """it lives in this process"""
        self.lost = False
        """there was a file of it, and nothing that could be loaded"""
        self.missed = False
        """it was looked for, and nobody has it"""
        self.whereto: tuple[int, int] | None = None
        """slot and generation of the living AppServer that has its file"""
        self.values: list[str] = []
        """values of the session cookie, at most MAX_VALUES, as the table of sessions has them (`table.short`)"""
        self.file = FileState.NONE
        self.mark: bytes | None = None
        """of the content that the file holds"""
        self.size = 0
        """bytes on disk"""
        self.why = ""
        """why it is not saved; empty: it is"""
        self.dirty = False
        """the store could not be read when it should have been"""
