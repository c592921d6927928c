"""Forwards what AppServers say, from their files to where the settings want it. A thread of the watcher runs it.

The folder is all its state: which files there are, how far each was forwarded (the file `forwarded`), and whether
anybody writes to them. So the watcher of another monitor goes on where this one ended. Killed at once, it has not
noted the last lines: those are forwarded twice. One process at a time forwards: it has a lock on that file.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import threading
import time
from collections import deque
from collections.abc import Iterable
from itertools import islice
from pathlib import Path

from lbadaptor.log import logs, texts
from lbadaptor.log.once import Once
from monitor.contract.captured import KEPT_FILES, POSITIONS, CapturedName, files, parse
from monitor.watcher.lines.line import Line, Said
from monitor.watcher.lines.outputs import BATCH, Output
from monitor.watcher.lines.reader import Reader
from monitor.watcher.lines.repeats import Repeats

log = logs.logger("lbmonitor.watcher")

TURN = 0.2
"""Seconds between two looks at the files."""
PAUSE = 0.01
"""Seconds between two turns at the end of all."""
TURN_BYTES = 256 << 10
"""Bytes that are forwarded in a turn, at most, so that a flood leaves processor time to the probes."""
FEW = 8
"""Files that share a turn's bytes equally; where there are more, they take turns."""
THOROUGH = 5
"""Every fifth turn looks at each file, also at those that have not grown: whether they are still written to."""
MOST_POSITIONS = 1 << 20
"""Bytes of the file of positions that are read."""


class _Source:
    """A file, and what has been said of it."""

    def __init__(self, reader: Reader) -> None:
        self.reader = reader
        self.repeats = Repeats()


