"""What dead AppServers have left, and sessions that ended long ago: one of the AppServers looks after them."""

from __future__ import annotations

import contextlib
import errno
import os
import time
from array import array
from bisect import bisect_right
from collections.abc import Callable, Iterator
from itertools import count
from typing import NamedTuple

from lbadaptor.appserver.sessions.persistence import layout, safe_open
from lbadaptor.appserver.sessions.persistence.folder import SessionFolder
from lbadaptor.appserver.sessions.persistence.format import MAX_SESSION, Damaged, decode
from lbadaptor.appserver.sessions.persistence.layout import Alive
from lbadaptor.appserver.sessions.persistence.safe_open import Stranger
from lbadaptor.log import logs, texts
from lbadaptor.log.once import Once

log = logs.logger("lbadaptor.appserver")

LOCK = "sweep"
"""The root's file on which the AppServer that sweeps holds a lock."""
SLICE = 0.02
"""Seconds that one call takes, about."""
MOVED_IN_A_TURN = 200
"""Sessions of dead owners that are moved in one turn, at most."""
KEPT = 86400.0
"""Seconds for which an ended session stays, at least: the clock may be wrong."""
QUIET = 600.0
"""Seconds after the start, and after a jump of the wall clock, in which nothing is removed."""
JUMP = 60.0
"""Seconds by which the wall clock has left the monotonic one: it was set."""
LOOK_AGAIN = 3600.0
"""Seconds between two looks into the files of a subfolder, at least."""

_SUBFOLDERS_IN_A_TURN = 16
_TURNS_FOR_ASIDE = 16
_PIECE = 100
"""Names that are counted between two looks at the clock."""
_NEW_AGE = 60.0
"""Seconds after which the making of an AppServer's folder was surely interrupted."""
_SETTLED = 2.0
"""Seconds after which another change gives a folder another mtime for sure."""


class Figures(NamedTuple):
    """They lag behind by some seconds."""

    waiting: int
    """living sessions in free/"""
    aside: int
    """files in aside/"""


class _Subfolder:
    """What was found in one of free/'s."""

    def __init__(self, number: int) -> None:
        self.name = f"{number:02x}"
        self.came = array("d")
        """when each of its sessions came into free/, the first of them first; unix time. 8 bytes for each"""
        self.mtime = 0
        """in ns, when it was counted; 0: count it again"""
        self.look_at = float("-inf")
        """monotonic seconds when its files are to be looked into again"""


