"""Webware's sessions in memory, one by one; and those that its SessionDynamicStore has moved into files."""

from __future__ import annotations

import io
import pickle
import re
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from lbadaptor.appserver.sessions.stores.access import Busy, Content
from lbadaptor.appserver.sessions.stores.pickling import mark_of, refusal, unloadable

MOVE_SECONDS = 0.05
"""How long to wait for a session that SessionDynamicStore is moving between memory and file, at most."""

_IDENT = re.compile(r"[!-.0-~]{1,200}").fullmatch
"""Webware takes any text for an id, and makes it part of a file's name. Its own have SessionPrefix and hex digits."""

_ACCESS = ("_lastAccessTime", "_numTrans")
"""What Session.awake changes, for each request."""

_UNCHANGING = {"_lastAccessTime": 0.0, "_numTrans": 0, "_dirty": True}
"""What is pickled in their place. Dirty, because no file of the next process has the session yet: with
AlwaysSaveSessions = False, a SessionDynamicStore writes no other."""


@dataclass
class WebwareAccess:
    """A `SessionAccess`. SessionMemoryStore holds sessions in a dictionary, SessionDynamicStore in such a one and in
    files.

    Webware has no lock for a session: what other threads change meanwhile may be read by half. A session is pickled
    as a whole: an encoder of the application's (`setEncoderDecoder`) is for SessionDynamicStore's own files only.
    A session whose id is in a URL (UseAutomaticPathSessions, a field) is not found by its cookie.
    """

    store: Any
    memory: Any
    """the SessionMemoryStore that `store` is or has"""
    kind: str = "webware"
    secret: str = ""

    def __post_init__(self) -> None:
        dynamic = self.store is not self.memory
        self._memory: dict[str, Any] = self.memory._store
        self._files = self.store._fileStore if dynamic else None
        self._lock = self.store._lock if dynamic else threading.RLock()

    def ident(self, values: Sequence[str]) -> str:
        """The first value. A SessionPrefix of another process is accepted, as Webware does."""
        return values[0] if values and _IDENT(values[0]) else ""

    def read(self, ident: str) -> Content | None:
        """Leaves the session where it is, in memory or in a file. Raises Unsaveable; Busy while a session moves from
        one to the other, or another thread changes this one."""
        session = self._memory.get(ident)
        if session is None and self._files is not None:
            with self._still(0.0) as still:
                if not still:
                    raise Busy
                session = self._found(ident)
        if session is None or not _valid(session):
            return None
        data, mark = _pickled(session)
        timeout = session.timeout()
        return Content(data, 0.0 if timeout is None else session.lastAccessTime() + timeout, mark)

    def has(self, ident: str) -> bool:
        """An ended session that is in a file counts as long as the file is there: only the pickle tells its end.

        Yes in doubt, after MOVE_SECONDS: when another thread is moving sessions all the time.
        """
        session = self._memory.get(ident)
        if session is not None or self._files is None:
            return session is not None and _valid(session)
        if ident in self._files:
            return True
        with self._still(MOVE_SECONDS) as still:
            return not still or ident in self._memory or ident in self._files

    def put(self, ident: str, data: bytes, ends: float) -> None:
        """Puts it into memory. Raises Unloadable. Waits for MOVE_SECONDS at most."""
        session = _loaded(ident, data, ends)
        if not _valid(session):  # Webware would go on with it: it looks at the end in its sweeper only
            return
        with self._still(MOVE_SECONDS):
            there = self._found(ident)
            if there is not None and _valid(there):
                return
            if self._memory.setdefault(ident, session) is there:  # it has ended
                self._memory[ident] = session

    def drop(self, ident: str) -> None:
        """Waits for MOVE_SECONDS at most. The session is not told that it ends (`expiring`): it goes on elsewhere."""
        with self._still(MOVE_SECONDS):
            self._memory.pop(ident, None)
            if self._files is not None:
                self._files.removeKey(ident)

    @contextmanager
    def _still(self, seconds: float) -> Iterator[bool]:
        """Keep sessions from moving between memory and files. Yields whether this is so, after `seconds` at most."""
        held = self._lock.acquire(timeout=seconds)
        try:
            yield held
        finally:
            if held:
                self._lock.release()

    def _found(self, ident: str) -> Any:
        """The session in memory, else a copy of that in a file, else None."""
        session = self._memory.get(ident)
        if session is not None or self._files is None:
            return session
        try:
            with open(self._files.filenameForKey(ident), "rb") as file:
                return self._files.decoder()(file)
        except Exception:  # there is none; or it cannot be loaded, then Webware has none either
            return None


def lives(session: Any, now: float) -> bool:
    """Whether Webware's sweeper leaves the session in its store at that unix time."""
    timeout = session.timeout()
    return timeout is None or now < session.lastAccessTime() + timeout


def _valid(session: Any) -> bool:
    return lives(session, time.time()) and not session.isExpired()


def _pickled(session: Any) -> tuple[bytes, bytes]:
    """A session's data and mark. Raises Unsaveable, Busy."""
    file = io.BytesIO()
    pickler = _SessionPickler(file, session)
    try:
        pickler.dump(session)
    except Exception as error:  # any method of the application's classes may run
        raise refusal(session, error) from error
    pickled = file.getvalue()
    return pickle.dumps((pickler.access, pickled), pickle.HIGHEST_PROTOCOL), mark_of(pickled)


def _loaded(ident: str, data: bytes, ends: float) -> Any:
    """A session from its data. Raises Unloadable."""
    try:
        access, pickled = pickle.loads(data)
        session = pickle.loads(pickled)
        timeout = session.timeout()
        if timeout is not None and "_lastAccessTime" in access:
            access["_lastAccessTime"] = ends - timeout  # later than in `data` when only the end was written anew
        for name, value in access.items():
            setattr(session, name, value)
        known_as = session.identifier()
    except Exception as error:
        raise unloadable(error) from error
    if known_as != ident:
        raise unloadable(ValueError("it is the session of another id"))
    return session


class _SessionPickler(pickle.Pickler):
    """Pickles a session without what each request changes, and keeps that aside in `access`."""

    def __init__(self, file: io.BytesIO, session: Any) -> None:
        super().__init__(file, pickle.HIGHEST_PROTOCOL)
        self._session = session
        self.access: dict[str, Any] = {}

    def reducer_override(self, value: Any) -> Any:
        if value is not self._session:
            return NotImplemented
        reduced = value.__reduce_ex__(pickle.HIGHEST_PROTOCOL)
        state = reduced[2] if isinstance(reduced, tuple) and len(reduced) > 2 else None
        if not isinstance(state, dict):  # a class with a __getstate__ of its own: its mark changes with each request
            return reduced
        state = dict(state)
        self.access = {name: state[name] for name in _ACCESS if name in state}
        state.update({name: same for name, same in _UNCHANGING.items() if name in state})
        return (*reduced[:2], state, *reduced[3:])
