"""Bodies in chunks (RFC 9112 §7.1): the decoder and the encoder."""

from __future__ import annotations

import re

from lbadaptor.http1.lines import ProtocolError

MAX_LINE = 8192
"""Bytes of a line within a chunked body: a chunk's size with its extensions, or a trailer field."""
MAX_TRAILERS = 65536
"""Bytes of all trailer fields."""

LAST = b"0\r\n\r\n"
"""The last chunk, without trailer fields."""

_CHUNK_SIZE = re.compile(rb"([0-9A-Fa-f]{1,15})[ \t]*(?:;[^\r\n]*)?").fullmatch


def encode(data: bytes) -> bytes:
    """A chunk. `data` must not be empty: that would be the last chunk."""
    return b"%x\r\n%b\r\n" % (len(data), data)


class ChunkDecoder:
    """Decodes a body piece by piece. Extensions and trailer fields are discarded."""

    def __init__(self) -> None:
        self.complete = False
        """the last chunk and its trailer fields were read"""
        self.rest = b""
        """what came after them"""
        self._left = 0
        """bytes of the current chunk that are still to come"""
        self._line = b""
        """the beginning of a line that has not ended"""
        self._in_chunk = False
        """a chunk has begun, and the line break after it has not come"""
        self._trailers = -1
        """bytes of trailer fields so far; -1: the last chunk has not come"""

    @property
    def missing(self) -> str:
        """What is missing where the connection ends now; empty if nothing is."""
        return "" if self.complete else "the last chunk is missing"

    def feed(self, data: bytes) -> list[bytes]:
        """The pieces of the body that `data` holds. Raises ProtocolError."""
        pieces: list[bytes] = []
        place = 0
        while place < len(data) and not self.complete:
            if self._left:
                piece = data[place : place + self._left]
                pieces.append(piece)
                self._left -= len(piece)
                place += len(piece)
                continue
            end = data.find(b"\n", place)
            if end < 0:
                self._line += data[place:]
                if len(self._line) > MAX_LINE:
                    raise ProtocolError("a line without end within a body in chunks")
                return pieces
            self._end_line(self._line + data[place:end])
            self._line = b""
            place = end + 1
        if self.complete:
            self.rest = data[place:]
        return pieces

    def _end_line(self, line: bytes) -> None:
        if not line.endswith(b"\r") or len(line) > MAX_LINE:
            raise ProtocolError("a line that does not end as it should within a body in chunks")
        line = line[:-1]
        if self._trailers >= 0:
            self._trailers += len(line) + 2
            if self._trailers > MAX_TRAILERS:
                raise ProtocolError("too many trailers")
            self.complete = not line
        elif self._in_chunk:
            if line:
                raise ProtocolError("a chunk is longer than it says")
            self._in_chunk = False
        else:
            found = _CHUNK_SIZE(line)
            if not found:
                raise ProtocolError(f"chunk size {line[:20]!r}")
            self._left = int(found[1], 16)
            self._in_chunk = self._left > 0
            if not self._left:
                self._trailers = 0