class Sweep:
    """Call `run` twice a second, from one thread. `idle`: seconds after which a session in free/ has ended."""

    def __init__(
        self,
        folder: SessionFolder,
        clock: Callable[[], float] = time.monotonic,
        wall_clock: Callable[[], float] = time.time,
        idle: float = float("inf"),
    ) -> None:
        self._folder = folder
        self._clock = clock
        self._wall_clock = wall_clock
        self._idle = idle
        self.counted = False
        """all of free/ was looked through once"""
        self._offset = wall_clock() - clock()
        self._quiet_until = clock() + QUIET
        self._subfolders = [_Subfolder(number) for number in range(256)]
        self._aside = 0
        self._not_empty: set[str] = set()
        """folders of dead owners with something in them that is not ours"""
        self._steps = self._turns()
        self._failures = Once(8)
        self._damaged = Once(64)

    def run(self) -> Figures | None:
        """Sweep for SLICE at most, and what is known of free/ and aside/. None: another AppServer sweeps.

        Never raises OSError: what cannot be done is said once, and tried again.
        """
        try:
            if not self._folder.hold(LOCK):
                return None
        except OSError as error:
            self._say(error)
            return None
        until = self._clock() + SLICE
        try:
            for turn_ends in self._steps:
                self.counted = self.counted or turn_ends
                if turn_ends or self._clock() >= until:
                    break
        except BaseException:
            self._steps = self._turns()
            raise
        ended = self._wall_clock() - self._idle
        waiting = sum(len(one.came) - bisect_right(one.came, ended) for one in self._subfolders)
        return Figures(waiting, self._aside)

    @property
    def longest(self) -> float:
        """Seconds until the last session in free/ ends; 0 where there is none."""
        last = max((one.came[-1] for one in self._subfolders if one.came), default=float("-inf"))
        return max(0.0, last + self._idle - self._wall_clock())

    def _turns(self) -> Iterator[bool]:
        """Endless: a step at a time; True: a turn ends. The first turn counts all of free/."""
        for turn in count():
            subfolders = self._subfolders
            if turn:
                begin = turn * _SUBFOLDERS_IN_A_TURN % len(subfolders)
                subfolders = subfolders[begin : begin + _SUBFOLDERS_IN_A_TURN]
            parts = [self._dead_owners(), *map(self._look_through, subfolders)]
            if turn % _TURNS_FOR_ASIDE == 0:
                parts.append(self._count_aside())
            for part in parts:
                try:
                    for _ in part:
                        yield False
                except OSError as error:
                    self._say(error)
                yield False
            yield True

    def _say(self, error: OSError) -> None:
        if self._failures.first((error.errno, error.filename)):
            log.warning("the folder of sessions cannot be swept: %s", texts.of_os_error(error))

    # Dead owners.

    def _dead_owners(self) -> Iterator[None]:
        left = MOVED_IN_A_TURN
        root = self._folder.root
        for entry in layout.entries(root):
            name = entry.name
            if name == self._folder.name or name in self._not_empty or not entry.is_dir(follow_symlinks=False):
                continue
            if layout.is_owner(name) or (layout.is_new(name) and self._is_old(name)):
                left -= self._clear(name, left)
                if not left:
                    return
                yield

    def _is_old(self, name: str) -> bool:
        try:
            found = os.stat(name, dir_fd=self._folder.root, follow_symlinks=False)
        except FileNotFoundError:
            return False
        return self._wall_clock() - found.st_mtime > _NEW_AGE

    def _clear(self, name: str, most: int) -> int:
        """Move sessions out of an owner's folder if the owner is dead; remove an empty one. How many were moved."""
        folder = self._folder
        try:
            with layout.of_dead(name, folder.root) as descriptor:
                moved = layout.empty(descriptor, name, folder.free, folder.aside, most)
                if not moved:
                    layout.remove(name, descriptor, folder.root)
                return moved
        except Stranger as why:
            layout.say_stranger(name, why)
        except OSError as error:
            if error.errno == errno.ENOTEMPTY:
                self._not_empty.add(name)
                log.warning("the dead AppServer's folder %s holds files that are not sessions, and stays", name)
            elif error.errno != errno.ENOENT:  # its owner was ending, and has removed it
                self._say(error)
        except Alive:
            pass
        return 0

    # Sessions that nobody has.

    def _look_through(self, one: _Subfolder) -> Iterator[None]:
        """Count the sessions of a subfolder, and remove what ended long ago."""
        try:
            descriptor = safe_open.folder(one.name, self._folder.free)
        except FileNotFoundError:
            one.came = array("d")
            return
        except Stranger as why:
            layout.say_stranger(f"free/{one.name}", why)
            return
        try:
            mtime = os.fstat(descriptor).st_mtime_ns
            look = self._may_remove() and self._clock() >= one.look_at
            if look:
                yield from self._remove_ended(one, descriptor)
            elif mtime != one.mtime:
                yield from self._count(one, descriptor)
                one.mtime = mtime if self._wall_clock() - mtime / 1e9 > _SETTLED else 0
        finally:
            os.close(descriptor)

    def _count(self, one: _Subfolder, descriptor: int) -> Iterator[None]:
        came = array("d")
        for name in layout.sessions(descriptor):
            _note(name, descriptor, came)
            if len(came) % _PIECE == 0:
                yield
        one.came = _sorted(came)

    def _remove_ended(self, one: _Subfolder, descriptor: int) -> Iterator[None]:
        came, pause = array("d"), KEPT
        for name in layout.sessions(descriptor):
            left = self._left(name, descriptor)
            if left <= 0 and self._may_remove():
                os.unlink(name, dir_fd=descriptor)
            else:
                _note(name, descriptor, came)
                pause = min(pause, left)
            yield
        one.came, one.mtime = _sorted(came), 0
        one.look_at = self._clock() + max(pause, LOOK_AGAIN)

    def _left(self, name: str, folder: int) -> float:
        """Seconds until a session may be removed, at least; KEPT where that cannot be known. Raises OSError."""
        now = self._wall_clock()
        try:
            found = safe_open.status(name, folder)
            if found.st_size > MAX_SESSION:
                return KEPT
            if (left := found.st_mtime + KEPT - now) > 0:
                return left  # it had not ended when it was written
            descriptor, size = safe_open.file(name, folder)
            try:
                head, _ = decode(safe_open.read(descriptor, size))
            finally:
                os.close(descriptor)
        except FileNotFoundError:
            return KEPT  # it was taken
        except Stranger as why:
            layout.say_stranger(f"free/{name[:2]}/{name}", why)
            return KEPT
        except Damaged as why:
            if self._damaged.first(name):
                log.warning("free/%s/%s stays until it is asked for: %s", name[:2], name, why)
            return KEPT
        return max(head.ends, found.st_mtime) + KEPT - now

    def _may_remove(self) -> bool:
        """Whether the wall clock can be trusted."""
        now = self._clock()
        offset = self._wall_clock() - now
        if abs(offset - self._offset) > JUMP:
            self._offset, self._quiet_until = offset, now + QUIET
        return now >= self._quiet_until

    # Sessions that must not be served.

    def _count_aside(self) -> Iterator[None]:
        number = 0
        for entry in layout.entries(self._folder.aside):
            number += layout.is_session(entry.name[:40]) is not None
            if number % _PIECE == 0:
                yield
        self._aside = number


def _note(name: str, folder: int, came: array[float]) -> None:
    """Note when a session came into its subfolder: the rename has set its ctime, on Linux's own file systems."""
    with contextlib.suppress(FileNotFoundError):  # it was taken
        came.append(os.stat(name, dir_fd=folder, follow_symlinks=False).st_ctime)


def _sorted(moments: array[float]) -> array[float]:
    return array("d", sorted(moments))
