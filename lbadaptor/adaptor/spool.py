"""A request's body, kept before an AppServer is chosen.

In memory up to one bound, in an unlinked temporary file up to another: so a slow upload holds no thread of
an AppServer, and can be sent again. What is larger is streamed, and can be sent once.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import suppress
from typing import IO, Protocol

from lbadaptor.contract.errors import LbadaptorError, OurOwnFault
from lbadaptor.log import texts

BLOCK = 65536


class Input(Protocol):
    """wsgi.input, as far as it is used."""

    def read(self, size: int, /) -> bytes: ...


class VisitorGone(LbadaptorError):
    """The body ended early: the visitor went away, or said a wrong length."""


class Body:
    """A kept body and, where it was too large, the rest of the stream.

    `length` is the number of bytes; None for a body of which not all was kept: its length is known at its end.
    """

    def __init__(self, kept: bytes | IO[bytes], length: int | None, rest: Iterator[bytes] | None = None) -> None:
        self.length = length
        self._kept = kept
        self._rest = rest
        self._later: IO[bytes] | None = None
        """what was kept of the rest while the body was sent"""
        self._broken = False
        """some of the rest is lost"""
        self._streamed = False

    @property
    def kept(self) -> bool:
        """Whether it is all here: then nobody waits for the visitor."""
        return self._rest is None

    @property
    def repeatable(self) -> bool:
        """Whether all that was sent so far can be sent again."""
        return not self._streamed

    @property
    def small(self) -> bytes | None:
        """The whole body, where it is in memory."""
        return self._kept if isinstance(self._kept, bytes) and self._rest is None else None

    def pieces(self) -> Iterator[bytes]:
        """The body from its beginning. Blocks on the visitor beyond what was kept. Raises VisitorGone."""
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
        """Read what still comes of it into a temporary file, whatever its size. `pieces` goes on from there.

        Blocks on the visitor. Raises VisitorGone, and OurOwnFault when the folder takes no more.
        """
        if self._rest is None or self._later is not None:
            return
        self._broken = True  # until all is here: nobody must take a part for the whole
        self._later = _temporary(folder)
        try:
            for piece in self._rest:
                self._later.write(piece)
            self._later.flush()
        except (OSError, MemoryError) as error:
            raise OurOwnFault(f"keeping a request's body: {texts.what(error)}") from None
        self._broken = False

    def pass_over(self) -> None:
        """Read what still comes of it, and keep none. Blocks on the visitor. Raises VisitorGone."""
        for _ in self._rest or ():
            pass

    def close(self) -> None:
        for file in (self._kept, self._later):
            if file is not None and not isinstance(file, bytes):
                with suppress(OSError):  # closing writes what is buffered, and fails again where the disk is full
                    file.close()


EMPTY = Body(b"", 0)


def keep(stream: Input, length: int | None, memory: int, spool: int, folder: str, *, short: bool = False) -> Body:
    """Read a body up to its end, or up to the bounds in bytes.

    `length` is what the request says of it, None for nothing. A filter of Apache's may lengthen or shorten the body:
    as under mod_wsgi itself, its end is where the input ends. `short`: a body that is shorter than `length` may be
    whole.

    Blocks on the visitor. Raises VisitorGone, and OurOwnFault when memory or spool folder take no more.
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
        with suppress(OSError):  # closing writes what is buffered, and fails again where the disk is full
            file.close()
        if isinstance(error, OSError):
            raise OurOwnFault(f"keeping a request's body: {texts.what(error)}") from None
        raise
    return Body(file, size)


def _temporary(folder: str) -> IO[bytes]:
    try:
        return tempfile.TemporaryFile(dir=folder or None)
    except OSError as error:
        raise OurOwnFault(f"no temporary file for a request's body: {texts.what(error)}") from None


def _blocks(file: IO[bytes]) -> Iterator[bytes]:
    file.seek(0)
    while block := file.read(BLOCK):
        yield block


def _read(stream: Input, least: int) -> Iterator[bytes]:
    """A body up to its end. Raises VisitorGone where it is shorter than `least` bytes, or broken off."""
    left = least
    while True:
        try:
            piece = stream.read(BLOCK)
        except OSError as error:  # mod_wsgi's own word for a connection that broke
            raise VisitorGone(str(error)) from None
        if not piece:
            if left > 0:
                raise VisitorGone(f"the body ended {left} bytes early")
            return
        left -= len(piece)
        yield piece
