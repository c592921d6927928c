"""The folder of sessions as one AppServer has it: its own sessions there, and how it takes those of others.

A session is in one place at a time, and goes from one to another by rename(2): of several takers one wins, and the
copy is gone from its source before it is served. Nothing is written with fsync: what is promised is for the end of a
process, not for that of the machine.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import random
import time
from collections.abc import Iterator
from typing import NamedTuple

from lbadaptor.appserver.sessions.persistence import layout, own_folder, safe_open, writing
from lbadaptor.appserver.sessions.persistence.format import MAX_SESSION
from lbadaptor.appserver.sessions.persistence.layout import Alive
from lbadaptor.appserver.sessions.persistence.rename import rename_new
from lbadaptor.appserver.sessions.persistence.root import (
    INSTALLATION,
    UnsafeFolder,
    locked,
    open_part,
    open_root,
    share_installation,
)
from lbadaptor.appserver.sessions.persistence.safe_open import Stranger
from lbadaptor.appserver.sessions.persistence.writing import BLOCK
from lbadaptor.log import logs, texts
from lbadaptor.log.once import Once

__all__ = ["BLOCK", "Elsewhere", "SessionFolder", "Taken", "UnsafeFolder"]

log = logs.logger("lbadaptor.appserver")

ROUNDS = 20
"""Searches for a session that moves while it is looked for."""
ROUNDS_IF_BUSY = 10
"""The number of the search that is believed when it misses, where others of its subfolder move all the time."""
JUST_NOW = 50_000_000
"""Nanoseconds. A change that is later gives a folder another mtime: the kernel takes the time from its last tick."""
PAUSE = 0.001
"""Seconds before the second search, at most; more before later ones. By chance: whoever moves it may keep pace."""


class Taken(NamedTuple):
    """A session that is now in the own folder."""

    data: bytes
    died: bool
    """its last owner has died"""


class Elsewhere(NamedTuple):
    """A living owner has the session."""

    slot: int
    generation: int


class _Moved(Exception):
    """It was there, and another was first."""


class SessionFolder:
    """`root`, with an own folder in it. `run_folder`: that of this installation; empty: it is not looked at.

    Any thread may call the methods, but two must not write, take or release the same session at once. They block for
    the disk only. Before `open`, and after `close` or `abandon`, they do nothing.
    """

    def __init__(self, root: str, slot: int, generation: int, run_folder: str = "") -> None:
        self.is_open = False
        self.name = f"at.{slot}.{generation}"
        """of the own folder"""
        self.root = self.free = self.aside = -1
        """descriptors"""
        self._own = -1
        self._path = root
        self._run_folder = run_folder
        self._locks: dict[str, int] = {}
        self._set_aside = Once(16)
        self._not_removed = Once()

    # Its begin and its end.

    def open(self) -> None:
        """Check the root, and make what is missing: the root itself, free/, aside/ and the own folder, locked.

        The own folder of a dead AppServer of the same slot and generation is emptied into free/ first. May wait for
        the monitor's lock (`root.WAIT`). Raises UnsafeFolder, OSError.
        """
        try:
            self.root = open_root(self._path)
            self._locks[INSTALLATION] = share_installation(self._path, self.root, self._run_folder)
            self.free = open_part(self._path, "free", self.root)
            self.aside = open_part(self._path, "aside", self.root)
            self._own, self._locks[layout.LOCK] = own_folder.make(
                self.name, self._path, self.root, self.free, self.aside
            )
        except BaseException:
            self.abandon()
            raise
        self.is_open = True

    def mend(self) -> bool:
        """Make anew what somebody has deleted here. Whether the own folder is a new one, which holds no session.

        Other threads may be at work with the descriptors, so each keeps its number. May wait as `open` does. Raises
        UnsafeFolder, OSError.
        """
        if not self.is_open:
            return False
        if _is_deleted(self.root):
            self._open_new_root()
        for name, descriptor in (("free", self.free), ("aside", self.aside)):
            if _is_deleted(descriptor):
                _replace(descriptor, open_part(self._path, name, self.root))
        if not _is_deleted(self._own):
            if _is_deleted(self._locks[layout.LOCK]):  # else others take this AppServer for dead
                _replace(self._locks[layout.LOCK], own_folder.locked_file(self._own))
            return False
        own, lock = own_folder.make(self.name, self._path, self.root, self.free, self.aside)
        _replace(self._locks[layout.LOCK], lock)
        _replace(self._own, own)
        return True

    def _open_new_root(self) -> None:
        """Raises UnsafeFolder, OSError."""
        root = open_root(self._path)
        try:
            shared = share_installation(self._path, root, self._run_folder)
        except BaseException:
            os.close(root)
            raise
        _replace(self.root, root)
        for name in self._locks.keys() - {layout.LOCK}:  # they are of the deleted one
            if (former := self._locks.pop(name)) >= 0:
                os.close(former)
        self._locks[INSTALLATION] = shared

    def close(self) -> None:
        """Move the sessions that are left into free/, remove the own folder, give the locks up. Never raises.

        No other thread may call anything here by then: the descriptors' numbers may be others' afterwards.
        """
        if not self.is_open:
            return
        try:
            for name in self.names():
                with contextlib.suppress(OSError):
                    self.release(name)
            layout.remove(self.name, self._own, self.root)
        except OSError as error:
            log.warning("%s/%s stays, for another AppServer to sweep: %s", self._path, self.name, texts.what(error))
        self.abandon()

    def abandon(self) -> None:
        """Close the descriptors, and do nothing else: in a forked child, which must not save. Never raises."""
        self.is_open = False
        for descriptor in (*self._locks.values(), self._own, self.free, self.aside, self.root):
            if descriptor >= 0:
                with contextlib.suppress(OSError):
                    os.close(descriptor)
        self._locks = {}
        self._own = self.free = self.aside = self.root = -1

    def hold(self, name: str) -> bool:
        """Whether this AppServer has the lock on the root's file of this name, which it keeps to its end.

        Raises OSError.
        """
        if not self.is_open or name in self._locks:
            return self.is_open
        descriptor = os.open(name, own_folder.LOCK_FLAGS, 0o600, dir_fd=self.root)
        if not locked(descriptor, fcntl.LOCK_EX):
            os.close(descriptor)
            return False
        self._locks[name] = descriptor
        return True

    # Its sessions.

    def write(self, name: str, data: bytes) -> int:
        """Write a session's file in the own folder; the bytes that it takes on the disk (see `writing.write`).

        Raises OSError; what was there before stays.
        """
        if not self.is_open:
            return 0
        writing.write(name, data, self._own)
        return -(-len(data) // BLOCK) * BLOCK

    def cut(self, name: str, data: bytes) -> None:
        """Replace a session by its bare head; where there is no room for a second file, in place. Raises OSError."""
        if self.is_open:
            writing.cut(name, data, self._own)

    def remove(self, name: str) -> None:
        """Remove a session's file. Never raises; a missing one is no error."""
        if not self.is_open:
            return
        try:
            safe_open.status(name, self._own)
            os.unlink(name, dir_fd=self._own)
        except FileNotFoundError:
            pass
        except Stranger as why:
            layout.say_stranger(f"{self.name}/{name}", why)
        except OSError as error:
            if self._not_removed.first(error.errno):
                log.error("a session that has ended cannot be removed from the disk: %s", texts.of_os_error(error))

    def release(self, name: str) -> None:
        """Move a session into free/, for any AppServer to take. Raises OSError; it stays in the own folder then."""
        if not self.is_open:
            return
        try:
            with layout.subfolder(self.free, name, make=True) as target:
                try:
                    rename_new(name, self._own, target)
                except FileExistsError:
                    safe_open.status(name, target)
                    os.rename(name, name, src_dir_fd=self._own, dst_dir_fd=target)  # ours was served last
        except Stranger as why:
            raise writing.not_ours(f"free/{name[:2]}/{name}", why) from None

    def set_aside(self, name: str, why: str) -> None:
        """Move a session that must not be served into aside/, never over another. Never raises."""
        if not self.is_open:
            return
        try:
            layout.put_aside(name, self._own, self.aside)
        except OSError as error:
            log.error("a session cannot be set aside in %s/aside: %s", self._path, texts.of_os_error(error))
        else:
            if self._set_aside.first(why):
                log.warning("a session is set aside in %s/aside: %s", self._path, texts.clean(why))

    def names(self) -> Iterator[str]:
        """The sessions in the own folder, one by one. Raises OSError."""
        return layout.sessions(self._own) if self.is_open else iter(())

    # Those of others.

    def take(self, name: str) -> Taken | Elsewhere | None:
        """Find a session that is not in the own folder, and move it there unless a living owner has it.

        Looks in the owners' folders, in free/, in the owners' folders again: fewer looks miss one that moves
        meanwhile; where something has just moved, all once more. None: it is in none of them. Raises OSError; the
        session is where it was then.
        """
        if not self.is_open:
            return None
        for number in range(ROUNDS):
            if number:
                time.sleep(random.uniform(0.0, PAUSE * number))
            before, moved = self._last_move(name), False
            for look in (self._take_from_owners, self._take_from_free, self._take_from_owners):
                try:
                    if found := look(name):
                        return found
                except _Moved:
                    moved = True
            if not moved and (number >= ROUNDS_IF_BUSY or self._last_move(name) == before is not None):
                return None
        raise BlockingIOError(errno.EAGAIN, "the session moves all the time", name)

    def _last_move(self, name: str) -> int | None:
        """When a session of its subfolder in free/, through which sessions move, came or went; None: just now.

        Unix time in ns; 0: there is no such subfolder. Raises OSError.
        """
        try:
            moved = os.stat(name[:2], dir_fd=self.free).st_mtime_ns
        except FileNotFoundError:
            return 0
        return None if abs(time.time_ns() - moved) < JUST_NOW else moved

    def _take_from_owners(self, name: str) -> Taken | Elsewhere | None:
        """Raises _Moved, OSError."""
        for owner in layout.owners(self.root, but=self.name):
            if not os.access(f"{owner}/{name}", os.F_OK, dir_fd=self.root, effective_ids=True):
                continue
            try:
                with layout.of_dead(owner, self.root) as folder:
                    if taken := self._take_from(folder, owner, name, died=True):
                        return taken
            except Alive:
                slot, generation = owner.split(".")[1:]
                return Elsewhere(int(slot), int(generation))
            except FileNotFoundError:
                raise _Moved from None
            except Stranger as why:
                layout.say_stranger(owner, why)
        return None

    def _take_from_free(self, name: str) -> Taken | None:
        """Raises _Moved, OSError."""
        try:
            with layout.subfolder(self.free, name) as folder:
                return self._take_from(folder, f"free/{name[:2]}", name, died=False)
        except Stranger as why:
            layout.say_stranger(f"free/{name[:2]}", why)
        except FileNotFoundError:
            pass
        return None

    def _take_from(self, folder: int, place: str, name: str, died: bool) -> Taken | None:
        """None: a stranger has the name. Raises FileNotFoundError: it is not there; _Moved, another OSError."""
        try:
            size = safe_open.status(name, folder).st_size
            if size > MAX_SESSION:
                raise Stranger(f"it has {size} bytes")
        except Stranger as why:
            layout.say_stranger(f"{place}/{name}", why)
            return None
        try:
            rename_new(name, folder, self._own)
        except FileNotFoundError:
            raise _Moved from None
        try:
            return self._read_taken(name, died)
        except BaseException:
            with contextlib.suppress(OSError):
                rename_new(name, self._own, folder)
            raise

    def _read_taken(self, name: str, died: bool) -> Taken:
        """Raises OSError."""
        descriptor, size = writing.open_own(name, self._own)
        try:
            data = safe_open.read(descriptor, min(size, MAX_SESSION))
            mode = os.fstat(descriptor).st_mode & 0o777
            if mode != 0o600:
                os.fchmod(descriptor, 0o600)
            return Taken(data, died or mode == layout.OWNER_DIED)
        finally:
            os.close(descriptor)


def _is_deleted(descriptor: int) -> bool:
    return os.fstat(descriptor).st_nlink == 0


def _replace(descriptor: int, new: int) -> None:
    """Let a descriptor be of what another one is of, and close that one."""
    os.dup2(new, descriptor, inheritable=False)
    os.close(new)
