"""HTTP/1.1 as both sides read it: the lines of a head, the framing, bodies in chunks (RFC 9112). Pure.

What is malformed is refused, never mended: where two who read the same bytes mend them differently, one can be
played off against the other.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Generic, TypeVar

MAX_LINE = 8192
"""Bytes of a line within a chunked body (a chunk's size, a trailer)."""
MAX_TRAILERS = 65536
"""Bytes of a chunked body's trailers."""
MOST = 1024
"""Texts that are remembered; when there are more, all are forgotten: visitors make some up."""
LONGEST = 256
"""Characters of a text that is remembered."""

_SECRET = frozenset(("authorization", "cookie", "proxy-authorization", "set-cookie"))
"""Headers that are not kept for longer than it takes to answer."""

_NAME = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+").fullmatch
_VALUE = re.compile(r"[\t\x20-\x7e\x80-\xff]*").fullmatch
_LENGTH = re.compile(r"[0-9]{1,18}").fullmatch
_CHUNK_SIZE = re.compile(rb"([0-9A-Fa-f]{1,15})[ \t]*(?:;[^\r\n]*)?").fullmatch

Result = TypeVar("Result")


class NotHttp(Exception):
    """Not HTTP/1.1, or more of it than is taken."""


class _Kept(dict[str, Result], Generic[Result]):
    """Texts and what was made of them. Any thread may use it."""

    def keep(self, text: str, result: Result) -> None:
        if len(text) <= LONGEST:
            if len(self) >= MOST:
                self.clear()
            self[text] = result


class Memory(_Kept[Result]):
    """`memory[text]` is what `read` makes of a text. What comes again and again is read but once.

    Raises what `read` raises.
    """

    def __init__(self, read: Callable[[str], Result]) -> None:
        super().__init__()
        self._read = read

    def __missing__(self, text: str) -> Result:
        result = self._read(text)
        self.keep(text, result)
        return result


class Lines(_Kept[Result]):
    """`lines[line]` is what a header line means (RFC 9112 §5). Raises NotHttp.

    `mean` gets a name as it was sent and a value without the white space around it, and says what both mean.
    """

    def __init__(self, mean: Callable[[str, str], Result]) -> None:
        super().__init__()
        self._mean = mean

    def __missing__(self, line: str) -> Result:
        name, colon, value = line.partition(":")
        if not colon:
            raise NotHttp(f"{line[:40]!r} is no header")
        if not (value.isascii() and value.isprintable()) and not _VALUE(value):
            raise NotHttp(f"{name[:40]}: what no header may hold")
        result = self._mean(name, value.strip(" \t"))
        if name.lower() not in _SECRET:
            self.keep(line, result)
        return result


def is_name(text: str) -> bool:
    """Whether a text is a header's name (a token, RFC 9110 §5.6.2)."""
    return _NAME(text) is not None


def length(value: str) -> int:
    """The bytes that a Content-Length says (RFC 9110 §8.6). Raises NotHttp."""
    if not _LENGTH(value):
        raise NotHttp(f"Content-Length {value[:40]!r}")
    return int(value)


class Chunks:
    """A body in chunks (RFC 9112 §7.1), read piece by piece; extensions and trailers are passed over."""

    def __init__(self) -> None:
        self.over = False
        """all of it was read"""
        self.rest = b""
        """what came beyond its end"""
        self._left = 0
        """bytes of the chunk at hand that are still to come"""
        self._line = b""
        """the beginning of a line that has not ended"""
        self._within = False
        """a chunk was begun, and the line break after it has not come"""
        self._trailers = -1
        """bytes of trailers so far; -1: the last chunk has not come"""

    def feed(self, data: bytes) -> list[bytes]:
        """The pieces of the body that some bytes hold. Raises NotHttp."""
        pieces: list[bytes] = []
        place = 0
        while place < len(data) and not self.over:
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
                    raise NotHttp("a line without end within a body in chunks")
                return pieces
            self._end_line(self._line + data[place:end])
            self._line = b""
            place = end + 1
        if self.over:
            self.rest = data[place:]
        return pieces

    def _end_line(self, line: bytes) -> None:
        if not line.endswith(b"\r") or len(line) > MAX_LINE:
            raise NotHttp("a line that does not end as it should within a body in chunks")
        line = line[:-1]
        if self._trailers >= 0:
            self._trailers += len(line) + 2
            if self._trailers > MAX_TRAILERS:
                raise NotHttp("too many trailers")
            self.over = not line
        elif self._within:
            if line:
                raise NotHttp("a chunk is longer than it says")
            self._within = False
        else:
            found = _CHUNK_SIZE(line)
            if not found:
                raise NotHttp(f"chunk size {line[:20]!r}")
            self._left = int(found[1], 16)
            self._within = self._left > 0
            if not self._left:
                self._trailers = 0
