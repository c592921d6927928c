"""Which sessions live in this process and have a file; which of their requests are under way.

The polling thread calls `enter`. The thread that serves a request calls `arrive` before the application, `register`
and `save` at the answer, `left` at the end. The main thread calls `look` and `leave`. The polling thread never waits
for the lock of a session. An answer goes out whatever becomes of a file.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from threading import Lock

from msgspec.structs import replace

from lbadaptor.appserver.sessions.persistence.kept import MAX_VALUES, Kept
from lbadaptor.appserver.sessions.persistence.saver import Moved, Saver, say
from lbadaptor.appserver.sessions.table import short

LOCK_PATIENCE = 2.0
"""Seconds for which a thread waits while another one takes, saves or moves its session."""
MOST_REASONS = 8
"""Reasons that are told apart: their words may be the application's."""
LOOK_TIME = 0.02
"""Seconds that one look at the sessions may take. The next one goes on where it stopped."""


@dataclass
class Figures:
    """For the answer to a probe."""

    saved: int = 0
    """sessions whose file is as it should be"""
    unsaved: dict[str, int] = field(default_factory=dict)
    """sessions that are not saved, by why"""
    moved_out: int = 0
    """sessions that have left since the start"""
    taken: int = 0
    """sessions that were taken over since the start"""

    def count(self, why: str) -> None:
        """A session more, and why it is not saved."""
        if not why:
            self.saved += 1
            return
        if why not in self.unsaved and len(self.unsaved) >= MOST_REASONS:
            why = "other reasons"
        self.unsaved[why] = self.unsaved.get(why, 0) + 1


Gone = Callable[[Sequence[str], Callable[[str], bool]], object]


