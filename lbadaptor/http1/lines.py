"""The lines of a head (RFC 9112 §5): what a field line means, and memos for lines that come again and again.

What is malformed is refused and never mended: where two programs that read the same bytes mend them differently, one
can be played off against the other.
"""

from __future__ import annotations

import re
import threading
from collections.abc import Callable
from typing import Generic, TypeVar

MAX_MEMO_TEXT = 256
"""Characters of a text that a memo keeps."""
MEMO_NAMES = frozenset(
    (
        *("accept", "accept-charset", "accept-encoding", "accept-language", "accept-ranges", "allow"),
        *("cache-control", "connection", "content-encoding", "content-language", "content-length"),
        *("content-type", "dnt", "host", "keep-alive", "lb-generation", "lb-load", "lb-refused"),
        *("lb-remote-addr", "lb-remote-port", "lb-scheme", "lb-script-name", "lb-server-name"),
        *("lb-server-port", "lb-server-protocol", "lb-session", "lb-status", "lb-var-https", "lb-variables"),
        *("permissions-policy", "pragma", "priority", "referrer-policy", "sec-ch-ua", "sec-ch-ua-mobile"),
        *("sec-ch-ua-platform", "sec-fetch-dest", "sec-fetch-mode", "sec-fetch-site", "sec-fetch-user"),
        *("sec-gpc", "server", "strict-transport-security", "te", "transfer-encoding"),
        *("upgrade-insecure-requests", "user-agent", "vary", "x-content-type-options", "x-frame-options"),
        *("x-powered-by", "x-requested-with", "x-xss-protection"),
    )
)
"""Fields, in lower case, whose lines a memo may keep: none of them holds a secret, or tells what a visitor asked for.
Every other line is read anew each time."""

TEXT = r"[\t\x20-\x7e\x80-\xff]*"
"""A regular expression: what may stand in a field's value, and in the reason of a status line (RFC 9110 §5.5,
RFC 9112 §4). No other control character, no line break. AppServer and adaptor both go by this."""
illegal = re.compile(r"[^\t\x20-\x7e\x80-\xff]").search
"""The first character of a text that `TEXT` does not allow."""

_NAME = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+").fullmatch

Result = TypeVar("Result")


class ProtocolError(Exception):
    """The peer does not speak HTTP/1.1, or sends more of it than is accepted.

    `status`: what a server answers before it closes the connection.
    """

    def __init__(self, why: str, status: int = 400) -> None:
        super().__init__(why)
        self.status = status


def is_name(text: str) -> bool:
    """Whether a text is a field's name (a token, RFC 9110 §5.6.2)."""
    return _NAME(text) is not None


_ENTRY = 512
"""Bytes, about, that one kept text takes beside its characters: its result, and its place in a dictionary."""


class BoundedCache(dict[str, Result], Generic[Result]):
    """Texts and what was made of them, in `bound` bytes at most. What exceeds the bound empties it.

    A text of more than `longest` characters is not kept. Any thread may use it.
    """

    def __init__(self, bound: int, longest: int = MAX_MEMO_TEXT) -> None:
        super().__init__()
        self._bound = bound
        self._longest = longest
        self._size = 0
        self._lock = threading.Lock()

    def keep(self, text: str, result: Result) -> None:
        if len(text) <= self._longest:
            size = _ENTRY + 2 * len(text)  # the result holds about as many characters
            with self._lock:
                self._size += size
                if self._size > self._bound:
                    self.clear()
                    self._size = size
                self[text] = result


class Memo(BoundedCache[Result]):
    """`memo[text]` is what `read` makes of a text. What comes again and again is read once.

    For texts that hold no secret. `bound`: bytes. Raises what `read` raises.
    """

    def __init__(self, read: Callable[[str], Result], bound: int) -> None:
        super().__init__(bound)
        self._read = read

    def __missing__(self, text: str) -> Result:
        result = self._read(text)
        self.keep(text, result)
        return result


class LineMemo(BoundedCache[Result]):
    """`memo[line]` is what a field line means (RFC 9112 §5). Raises ProtocolError.

    `read_name` gets a name as it was sent and gives a function, which gets a value without the white space around it
    and gives what the line means. Only lines of MEMO_NAMES are kept. `bound`: bytes of the lines.
    """

    def __init__(self, read_name: Callable[[str], Callable[[str], Result]], bound: int) -> None:
        super().__init__(bound)
        self._pinned: dict[str, Result] = {}

        def read(name: str) -> tuple[Callable[[str], Result], bool]:
            if not is_name(name):
                raise ProtocolError(f"{name[:40]!r} is no header's name")
            return read_name(name), name.lower() in MEMO_NAMES

        self.names = Memo(read, 131072)
        """by name: the function for its values, and whether its lines are kept"""

    def __missing__(self, line: str) -> Result:
        name, colon, value = line.partition(":")
        if not colon:
            raise ProtocolError(f"{line[:40]!r} is no header")
        read_value, kept = self.names[name]
        if not (line.isascii() and line.isprintable()) and illegal(value):
            raise ProtocolError(f"{name[:40]}: what no header may hold")
        result = read_value(value.strip(" \t"))
        if kept:
            self.keep(line, result)
        return result

    def pin(self, line: str) -> None:
        """Keep a line, whatever its name, for as long as the memo lasts."""
        self[line] = self._pinned[line] = self[line]

    def clear(self) -> None:
        super().clear()
        self.update(self._pinned)
