"""One session from its store into its file and back. Every function here wants the session's lock to be held.

A file that is written holds the session as the store has it at this moment. What cannot be saved leaves nothing older
in its place: a bare head at most.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable
from dataclasses import dataclass
from threading import Lock

from msgspec.structs import replace

from lbadaptor.appserver.sessions.persistence.folder import Elsewhere, SessionFolder, Taken
from lbadaptor.appserver.sessions.persistence.format import MAX_SESSION, Damaged, Head, decode, encode, name_of
from lbadaptor.appserver.sessions.persistence.kept import FileState, Kept
from lbadaptor.appserver.sessions.stores.access import Busy, Content, SessionAccess, Unloadable, Unsaveable
from lbadaptor.log import logs, texts
from lbadaptor.log.once import Once

log = logs.logger("lbadaptor.appserver")

MOST_DEATHS = 2
"""Owners that have died since a session answered last. When the next one dies, too, the session is set aside: it may
be what kills them. One death is that of the process that was killed; another one may be that of the process that took
the session over and was killed right after."""
LATER = 0.05
"""The part of a session's lifetime after which a new end alone is written."""
BLOCK = 4096
"""Bytes. What a file takes on disk is rounded up to this."""

_said = Once(64)


class Moved(Exception):
    """The session has left, or another AppServer has it: `whereto`, its slot and generation, if that is known."""

    def __init__(self, whereto: tuple[int, int] | None = None) -> None:
        super().__init__("the session is not here")
        self.whereto = whereto


@dataclass
class Bounds:
    """What the files of this AppServer may take, and take."""

    most_bytes: int
    """of whole blocks"""
    most_files: int
    used_bytes: int = 0
    used_files: int = 0

    def beyond(self, kept: Kept, length: int) -> str:
        """The name of the bound beyond which a file of so many bytes would go; empty: none."""
        if length > MAX_SESSION:
            return f"more than {MAX_SESSION} bytes"
        if self.used_bytes - kept.size + rounded(length) > self.most_bytes:
            return "max_bytes"
        return "max_files" if not kept.size and self.used_files >= self.most_files else ""


