"""Reads one file of an AppServer (`monitor.contract.captured`), and gives back the room of what was read.

The file grows at its end while this reads, has holes where it was given back, and may be emptied by anybody who opens
`/dev/stderr`. Whether somebody can still write to it is asked of the kernel: a read lease (fcntl(2), F_SETLEASE) is
given for a file that nobody has open for writing. So the watcher need not know which processes live.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
from collections.abc import Iterator
from pathlib import Path

from lbadaptor.log import captured, texts
from monitor.contract.captured import KEPT_BYTES, CapturedName
from monitor.watcher.lines.line import LONGEST, WARNING, Said, read

MOST_UNREAD = 4 << 20
"""Bytes that wait to be forwarded, at most. Beyond them the older ones are passed over, and counted."""
KEPT_UNREAD = 1 << 20
"""Bytes that are left then: the newest."""
GOES_ON = " …"
"""The end of a piece of a line that is longer than LONGEST."""
STEP = 128 << 10
"""Bytes that are given back at once, at least."""


class Reader:
    """`position`: where to begin, None where that is unknown. Raises OSError when the file cannot be opened."""

    def __init__(self, folder: Path, name: CapturedName, position: int | None) -> None:
        self.name = name
        self.path = folder / str(name)
        self._descriptor = os.open(self.path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        self.position = 0 if position is None else position
        """everything before it was forwarded, or is lost"""
        self._given_back = 0
        self._lost = 0
        """bytes that are lost, and of which nothing was said yet"""
        self._emptied = False
        if position is None:
            self.position = self._given_back = self._data_from(0)

    def close(self) -> None:
        os.close(self._descriptor)

    def is_over(self, newest: bool) -> bool:
        """Whether nobody can write to it any more. `newest`: of its slot; a file system without leases cannot tell,
        and then the newest one counts as written to."""
        try:
            fcntl.fcntl(self._descriptor, fcntl.F_SETLEASE, fcntl.F_RDLCK)
        except OSError as error:
            return error.errno != errno.EAGAIN and not newest
        with contextlib.suppress(OSError):
            fcntl.fcntl(self._descriptor, fcntl.F_SETLEASE, fcntl.F_UNLCK)
        return True

    @property
    def size(self) -> int:
        return os.fstat(self._descriptor).st_size

    def pass_over(self) -> None:
        """Go on behind what is lost: what the AppServer has given back unread, or what is too much. `take` says how
        much that is. Raises OSError."""
        size = self.size
        if size < self.position:
            self._emptied = True
            self.position = self._given_back = 0
        if size == self.position:
            return
        begin = self._data_from(self.position)
        if size - begin > MOST_UNREAD:
            begin = size - KEPT_UNREAD
        if begin > self.position:
            begin += os.pread(self._descriptor, LONGEST, begin).find(b"\n") + 1  # the rest of a line
            self._lost += begin - self.position
            self.position = begin

    def _loss(self) -> Iterator[Said]:
        if self._emptied:
            yield Said(WARNING, "somebody has emptied the file of its log; lines may be lost")
        if self._lost:
            what = texts.count(self._lost, "byte")
            yield Said(WARNING, f"{what} of its log lost: more was written than is forwarded")
        self._emptied, self._lost = False, 0

    def take(self, most: int, over: bool) -> list[Said]:
        """The next whole lines, of about so many bytes at most. `over`: nothing follows, so that the last one need
        not end. Raises OSError."""
        data = os.pread(self._descriptor, max(most, LONGEST), self.position)
        end = data.rfind(b"\n") + 1
        if over and len(data) < max(most, LONGEST):
            end = len(data)
        cut = not end and len(data) >= LONGEST
        if cut:
            end = LONGEST
        if not end:
            return list(self._loss())
        self.position += end
        said = [
            *self._loss(),
            *(piece for line in data[:end].removesuffix(b"\n").split(b"\n") for piece in _pieces(line)),
        ]
        return [*said[:-1], Said(said[-1].priority, said[-1].text + GOES_ON)] if cut else said

    def give_back(self, all_but_kept: bool = False) -> None:
        """Give back what is forwarded, but for KEPT_BYTES. Raises OSError."""
        end = self.position - KEPT_BYTES
        if end - self._given_back < (captured.PAGE if all_but_kept else STEP):
            return
        # Open only for this: whoever has it open for writing counts as an AppServer.
        writer = os.open(f"/proc/self/fd/{self._descriptor}", os.O_WRONLY | os.O_CLOEXEC)
        try:
            if captured.punch(writer, end):
                self._given_back = end
            elif self.size == self.position > captured.KEPT:
                os.ftruncate(writer, 0)
                self.position = self._given_back = 0
        finally:
            os.close(writer)

    def _data_from(self, position: int) -> int:
        """Where data begins behind a hole."""
        try:
            return os.lseek(self._descriptor, position, os.SEEK_DATA)
        except OSError as error:
            return self.size if error.errno == errno.ENXIO else position


def _pieces(line: bytes) -> Iterator[Said]:
    """A line that is too long is several; each but the last has a mark."""
    first = read(line[:LONGEST])
    for begin in range(LONGEST, len(line), LONGEST):
        yield Said(first.priority, first.text + GOES_ON)
        first = Said(first.priority, read(line[begin : begin + LONGEST]).text)
    yield first
