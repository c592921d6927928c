"""Flask-Session's sessions in cachelib's `SimpleCache`, one by one."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from lbadaptor.appserver.sessions.stores.access import Content, Unloadable, Unsaveable
from lbadaptor.appserver.sessions.stores.locks import held
from lbadaptor.appserver.sessions.stores.pickling import unloadable

_REMOVED = (1, b"")
"""an entry of the cache that ended in 1970"""


@dataclass
class FlaskAccess:
    """A `SessionAccess`. The cache holds pickles: each request that saves its session makes a new one.

    Reading takes no lock, for the cache replaces an entry in one step. An entry is added and removed under the lock
    alone: the cache goes through its dictionary there, and that must not change its size meanwhile.
    """

    cache: Any
    cookie: str
    prefix: str
    """what the cache's keys of sessions begin with; the session's id follows"""
    unsign: Callable[[str], str] | None = field(compare=False)
    """takes the signature off the cookie's value, or raises; None: it is not signed"""
    secret: str
    kind: str = "flask"

    def ident(self, values: Sequence[str]) -> str:
        """The first value that is well-formed, as `request.cookies.get` has it."""
        from werkzeug.http import parse_cookie

        try:
            header = "; ".join(f"{self.cookie}={value}" for value in values)
            value = parse_cookie(header).get(self.cookie, "")
            return self.unsign(value) if value and self.unsign else value
        except Exception:  # BadSignature; what is not UTF-8
            return ""

    def read(self, ident: str) -> Content | None:
        entry = self.cache._cache.get(self.prefix + ident)
        if entry is None or not _lives(entry[0]):
            return None
        ends, data = entry
        if data is None:  # it has logged the PicklingError; the session is lost for Flask, too
            raise Unsaveable("a type that cachelib could not pickle")
        return Content(data, float(ends), data)

    def has(self, ident: str) -> bool:
        entry = self.cache._cache.get(self.prefix + ident)
        return entry is not None and _lives(entry[0])

    def put(self, ident: str, data: bytes, ends: float) -> None:
        """Also raises Busy: the cache's lock was held for `locks.PATIENCE`."""
        if not _lives(ends) or self.has(ident):
            return
        try:
            session = self.cache.serializer.loads(data)
        except Exception as error:
            raise unloadable(error) from error
        if not isinstance(session, dict):
            raise Unloadable("it is not a pickled session")
        with held(self.cache._lock):  # no `set`: it would first drop what the threshold leaves no room for
            if not self.has(ident):
                self.cache._cache[self.prefix + ident] = (ends, data)

    def drop(self, ident: str) -> None:
        key = self.prefix + ident
        if self.cache._lock.acquire(blocking=False):
            try:
                self.cache._cache.pop(key, None)
            finally:
                self.cache._lock.release()
        elif key in self.cache._cache:
            self.cache._cache[key] = _REMOVED


def _lives(ends: float) -> bool:
    return ends == 0 or ends > time.time()  # as SimpleCache itself has it
