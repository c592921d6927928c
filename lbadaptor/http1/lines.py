"""HTTP/1.1 as both sides read it: the lines of a head, the framing, bodies in chunks (RFC 9112). Pure.

What is malformed is refused, never mended: where two who read the same bytes mend them differently, one can be
played off against the other.
"""

from __future__ import annotations

import re
import threading
from collections.abc import Callable
from typing import Generic, TypeVar

MAX_LINE = 8192
"""Bytes of a line within a chunked body (a chunk's size, a trailer)."""
MAX_TRAILERS = 65536
"""Bytes of a chunked body's trailers."""
LONGEST = 256
"""Characters of a text that a memo keeps."""
PLAIN_NAMES = frozenset(
    (
        *("accept", "accept-charset", "accept-encoding", "accept-language", "accept-ranges", "allow"),
        *("cache-control", "connection", "content-encoding", "content-language", "content-length"),
        *("content-type", "dnt", "host", "keep-alive", "lb-generation", "lb-load", "lb-refused"),
        *("lb-remote-addr", "lb-remote-port", "lb-scheme", "lb-script-name", "lb-server-name"),
        *("lb-server-port", "lb-server-protocol", "lb-session", "lb-status", "lb-var-https"),
        *("permissions-policy", "pragma", "referrer-policy", "sec-ch-ua", "sec-ch-ua-mobile"),
        *("sec-ch-ua-platform", "sec-fetch-dest", "sec-fetch-mode", "sec-fetch-site", "sec-fetch-user"),
        *("sec-gpc", "server", "strict-transport-security", "te", "transfer-encoding"),
        *("upgrade-insecure-requests", "user-agent", "vary", "x-content-type-options", "x-frame-options"),
        *("x-powered-by", "x-requested-with", "x-xss-protection"),
    )
)
"""Headers, in lower case, whose lines may be kept for longer than it takes to answer: none of them tells a secret, or
what a visitor asked for. Whatever is not named here is read anew each time."""

TEXT = r"[\t\x20-\x7e\x80-\xff]*"
"""A regular expression: what may stand in a header's value, and in the reason of a status line (RFC 9110 §5.5,
RFC 9112 §4). No other control character, no line break. AppServer and adaptor both go by this."""
illegal = re.compile(r"[^\t\x20-\x7e\x80-\xff]").search
"""The first character of a text that `TEXT` does not allow."""

_NAME = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+").fullmatch
_LENGTH = re.compile(r"[0-9]{1,18}").fullmatch
_CHUNK_SIZE = re.compile(rb"([0-9A-Fa-f]{1,15})[ \t]*(?:;[^\r\n]*)?").fullmatch

Result = TypeVar("Result")


class NotHttp(Exception):
    """Not HTTP/1.1, or more of it than is taken."""


_ENTRY = 512
"""Bytes, about, that one kept text takes beside its characters: its result, and its place in a dictionary."""


class _Kept(dict[str, Result], Generic[Result]):
    """Texts and what was made of them, in `bound` bytes at most; what goes beyond it makes it forget all.

    Any thread may use it.
    """

    def __init__(self, bound: int) -> None:
        super().__init__()
        self._bound = bound
        self._size = 0
        self._lock = threading.Lock()

    def keep(self, text: str, result: Result) -> None:
        if len(text) <= LONGEST:
            size = _ENTRY + 2 * len(text)  # the result holds about as many characters
            with self._lock:
                self._size += size
                if self._size > self._bound:
                    self.clear()
                    self._size = size
                self[text] = result


class Memory(_Kept[Result]):
    """`memory[text]` is what `read` makes of a text. What comes again and again is read but once.

    For texts that tell no secret. `bound`: bytes. Raises what `read` raises.
    """

    def __init__(self, read: Callable[[str], Result], bound: int) -> None:
        super().__init__(bound)
        self._read = read

    def __missing__(self, text: str) -> Result:
        result = self._read(text)
        self.keep(text, result)
        return result


class Lines(_Kept[Result]):
    """`lines[line]` is what a header line means (RFC 9112 §5). Raises NotHttp.

    `mean` gets a name as it was sent and a value without the white space around it, and says what both mean. Only
    lines of PLAIN_NAMES are kept. `bound`: bytes.
    """

    def __init__(self, mean: Callable[[str, str], Result], bound: int) -> None:
        super().__init__(bound)
        self._mean = mean

    def __missing__(self, line: str) -> Result:
        return self.read(line)

    def read(self, line: str) -> Result:
        """What a line means that is not remembered."""
        name, colon, value = line.partition(":")
        if not colon:
            raise NotHttp(f"{line[:40]!r} is no header")
        if not (value.isascii() and value.isprintable()) and illegal(value):
            raise NotHttp(f"{name[:40]}: what no header may hold")
        result = self._mean(name, value.strip(" \t"))
        if name.lower() in PLAIN_NAMES:
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
