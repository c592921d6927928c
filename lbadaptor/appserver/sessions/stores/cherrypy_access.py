"""CherryPy's sessions in memory, one by one."""

from __future__ import annotations

import datetime
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from http.cookies import CookieError, SimpleCookie
from typing import Any

from lbadaptor.appserver.sessions.stores.access import Busy, Content, Unloadable
from lbadaptor.appserver.sessions.stores.objects import name_of
from lbadaptor.appserver.sessions.stores.pickling import dumps, loads, mark_of

Entry = tuple[dict[str, Any], datetime.datetime]
"""a session's values, and its end in the time that `RamSession.now` has"""


@dataclass
class CherryPyAccess:
    """A `SessionAccess`. RamSession and its subclasses hold sessions in the dictionaries `cache` and `locks`.

    CherryPy holds a session's lock from before the page handler until it saves the session; `read` raises Busy
    then, except in the thread that holds the lock. With `locking` "explicit", CherryPy takes no lock by itself: what
    a handler changes is seen at once, perhaps half of it.

    A page with `response.stream` saves its session when the answer is closed. Until then, a session that began with
    this answer is not in the store, and another one has the end that it had before: what is read before the head,
    or before the last byte, does not tell of them.
    """

    store: Any
    """the class"""
    kind: str = "cherrypy"
    secret: str = ""

    def ident(self, values: Sequence[str]) -> str:
        """The last value that Python's SimpleCookie reads, as in a header with no other cookies. Any text may be an
        id: CherryPy accepts what is in its cache."""
        cookies = SimpleCookie()
        try:
            cookies.load("; ".join(f"id={value}" for value in values))
        except CookieError:  # CherryPy answers 400
            return ""
        return cookies["id"].value if "id" in cookies else ""

    def read(self, ident: str) -> Content | None:
        """Pickles under the session's lock. An ended session that CherryPy has not cleaned up yet is none: CherryPy
        empties it when it is used."""
        if not self.has(ident):
            return None
        lock = self.store.locks.setdefault(ident, threading.RLock())  # as RamSession does; its clean-up removes it
        if not lock.acquire(blocking=False):
            raise Busy
        try:
            entry = self.store.cache.get(ident)
            if entry is None:
                return None
            values, ends = entry
            data = dumps(values)
        finally:
            lock.release()
        return Content(data, ends.timestamp(), mark_of(data))

    def has(self, ident: str) -> bool:
        entry = self.store.cache.get(ident)
        return entry is not None and _lives(entry)

    def put(self, ident: str, data: bytes, ends: float) -> None:
        values = loads(data)
        if not isinstance(values, dict):
            raise Unloadable(f"{name_of(type(values))} is no dictionary")
        entry = (values, datetime.datetime.fromtimestamp(ends, self._zone))
        if not _lives(entry):  # CherryPy would go on with an empty session of this id
            return
        there = self.store.cache.setdefault(ident, entry)
        if there is not entry and not _lives(there):
            self.store.cache[ident] = entry

    def drop(self, ident: str) -> None:
        self.store.cache.pop(ident, None)

    @property
    def _zone(self) -> datetime.tzinfo | None:
        """Of the ends in the store. RamSession has none, which is local time; a subclass may have another `now`."""
        now: datetime.datetime = object.__new__(self.store).now()
        return now.tzinfo


def _lives(entry: Entry) -> bool:
    _, ends = entry
    return ends > datetime.datetime.now(ends.tzinfo)
