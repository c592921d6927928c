"""Django's sessions in a cache in memory (`LocMemCache`), one by one."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from lbadaptor.appserver.sessions.stores.access import Content, Unloadable
from lbadaptor.appserver.sessions.stores.locks import held
from lbadaptor.appserver.sessions.stores.pickling import loads

_ENDED = -1.0


@dataclass
class DjangoAccess:
    """A `SessionAccess`. The cache holds pickles, and beside them when each one ends.

    Reading takes no lock, and leaves the order alone in which the cache drops its entries. An entry may be added and
    removed under the lock alone, for it is in two dictionaries.
    """

    session_class: Any
    """the `SessionStore` of SESSION_ENGINE"""
    backend: Any
    """the cache; the objects that other threads have of it share its dictionaries and its lock"""
    kind: str = "django"
    secret: str = ""

    def ident(self, values: Sequence[str]) -> str:
        """The last value (`django.http.parse_cookie`), if it may be a session's key."""
        try:
            value = values[-1].encode("latin-1").decode("utf-8", "replace")  # as WSGIRequest.COOKIES has it
            ident: str = self.session_class(value).session_key or ""
            self._key(ident)  # a KEY_FUNCTION may refuse it
            return ident
        except Exception:
            return ""

    def read(self, ident: str) -> Content | None:
        key = self._key(ident)
        data, ends = self.backend._cache.get(key), self.backend._expire_info.get(key, _ENDED)
        if data is None or not _lives(ends):
            return None
        return Content(data, ends or 0.0, data)

    def has(self, ident: str) -> bool:
        return _lives(self.backend._expire_info.get(self._key(ident), _ENDED))

    def put(self, ident: str, data: bytes, ends: float) -> None:
        """Also raises Busy: the cache's lock was held for `locks.PATIENCE`."""
        if not _lives(ends or None) or self.has(ident):
            return
        if not isinstance(loads(data), dict):
            raise Unloadable("it is not a pickled session")
        key, backend = self._key(ident), self.backend
        with held(backend._lock):  # no `set`: a full cache first drops a third of its entries
            if not self.has(ident):
                backend._cache[key] = data
                backend._cache.move_to_end(key, last=False)  # where it looks last for what to drop
                backend._expire_info[key] = ends or None

    def drop(self, ident: str) -> None:
        key, backend = self._key(ident), self.backend
        if backend._lock.acquire(blocking=False):
            try:
                backend._delete(key)
            finally:
                backend._lock.release()
        elif key in backend._expire_info:
            backend._expire_info[key] = _ENDED

    def _key(self, ident: str) -> str:
        key: str = self.backend.make_key(self.session_class.cache_key_prefix + ident)
        return key


def _lives(ends: float | None) -> bool:
    return ends is None or ends > time.time()  # as LocMemCache itself has it
