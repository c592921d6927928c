"""A store of sessions that is a dictionary, for tests of how sessions outlive their process."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from lbadaptor.appserver.sessions.stores.access import Busy, Content, Unsaveable

NOW = 1_900_000_000.0


class Store:
    """A framework's store. Ids begin with "id"; a cookie may have anything behind a point."""

    kind = "dictionary"
    secret = "5ec3e7"

    def __init__(self) -> None:
        self.sessions: dict[str, bytes] = {}
        self.ends = NOW + 1000
        self.busy = False
        self.unsaveable = ""
        self.unloadable: Exception | None = None
        self.reading: Callable[[], object] = lambda: None

    def ident(self, values: Sequence[str]) -> str:
        return next((value.partition(".")[0] for value in values if value.startswith("id")), "")

    def read(self, ident: str) -> Content | None:
        self.reading()
        if self.busy:
            raise Busy
        if self.unsaveable:
            raise Unsaveable(self.unsaveable)
        data = self.sessions.get(ident)
        return None if data is None else Content(data, self.ends, data)

    def has(self, ident: str) -> bool:
        return ident in self.sessions

    def put(self, ident: str, data: bytes, ends: float) -> None:
        if self.unloadable is not None:
            raise self.unloadable
        self.sessions.setdefault(ident, data)

    def drop(self, ident: str) -> None:
        self.sessions.pop(ident, None)