class Keeper:
    """`gone` is called with values of the session cookie of a session that does not live here any more, and with a
    function that tells whether a value is one of a session that does. Both mean values as `short` makes them."""

    def __init__(self, saver: Saver, gone: Gone) -> None:
        self.access = saver.access
        self.figures = Figures()
        self.active = False
        """sessions are kept. Not before the warm-up is over: its sessions are no visitors'"""
        self._saver = saver
        self._gone = gone
        self._lock = Lock()
        self._by_ident: dict[str, Kept] = {}
        self._by_value: dict[str, Kept] = {}
        self._to_look: Iterator[Kept] | None = None
        """those at which a look has still to come; None: a new one begins with all"""
        self._looked = Figures()

    # The polling thread.

    def enter(self, values: Sequence[str]) -> Kept | None:
        """A request has brought these values of the session cookie: its session, if it is kept here. The request
        counts as pending until `left`."""
        if len(values) == 1:
            kept = self._by_value.get(short(values[0]))
        else:
            ident = self.access.ident(values) if values else ""
            kept = self._by_ident.get(ident)
        if kept is None:
            return None
        with self._lock:
            if self._by_ident.get(kept.ident) is not kept:
                return None
            kept.pending += 1
        return kept

    # The thread that serves a request.

    def await_move(self, kept: Kept) -> None:
        """Wait while a session that is kept here is moved, and let the application be called if it stays.

        Blocks for LOCK_PATIENCE at most. Raises Moved.
        """
        if not kept.here or kept.leaving:
            with self._locked(kept):
                if not kept.here:
                    raise Moved(kept.whereto)

    def arrive(self, values: Sequence[str], search: bool) -> tuple[Kept | None, bool]:
        """A request has brought a session that is not known here. The session, if it lives here now (then the request
        counts as pending) or was lost; and whether it has just come.

        `search`: look for its file. Blocks for disk. Raises Moved.
        """
        ident = self.access.ident(values)
        if not ident:
            return None, False
        with self._lock:
            kept = self._by_ident.get(ident)
            first = kept is None
            if kept is None:
                kept = self._by_ident[ident] = self._saver.new(ident)
                kept.lock.acquire()
            kept.pending += 1
        try:
            if first:
                came = self._look_for(kept, search)
            else:  # another request has brought it at the same moment, or by another value
                came = not kept.here
                if came or kept.leaving:
                    with self._locked(kept):
                        pass
        except BaseException:
            self.left(kept)
            raise
        if kept.here:
            self._know(kept, values)
            return kept, came
        self.left(kept)
        if kept.lost:
            return kept, False
        if not kept.missed:
            raise Moved(kept.whereto)
        return None, False

    def _look_for(self, kept: Kept, search: bool) -> bool:
        """Whether it was taken over. This thread has the session's lock, and releases it. Raises Moved."""
        taken = False
        try:
            if self.access.has(kept.ident):
                kept.here = True
            elif not search:
                kept.missed = True
            elif taken := self._saver.take(kept):
                self.figures.taken += 1
        finally:
            if not kept.here:
                self._forget(kept)
            kept.lock.release()
        return taken

    def register(self, value: str, attributes: tuple[str, ...], cookie_ends: float) -> Kept | None:
        """An answer sets this session cookie: its session, and the request counts as pending. None where the store
        does not hold it. `attributes`, `cookie_ends`: as in a file's head."""
        kept = self.enter((value,))  # the same cookie again: the store need not read it
        if kept is None:
            ident = self.access.ident((value,))
            kept = self._begun(ident) if ident and self.active else None
        if kept is None:
            return None
        if kept.head.attributes != attributes or self._saver.later(cookie_ends, kept.head.cookie_ends):
            with contextlib.suppress(Moved), self._locked(kept):
                kept.head = replace(kept.head, attributes=attributes, cookie_ends=cookie_ends)
                kept.dirty = True
        self._know(kept, (value,))
        return kept

    def _begun(self, ident: str) -> Kept | None:
        """A session that the store holds; the request counts as pending. None also while others look for it for
        longer than LOCK_PATIENCE."""
        with contextlib.suppress(Moved):
            while self._holds(ident):
                with self._lock:
                    kept = self._by_ident.get(ident)
                    if kept is None:
                        kept = self._by_ident[ident] = self._saver.new(ident)
                        kept.here = True
                    kept.pending += 1
                if kept.here or self._found(kept):
                    return kept
        return None

    def _found(self, kept: Kept) -> bool:
        """Whether another request, which looks for this session, has found it. If not, this request does not count.

        Raises Moved when it takes too long.
        """
        found = False
        try:
            with self._locked(kept):
                found = kept.here
        finally:
            if not found:
                self.left(kept)
        return found

    def save(self, kept: Kept) -> None:
        """Bring the session's file up to date. Blocks for disk, and for LOCK_PATIENCE at most. Never raises."""
        if not (kept.lock.acquire(False) or kept.lock.acquire(timeout=LOCK_PATIENCE)):
            kept.dirty = True
            return
        try:
            if self.active and not self._saver.save(kept):
                self._over(kept)
        except Exception:  # of the framework
            kept.dirty = True
            say("save", "a session cannot be saved", exc_info=True)
        finally:
            kept.lock.release()

    def left(self, kept: Kept) -> None:
        """A request of the session is over."""
        with self._lock:
            kept.pending -= 1

    # The main thread.

    def count(self) -> int:
        """How many sessions live here."""
        return len(self._by_ident)

    @property
    def busy(self) -> bool:
        """Whether there are sessions that could not be read when they should have been."""
        with self._lock:
            return any(kept.dirty and not kept.pending for kept in self._by_ident.values())

    def look(self) -> None:
        """Find the sessions that have ended without a request, and those that could not be read when they should have
        been. Blocks for LOOK_TIME, about. Never raises."""
        until = time.monotonic() + LOOK_TIME
        if self._to_look is None:
            self._looked = Figures()
            with self._lock:
                self._to_look = iter(list(self._by_ident.values()))
        for kept in self._to_look:
            if not kept.pending and (kept.dirty or not self._has(kept)):
                self.save(kept)
            if kept.here:
                self._looked.count(kept.why)
            if time.monotonic() >= until:  # a disk, or an application's own store, may be slow with each
                return
        self._to_look = None
        self.figures.saved, self.figures.unsaved = self._looked.saved, self._looked.unsaved

    def write_again(self) -> None:
        """The files were deleted: `look` makes them anew."""
        with self._lock:
            for kept in self._by_ident.values():
                kept.dirty, kept.mark = True, None

    def leave(self, seconds: float) -> bool:
        """Move the sessions of which no request is under way, one by one, for so many seconds. Whether any has left.

        Never raises.
        """
        until = time.monotonic() + seconds
        before = self.figures.moved_out
        with self._lock:
            quiet = [kept for kept in self._by_ident.values() if not kept.pending]
        for kept in quiet:
            if time.monotonic() >= until:
                break
            with self._lock:
                if kept.pending or not kept.here or not kept.lock.acquire(blocking=False):
                    continue
                kept.leaving = True  # requests that come from now on wait for the lock
            try:
                self._move(kept)
            except Exception:  # of the framework
                say("move", "a session cannot be moved", exc_info=True)
            finally:
                kept.leaving = False
                kept.lock.release()
        return self.figures.moved_out > before

    def _move(self, kept: Kept) -> None:
        """Raises what the framework raises."""
        self.figures.moved_out += self._saver.release(kept)
        if not kept.here:
            self._over(kept)

    def close(self) -> None:
        """Leave the files that are left to the other AppServers."""
        self.active = False
        self._saver.folder.close()

    def abandon(self) -> None:
        """In a forked child: the files are the parent's."""
        self.active = False
        self._lock = Lock()
        self._saver.folder.abandon()

    # Any thread.

    def _over(self, kept: Kept) -> None:
        """It does not live here any more."""
        self._forget(kept)
        self._gone(kept.values, self._by_value.__contains__)

    def _know(self, kept: Kept, values: Sequence[str]) -> None:
        """The session has those of these values of its cookie that are its own: a request may bring several cookies
        of the name, of other sessions, or made up."""
        for value in values:
            key = short(value)
            if self._by_value.get(key) is kept or self.access.ident((value,)) != kept.ident:
                continue
            with self._lock:
                if self._by_ident.get(kept.ident) is kept:
                    self._by_value[key] = kept
                    kept.values.append(key)
                    if len(kept.values) > MAX_VALUES:
                        self._by_value.pop(kept.values.pop(0), None)

    def _forget(self, kept: Kept) -> None:
        with self._lock:
            if self._by_ident.get(kept.ident) is kept:
                del self._by_ident[kept.ident]
            for value in kept.values:
                if self._by_value.get(value) is kept:
                    del self._by_value[value]

    def _holds(self, ident: str) -> bool:
        try:
            return self.access.has(ident)
        except Exception:  # of the framework
            say("register", "a session that begins is not kept", exc_info=True)
            return False

    def _has(self, kept: Kept) -> bool:
        try:
            return self.access.has(kept.ident)
        except Exception:  # of the framework
            return True

    @contextlib.contextmanager
    def _locked(self, kept: Kept) -> Iterator[None]:
        """Raises Moved when it takes too long."""
        if not kept.lock.acquire(timeout=LOCK_PATIENCE):
            raise Moved
        try:
            yield
        finally:
            kept.lock.release()