class Saver:
    """`everything`: a file holds content from the first answer on (survive = "anything"); otherwise a bare head until
    the session moves. `idle`: seconds that a session lives whose store does not tell. `wall_clock`: unix time."""

    def __init__(
        self,
        access: SessionAccess,
        folder: SessionFolder,
        application: str,
        everything: bool,
        bounds: Bounds,
        idle: float,
        wall_clock: Callable[[], float] = time.time,
    ) -> None:
        self.access = access
        self.folder = folder
        self._application = application
        self._everything = everything
        self._bounds = bounds
        self._bounds_lock = Lock()
        self._idle = idle
        self._wall_clock = wall_clock

    def new(self, ident: str) -> Kept:
        """A session that is not here yet."""
        head = Head(self.access.kind, self._application, self.access.secret)
        return Kept(ident, name_of(self.access.kind, ident), head)

    def later(self, ends: float, before: float) -> bool:
        """Whether a new end differs so much from the one before that it has to be written."""
        return abs(ends - before) > LATER * max(0.0, before - self._wall_clock())

    # Take-over.

    def take(self, kept: Kept) -> bool:
        """Look for the session's file, and load it. Whether it lives here now. Blocks for disk. Raises Moved.

        Sets `lost`, `missed` and `whereto`, too.
        """
        try:
            found = self.folder.take(kept.name)
        except OSError as error:
            say("take", "a session cannot be looked for, and its visitor waits: %s", texts.what(error))
            raise Moved from None
        if isinstance(found, Elsewhere):
            kept.whereto = found.slot, found.generation
            raise Moved(kept.whereto)
        if found is None:
            kept.missed = True
            return False
        return self._load(kept, found)

    def _load(self, kept: Kept, found: Taken) -> bool:
        try:
            head, content = decode(found.data)
        except Damaged as error:
            return self._set_aside(kept, f"its file is damaged: {error}")
        if wrong := self._wrong(head):
            return self._set_aside(kept, wrong)
        if head.ends <= self._wall_clock():
            kept.missed = True  # it has ended, and nobody has lost it
            with contextlib.suppress(OSError):
                self.folder.release(kept.name)
            return False
        if content is None:
            kept.lost = True
            self.folder.remove(kept.name)
            say("bare", "a session is lost: the process that held it was killed before it could save it")
            return False
        if found.died:
            if head.deaths >= MOST_DEATHS:
                return self._set_aside(kept, f"{head.deaths + 1} AppServers have died while it was at work")
            head = replace(head, deaths=head.deaths + 1)
        kept.head = head
        self._account(kept, rounded(len(found.data)))
        try:
            if head.deaths:
                self._write(kept, content)  # before it is loaded: that may be what kills
            self.access.put(kept.ident, content, head.ends)
        except (Busy, OSError, MemoryError) as error:
            say("write", "a session cannot be taken over, and its visitor waits: %s", texts.of(error))
            with contextlib.suppress(OSError):
                self.folder.release(kept.name)
            self._account(kept, 0)
            raise Moved from None
        except Unloadable as error:
            return self._set_aside(kept, f"it cannot be loaded: {error}")
        except Exception as error:  # of the framework, which may be another release
            return self._set_aside(kept, f"it cannot be loaded: {texts.of(error)}")
        kept.file = FileState.WHOLE
        kept.here = True
        if self._everything:
            with contextlib.suppress(Exception):  # without a mark it is written with the answer
                now = self.access.read(kept.ident)
                kept.mark = None if now is None else now.mark
        else:
            self._cut(kept)
        return True

    def _wrong(self, head: Head) -> str:
        """Why a session must not be loaded here; empty: it may be."""
        if head.kind != self.access.kind:
            return f"it is of another store: {head.kind}"
        if head.application != self._application:
            return f"it is of another application: {head.application}"
        if head.secret != self.access.secret:
            return "the key that signs the session cookie is another one now"
        return ""

    def _set_aside(self, kept: Kept, why: str) -> bool:
        kept.lost = True
        say(why, "a session is lost, its file is set aside: %s", why)
        self.folder.set_aside(kept.name, why)
        self._account(kept, 0)
        return False

    # While it lives here.

    def save(self, kept: Kept) -> bool:
        """Bring the file up to date. False: the store holds the session no longer, and the file is gone. Does nothing
        for a session that does not live here.

        Blocks for disk. Raises what the framework raises.
        """
        if not kept.here:
            return True
        dirty, kept.dirty = kept.dirty, False
        if not self._everything:
            if not self.access.has(kept.ident):
                self.remove(kept)
                return False
            if dirty or kept.file is FileState.NONE or kept.head.deaths:
                self._rewrite(kept, None, kept.head.ends or self._wall_clock() + self._idle)
            return True
        content = self._read(kept)
        if content is None:
            return kept.here
        ends, before = content.ends, kept.head.ends
        if dirty or self._differs(kept, content):
            self._rewrite(kept, content, ends or self._wall_clock() + self._idle)
            return True
        kept.mark = content.mark  # equal, but perhaps another object: let go of the one before
        if ends == before:
            return True
        ends = ends or self._wall_clock() + self._idle
        if self.later(ends, before):
            self._write_end(kept, content, ends)
        return True

    def release(self, kept: Kept) -> bool:
        """Move the session into free/, and drop it from the store. Whether it has left; `here` says whether it lives.

        Blocks for disk. Raises what the framework raises.
        """
        content = self._read(kept)
        if content is None:
            return False
        ends = content.ends or self._wall_clock() + self._idle
        if self._differs(kept, content):
            self._rewrite(kept, content, ends)
            if kept.file is not FileState.WHOLE:
                return False
        elif ends != kept.head.ends:
            self._write_end(kept, content, ends)
        try:
            self.folder.release(kept.name)
        except OSError as error:
            self._unsaved(kept, texts.what(error))
            return False
        kept.here = False
        kept.file = FileState.NONE
        self._account(kept, 0)
        self.access.drop(kept.ident)
        return True

    def remove(self, kept: Kept) -> None:
        """The session has ended: its file goes."""
        self.folder.remove(kept.name)
        kept.file = FileState.NONE
        kept.here = False
        self._account(kept, 0)

    def _read(self, kept: Kept) -> Content | None:
        """The session as the store has it; None where it is not to be had. `here` is false where it has ended."""
        try:
            content = self.access.read(kept.ident)
        except Busy:
            kept.dirty = True
            return None
        except Unsaveable as error:
            self._unsaved(kept, str(error))
            return None
        if content is None:
            self.remove(kept)
        return content

    @staticmethod
    def _differs(kept: Kept, content: Content) -> bool:
        """Whether the file does not hold this content as of an answer."""
        return content.mark != kept.mark or kept.file is not FileState.WHOLE or kept.head.deaths > 0

    def _rewrite(self, kept: Kept, content: Content | None, ends: float) -> None:
        """Write the session after an answer, with a new end."""
        kept.head = replace(kept.head, ends=ends, deaths=0)
        if why := self._bounds.beyond(kept, 1 if content is None else len(content.data)):
            self._unsaved(kept, why)
            return
        try:
            self._write(kept, None if content is None else content.data)
        except OSError as error:
            self._unsaved(kept, texts.what(error))
            return
        kept.mark = None if content is None else content.mark
        kept.why = ""

    def _write_end(self, kept: Kept, content: Content, ends: float) -> None:
        """The file holds this content. Where the new end cannot be written, it is good with the one before."""
        before, kept.head = kept.head, replace(kept.head, ends=ends)
        try:
            self._write(kept, content.data)
        except OSError:
            kept.head = before

    def _write(self, kept: Kept, content: bytes | None) -> None:
        """Raises OSError."""
        self._account(kept, self.folder.write(kept.name, encode(kept.head, content)))
        kept.file = FileState.BARE if content is None else FileState.WHOLE

    def _cut(self, kept: Kept) -> None:
        """Leave a bare head, or nothing."""
        try:
            self.folder.cut(kept.name, encode(kept.head, None))
        except OSError:
            self.folder.remove(kept.name)
            kept.file = FileState.NONE
            self._account(kept, 0)
        else:
            kept.file = FileState.BARE
            self._account(kept, BLOCK)
        kept.mark = None

    def _unsaved(self, kept: Kept, why: str) -> None:
        """The session is not saved: nothing older may be found in its place, but that there was a session."""
        kept.why = why
        say(why, "a session is not saved: %s", why)
        if kept.file is FileState.WHOLE:
            self._cut(kept)
        elif kept.file is FileState.NONE and not self._bounds.beyond(kept, 1):
            with contextlib.suppress(OSError):
                self._write(kept, None)

    def _account(self, kept: Kept, size: int) -> None:
        """Its file takes so many bytes of the disk now."""
        if size == kept.size:
            return
        with self._bounds_lock:
            self._bounds.used_bytes += size - kept.size
            self._bounds.used_files += (size > 0) - (kept.size > 0)
        kept.size = size


def rounded(length: int) -> int:
    """Whole blocks, in bytes."""
    return -(-length // BLOCK) * BLOCK


def say(what: str, text: str, *values: object, exc_info: bool = False) -> None:
    """Log a problem once."""
    if _said.first(what):
        log.warning(text, *values, exc_info=exc_info)