class Forwarder:
    """`run` is for a thread, `finish` for the end of the program. Nothing raises but MemoryError."""

    def __init__(self) -> None:
        self._goal: tuple[Path, Output] | None = None
        self._folder = Path()
        self._output: Output | None = None
        self._lock = -1
        self._positions: dict[str, int] = {}
        """as the file of positions has them"""
        self._sources: dict[CapturedName, _Source] = {}
        self._finished: dict[CapturedName, int] = {}
        """files that nobody writes to any more, and that are forwarded whole; their sizes"""
        self._pending: deque[Line] = deque()
        self._first = 0
        """which source begins the turn"""
        self._problem = Once(10)
        self._turn = 0
        self._thorough = False
        """whether this turn looks at each file, also where nothing seems to have changed"""
        self._changed = 0
        """when the folder did, in ns"""
        self._over = threading.Event()
        self._turning = threading.Lock()

    def direct(self, folder: Path, output: Output) -> None:
        """From which folder lines go where, from the next turn on."""
        self._goal = folder, output

    def run(self) -> None:
        """Forward until `finish`. Blocks."""
        while not self._over.wait(TURN):
            with contextlib.suppress(MemoryError), self._turning:
                self.turn()

    def finish(self, seconds: float) -> None:
        """Forward what is left: all AppServers have ended. Blocks for so long at most."""
        until = time.monotonic() + seconds
        self._over.set()
        if not self._turning.acquire(timeout=seconds):
            return  # the disk of [log] file hangs
        try:
            while time.monotonic() < until:
                if self.turn():
                    continue
                if not self._pending and self._is_counted():
                    break
                time.sleep(PAUSE)
            self._note_positions()
        finally:
            self._turning.release()

    def _is_counted(self) -> bool:
        """Say how often what repeats has come. Whether all is written now."""
        for source in self._sources.values():
            self._say(source, source.repeats.end())
        if self._output is None:
            return True
        self._forward()
        return not self._pending and self._output.done

    def turn(self) -> bool:
        """Forward a bounded part of what there is. Whether there was something."""
        self._take_goal()
        self._turn += 1
        self._thorough = self._turn % THOROUGH == 0 or self._over.is_set()
        if self._output is None or not self._locked():
            return False
        try:
            self._look()
        except OSError as error:
            self._tell(error)
        self._forward()
        read = False
        if self._pending:
            self._bound()
        else:
            read = self._read()
            self._forward()
        self._note_positions()
        self._clear_up()
        return read

    def _take_goal(self) -> None:
        if self._goal is None:
            return
        folder, output = self._goal
        if output is not self._output:
            if self._output is not None:
                self._output.close()
            self._output = output
        self._folder = folder

    def _locked(self) -> bool:
        """Whether this process is the one that forwards. The file may be missing, or have been deleted."""
        path = self._folder / POSITIONS
        try:
            if self._lock >= 0:
                with contextlib.suppress(FileNotFoundError):
                    if os.path.samestat(os.fstat(self._lock), os.stat(path)):
                        return True
                os.close(self._lock)
                self._lock = -1
            if not self._folder.is_dir():
                return bool(self._sources)
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o640)
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                os.close(descriptor)
                return False
            self._lock = descriptor
            self._positions = _positions(os.pread(descriptor, MOST_POSITIONS, 0))
        except OSError as error:
            self._tell(error)
            return False
        return True

    def _look(self) -> None:
        """Open files that are new. Raises OSError."""
        changed = os.stat(self._folder).st_mtime_ns if self._folder.is_dir() else 0
        if changed == self._changed and not self._thorough:
            return
        self._changed = changed
        found = files(self._folder) if changed else []
        for name in found:
            try:
                if name not in self._sources and not self._is_finished(name):
                    self._sources[name] = _Source(Reader(self._folder, name, self._positions.get(str(name))))
            except FileNotFoundError:
                pass  # it was deleted meanwhile
            except OSError as error:  # of a monitor that was another user, say: the others are forwarded
                self._tell(error)
        self._sources = dict(sorted(self._sources.items()))
        self._finished = {name: size for name, size in self._finished.items() if name in found}

    def _is_finished(self, name: CapturedName) -> bool:
        """Whether a file has been read whole, and has not grown since. Raises OSError."""
        return name in self._finished and os.stat(self._folder / str(name)).st_size == self._finished[name]

    def _read(self) -> bool:
        """Read from the files in turn. Whether there was something."""
        sources = list(self._sources.values())
        newest = {name.slot: name for name in self._sources}
        self._first = (self._first + 1) % max(1, len(sources))
        grown = sum(source.reader.size > source.reader.position for source in sources)
        share = TURN_BYTES // max(1, min(grown, FEW))
        read = 0
        for source in (*sources[self._first :], *sources[: self._first]):
            reader = source.reader
            if read >= TURN_BYTES:
                return True
            before = reader.position
            try:
                if not self._thorough and before == reader.size:
                    self._say(source, source.repeats.quiet(time.monotonic()))
                    continue
                over = reader.is_over(newest[reader.name.slot] == reader.name)
                reader.pass_over()
                said = reader.take(share, over)
                read += max(0, reader.position - before)
                reader.give_back()
                over = over and reader.position >= reader.size
            except OSError as error:
                self._tell(error)
                continue
            now = time.monotonic()
            for line in said:
                self._say(source, source.repeats.take(line, now))
            if over:
                self._say(source, source.repeats.end())
                self._finish(source)
            elif not said:
                self._say(source, source.repeats.quiet(now))
        return read > 0

    def _bound(self) -> None:
        """Nothing can be written now: give back what is too much to wait."""
        for source in self._sources.values():
            try:
                source.reader.pass_over()
                source.reader.give_back()
            except OSError as error:
                self._tell(error)

    def _say(self, source: _Source, said: Iterable[Said]) -> None:
        name, now = source.reader.name, time.time()
        self._pending.extend(Line(name, now, line.priority, line.text) for line in said)

    def _forward(self) -> None:
        """Write as much as there is room for."""
        assert self._output is not None
        while self._pending:
            count = self._output.put(list(islice(self._pending, BATCH)))
            if not count:
                return
            for _ in range(count):
                self._pending.popleft()

    def _finish(self, source: _Source) -> None:
        """Nobody writes to it any more, and it is read."""
        reader = source.reader
        with contextlib.suppress(OSError):
            reader.give_back(all_but_kept=True)
        self._finished[reader.name] = reader.size
        del self._sources[reader.name]
        reader.close()

    def _note_positions(self) -> None:
        """Note how far the files are forwarded, once all that was read is written."""
        if self._pending or self._output is None or not self._output.done or self._lock < 0:
            return
        positions = {str(name): size for name, size in self._finished.items()}
        positions |= {str(name): source.reader.position for name, source in self._sources.items()}
        if positions == self._positions:
            return
        data = "".join(f"{name} {position}\n" for name, position in positions.items()).encode()
        try:
            os.pwrite(self._lock, data, 0)
            os.ftruncate(self._lock, len(data))
            self._positions = positions
        except OSError as error:
            self._tell(error)
        else:
            self._problem.over()

    def _clear_up(self) -> None:
        """Remove files of AppServers that have ended, but for the newest of each slot. Empty ones go first."""
        if self._pending:
            return
        of_slot: dict[int, list[CapturedName]] = {}
        for name in sorted((*self._sources, *self._finished), reverse=True):
            of_slot.setdefault(name.slot, []).append(name)
        for names in of_slot.values():
            kept = [name for name in names[1:] if name in self._sources or self._finished[name]]
            for name in names[1:]:
                if name in self._finished and name not in kept[: KEPT_FILES - 1]:
                    with contextlib.suppress(OSError):
                        os.unlink(self._folder / str(name))
                        del self._finished[name]

    def _tell(self, error: OSError) -> None:
        if self._problem.first(why := texts.of_os_error(error)):
            log.error("the AppServers' lines are not all forwarded: %s; tried again", why)


def _positions(data: bytes) -> dict[str, int]:
    """What the file of positions says; what is not understood is passed over."""
    found: dict[str, int] = {}
    for line in data.decode("ascii", "replace").splitlines():
        name, _, position = line.partition(" ")
        if parse(name) is not None and position.isdigit():
            found.setdefault(name, int(position))
    return found
