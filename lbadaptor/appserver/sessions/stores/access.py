"""What a store has to offer so that its sessions can outlive their process: read, load and drop one of them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, Protocol


class Content(NamedTuple):
    """A session as it is to be saved."""

    data: bytes
    ends: float
    """unix time when the store drops it; 0.0: the store does not tell"""
    mark: bytes
    """the same as long as nothing has changed but access times. Often `data` itself, the store's own object"""


class Unsaveable(Exception):
    """The session cannot be saved; the text is the name of the type that stands against it (such as
    `_io.TextIOWrapper`)."""


class Busy(Exception):
    """The store's own lock for this session is held; the caller tries again later."""


class Unloadable(Exception):
    """What was saved cannot be loaded here; the text says why."""


class SessionAccess(Protocol):
    """One store of this process, session by session. Any thread may call it. Nothing here waits for a lock of the
    framework's (Busy)."""

    kind: str
    """such as "flask": part of a session file's name, so never change it"""
    secret: str
    """hex digest (16 characters) of the key that signs the session cookie; empty where the cookie is not signed"""

    def ident(self, values: Sequence[str]) -> str:
        """The store's id of the session that the framework takes from these values of the session cookie, in the
        order of the Cookie header; empty: it would accept none. No look at the store. Never raises."""
        ...

    def read(self, ident: str) -> Content | None:
        """The session as it is now; None: the store has no living session of this id. Raises Unsaveable, Busy."""
        ...

    def has(self, ident: str) -> bool:
        """Whether the store has a living session of this id. Cheap: no pickling."""
        ...

    def put(self, ident: str, data: bytes, ends: float) -> None:
        """Load what `read` gave, directly: nothing is evicted, a living session of this id is never replaced (then
        it does nothing). Raises Unloadable."""
        ...

    def drop(self, ident: str) -> None:
        """Take the session out of the store, as after a move. Not there: nothing. Never raises."""
        ...
