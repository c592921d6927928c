"""A request's body, kept before an AppServer is chosen.

In memory up to one bound, in an unlinked temporary file up to another: so a slow upload holds no thread of
an AppServer, and can be sent again. What is larger is streamed, and can be sent once.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import suppress
from typing import IO, Protocol

from lbadaptor.errors import LbadaptorError, OurOwnFault

BLOCK = 65536


class Input(Protocol):
    """wsgi.input, as far as it is used."""

    def read(self, size: int, /) -> bytes: ...


class VisitorGone(LbadaptorError):
    """The body ended early: the visitor went away, or said a wrong length."""


class Body:
    """A kept body and, where it was too large, the rest of the stream.

    `length` is the number of bytes; None for a chunked body of which not all was kept.
    """

    def __init__(self, kept: bytes | IO[bytes], length: int | None, rest: Iterator[bytes] | None = None) -> None:
        self.length = length
        self._kept = kept
        self._rest = rest
        self._streamed = False

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
            self._kept.seek(0)
            while piece := self._kept.read(BLOCK):
                yield piece
        if self._rest is not None:
            self._streamed = True
            yield from self._rest

    def close(self) -> None:
        if not isinstance(self._kept, bytes):
            self._kept.close()


EMPTY = Body(b"", 0)


def keep(stream: Input, length: int | None, memory: int, spool: int, folder: str) -> Body:
    """Read a body of `length` bytes (None: until its end), up to the bounds in bytes.

    Blocks on the visitor. Raises VisitorGone, and OurOwnFault when the spool folder takes no more.
    """
    if length == 0:
        return EMPTY
    source = _read(stream, length)
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
        return Body(b"".join(start), length, source)
    return _spool(start, size, source, length, spool, folder)


def _spool(
    start: list[bytes], size: int, source: Iterator[bytes], length: int | None, bound: int, folder: str
) -> Body:
    try:
        file = tempfile.TemporaryFile(dir=folder or None)  # noqa: SIM115 - the Body closes it
    except OSError as error:
        raise OurOwnFault(f"no temporary file for a request's body: {error.strerror}") from None
    try:
        for piece in start:
            file.write(piece)
        for piece in source:
            file.write(piece)
            size += len(piece)
            if size > bound:
                file.flush()
                return Body(file, length, source)
        file.flush()
    except BaseException as error:
        with suppress(OSError):  # closing writes what is buffered, and fails again where the disk is full
            file.close()
        if isinstance(error, OSError):
            raise OurOwnFault(f"keeping a request's body: {error.strerror}") from None
        raise
    return Body(file, size)


def _read(stream: Input, length: int | None) -> Iterator[bytes]:
    left = length
    while left is None or left > 0:
        try:
            piece = stream.read(BLOCK if left is None else min(BLOCK, left))
        except OSError as error:  # mod_wsgi's own word for a connection that broke
            raise VisitorGone(str(error)) from None
        if not piece:
            if left is None:
                return
            raise VisitorGone(f"the body ended {left} bytes early")
        if left is not None:
            left -= len(piece)
        yield piece
