"""A request's body, which is kept before an AppServer is chosen.

Up to one bound it is kept in memory, up to another in an unlinked temporary file. So a slow upload occupies no thread
of an AppServer, and the body can be sent again. The rest of a larger body is streamed, and can be sent only once.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from typing import IO, Protocol

from lbadaptor.contract.errors import LbadaptorError, OurOwnFault
from lbadaptor.log import texts

BLOCK = 65536


class Input(Protocol):
    """What is used of wsgi.input."""

    def read(self, size: int, /) -> bytes: ...


class VisitorGone(LbadaptorError):
    """The body ended early: the visitor left, or the Content-Length is wrong."""


class Body:
    """What was kept of a body and, if it is too large, the rest of the stream.

    `length` is the number of bytes; None if not all of it was kept, because the length is known at the end only.
    """

    def __init__(self, kept: bytes | IO[bytes], length: int | None, rest: Iterator[bytes] | None = None) -> None:
        self.length = length
        self._kept = kept
        self._rest = rest
        self._later: IO[bytes] | None = None
        """the file of `keep_rest`"""
        self._broken = False
        """a part of the rest is lost"""
        self._streamed = False

    @property
    def kept(self) -> bool:
        """Whether all of it was kept. Then sending it does not block on the visitor."""
        return self._rest is None

    @property
    def repeatable(self) -> bool:
        """Whether all that was sent so far can be sent again."""
        return not self._streamed

    @property
    def small(self) -> bytes | None:
        """The whole body, if it is in memory."""
        return self._kept if isinstance(self._kept, bytes) and self._rest is None else None

    def pieces(self) -> Iterator[bytes]:
        """The body from its beginning. Blocks on the visitor after what was kept. Raises VisitorGone."""
        if isinstance(self._kept, bytes):
            yield self._kept
        else:
            yield from _blocks(self._kept)
        if self._rest is not None:
            self._streamed = True
            yield from self._rest
            if self._broken:
                raise VisitorGone("not all of the body could be kept")
            if self._later is not None:
                yield from _blocks(self._later)

    def keep_rest(self, folder: str) -> None:
        """Read the rest of the stream into a temporary file, whatever its size. `pieces` goes on from there.

        Blocks on the visitor. Raises VisitorGone, and OurOwnFault if the file cannot be written.
        """
        if self._rest is None or self._later is not None:
            return
        self._broken = True  # until all is here: a part must not pass for the whole
        self._later = _temporary(folder)
        try:
            for piece in self._rest:
                self._later.write(piece)
            self._later.flush()
        except (OSError, MemoryError) as error:
            raise OurOwnFault(f"keeping a request's body: {texts.what(error)}") from None
        self._broken = False

    def pass_over(self) -> None:
        """Read the rest of the stream and discard it. Blocks on the visitor. Raises VisitorGone."""
        for _ in self._rest or ():
            pass

    def close(self) -> None:
        for file in (self._kept, self._later):
            if file is not None and not isinstance(file, bytes):
                with suppress(OSError):  # close writes what is buffered, and fails again on a full disk
                    file.close()


EMPTY = Body(b"", 0)


def keep(stream: Input, length: int | None, memory: int, spool: int, folder: str, *, short: bool = False) -> Body:
    """Read a body up to its end, or up to the bounds `memory` and `spool` in bytes.

    `length` is the request's Content-Length, or None. One of Apache's filters may lengthen or shorten the body, so
    the body ends where the input ends, as with mod_wsgi itself. `short`: a body that is shorter than `length` may
    be whole.

    Blocks on the visitor. Raises VisitorGone, and OurOwnFault if memory or the spool folder is full.
    """
    if length == 0:
        return EMPTY
    source = _read(stream, 0 if short else length or 0)
    try:
        start: list[bytes] = []
        size = 0
        for piece in source:
            start.append(piece)
            size += len(piece)
            if size > memory:
                break
        else:
            return Body(b"".join(start), size)
        if spool <= memory:
            return Body(b"".join(start), None, source)
        return _spool(start, size, source, spool, folder)
    except MemoryError:
        raise OurOwnFault("no memory for a request's body") from None


def _spool(start: list[bytes], size: int, source: Iterator[bytes], bound: int, folder: str) -> Body:
    file = _temporary(folder)
    try:
        for piece in start:
            file.write(piece)
        start.clear()
        for piece in source:
            file.write(piece)
            size += len(piece)
            if size > bound:
                file.flush()
                return Body(file, None, source)
        file.flush()
    except BaseException as error:
        with suppress(OSError):  # close writes what is buffered, and fails again on a full disk
            file.close()
        if isinstance(error, OSError):
            raise OurOwnFault(f"keeping a request's body: {texts.what(error)}") from None
        raise
    return Body(file, size)


def _temporary(folder: str) -> IO[bytes]:
    import tempfile  # few bodies need it; it brings shutil and all that packs files, which CGI would import each time

    try:
        return tempfile.TemporaryFile(dir=folder or None)
    except OSError as error:
        raise OurOwnFault(f"no temporary file for a request's body: {texts.what(error)}") from None


def _blocks(file: IO[bytes]) -> Iterator[bytes]:
    file.seek(0)
    while block := file.read(BLOCK):
        yield block


def _read(stream: Input, least: int) -> Iterator[bytes]:
    """A body up to its end. Raises VisitorGone if it is shorter than `least` bytes or breaks off."""
    left = least
    while True:
        try:
            piece = stream.read(BLOCK)
        except OSError as error:  # how mod_wsgi reports a broken connection
            raise VisitorGone(str(error)) from None
        if not piece:
            if left > 0:
                raise VisitorGone(f"the body ended {texts.count(left, 'byte')} early")
            return
        left -= len(piece)
        yield piece
