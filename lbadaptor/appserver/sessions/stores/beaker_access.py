"""Beaker's sessions in memory, one by one."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from lbadaptor.appserver.sessions.stores.access import Content, Unloadable
from lbadaptor.appserver.sessions.stores.pickling import mark_of, unloadable

MOST_KNOWN = 100_000
"""Sessions whose end is remembered: about 25 MB."""

_ENTRY = "session"
"""where Beaker puts a session within the namespace of its id"""
_TIMES = ("_accessed_time", "_creation_time")
_OWN = {*_TIMES, "_domain", "_path"}


@dataclass
class BeakerAccess:
    """A `SessionAccess`. Beaker holds texts (pickles or JSON in base64, encrypted if it is so set up), each in a
    dictionary of its own, and takes no lock for them.

    A session's end is within its text, and so is its last use, which every visit changes: reading decodes it.
    """

    options: dict[str, Any]
    """of Beaker's SessionMiddleware"""
    secret: str
    kind: str = "beaker"
    _known: dict[str, tuple[int, float | None]] = field(default_factory=dict, compare=False, repr=False)
    """by id: the hash of a text, and when the session ends by it (`_end`)"""

    def ident(self, values: Sequence[str]) -> str:
        """The last value, without its signature, as Beaker's own cookie reads it."""
        from beaker.cookie import SimpleCookie
        from beaker.session import SignedCookie

        key, secret = self.options["key"], self.options.get("secret")
        header = "; ".join(f"{key}={value}" for value in values)
        try:
            cookie = SignedCookie(secret, input=header) if secret else SimpleCookie(input=header)
            value = cookie[key].value
        except Exception:  # there is none
            return ""
        return value if isinstance(value, str) else ""  # else its signature is wrong

    def read(self, ident: str) -> Content | None:
        text = self._text(ident)
        if text is None:
            return None
        session = self._decoded(text)
        end = self._remember(ident, text, session)
        if session is None or not _lives(end):
            return None
        return Content(text.encode(), end or 0.0, self._mark(text, session))

    def has(self, ident: str) -> bool:
        """Decodes a text that it has not seen before, to learn when the session ends."""
        text = self._text(ident)
        if text is None:
            self._known.pop(ident, None)
            return False
        known = self._known.get(ident)
        if known is not None and known[0] == hash(text):
            return _lives(known[1])
        return _lives(self._remember(ident, text, self._decoded(text)))

    def put(self, ident: str, data: bytes, ends: float) -> None:
        try:
            text = data.decode("ascii")
            session = self._codec._decrypt_data(text)
        except Exception as error:
            raise unloadable(error) from error
        if not isinstance(session, dict):
            raise Unloadable("it is not a session of Beaker's")
        if not _lives(self._end(session)) or self.has(ident):
            return
        namespace = _namespaces().get(ident, dict)
        ended = namespace.pop(_ENTRY, None)
        if ended is not None and _lives(self._remember(ident, ended, self._decoded(ended))):
            text = ended  # a request has just put a living one there
        namespace.setdefault(_ENTRY, text)

    def drop(self, ident: str) -> None:
        namespaces = _namespaces().dict
        namespace = namespaces.get(ident)
        if namespace is None:
            return
        if namespace.pop(_ENTRY, None) is not None and not namespace:
            namespaces.pop(ident, None)  # Beaker itself never does
        self._known.pop(ident, None)

    @cached_property
    def _codec(self) -> Any:
        """A session of Beaker's that is in no store: it knows how this application's are encoded."""
        from beaker.session import Session

        return Session({}, **{**self.options, "use_cookies": False})

    def _text(self, ident: str) -> str | None:
        text = (_namespaces().dict.get(ident) or {}).get(_ENTRY)
        return text if isinstance(text, str) else None

    def _decoded(self, text: str) -> dict[str, Any] | None:
        """None: it cannot be decoded, and Beaker would begin a new session."""
        try:
            session = self._codec._decrypt_data(text)
        except Exception:
            return None
        return session if isinstance(session, dict) else None

    def _mark(self, text: str, session: dict[str, Any]) -> bytes:
        try:
            encoded = self._codec.serializer.dumps({key: session[key] for key in session if key not in _TIMES})
        except Exception:  # what was loaded cannot be saved again; then each visit counts as a change
            encoded = text
        return mark_of(encoded.encode() if isinstance(encoded, str) else encoded)

    def _remember(self, ident: str, text: str, session: dict[str, Any] | None) -> float | None:
        end = None if session is None else self._end(session)
        if len(self._known) >= MOST_KNOWN:
            self._known.clear()
        self._known[ident] = (hash(text), end)
        return end

    def _end(self, session: dict[str, Any]) -> float | None:
        """Unix time when a session ends, 0.0: it does not; None: it has ended.

        `delete()` and `clear()` leave a session without a creation time in the store.
        """
        if "_creation_time" not in session and session.keys() <= _OWN:
            return None
        timeout, used = self.options.get("timeout"), session.get("_accessed_time")
        return 0.0 if timeout is None or used is None else float(used + timeout)


def _namespaces() -> Any:
    from beaker.container import MemoryNamespaceManager

    return MemoryNamespaceManager.namespaces


def _lives(end: float | None) -> bool:
    return end is not None and (end == 0 or end >= time.time())  # as Session.load has it
