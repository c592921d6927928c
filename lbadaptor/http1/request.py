"""The server's side: requests are read from a connection's bytes.

`RequestReader` gets the bytes as they come. It keeps the connection's state (`states`), the head that is here, and
the pieces of its body.
"""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Callable
from typing import Generic, Protocol, TypeVar

from lbadaptor.contract.headers import METHODS
from lbadaptor.http1 import framing
from lbadaptor.http1.framing import Decoder, Framing
from lbadaptor.http1.lines import LineMemo, Memo, ProtocolError, is_name
from lbadaptor.http1.states import (
    ANSWERED,
    BODY,
    DISCARDING,
    HEAD,
    HEAD_BEGINS,
    HEAD_ENDS,
    IDLE,
    REQUEST,
    REQUEST_ENDS,
    State,
)

MAX_HEAD = 1 << 20
"""Bytes of a head: Apache takes 100 fields of 8,190 bytes (LimitRequestFields, LimitRequestFieldSize), and the
adaptor adds some."""
MAX_LINES = 4096
"""Lines of a head: Apache takes 100 fields."""
_SMALL = 16384
"""Bytes of a head whose lines need no counting: it cannot have more than MAX_LINES."""

CONTENT_LENGTH = "CONTENT_LENGTH"
CONTENT_TYPE = "CONTENT_TYPE"
TRANSFER_ENCODING = "HTTP_TRANSFER_ENCODING"
CONNECTION = "HTTP_CONNECTION"
COOKIE = "HTTP_COOKIE"

_BEGINS = re.compile(rb"[!#$%&'*+.^_`|~0-9A-Za-z-]{1,64}(?: |$)").match
"""What may be the beginning of a request whose head has not all come."""
_MINOR = {"HTTP/1.1": "1.1", "HTTP/1.0": "1.0"}


class RequestFields(LineMemo[tuple[str | None, str]]):
    """A head's fields by the names that CGI gives them (RFC 3875 §4.1): CONTENT_LENGTH, HTTP_COOKIE.

    `read_name` may give other names to other fields. It gives None to a field that is dropped.
    """

    def __init__(self, read_name: Callable[[str], Callable[[str], tuple[str | None, str]]], bound: int) -> None:
        super().__init__(read_name, bound)
        self._plain = Memo(self._key_of_plain, 131072)

    def __missing__(self, line: str) -> tuple[str | None, str]:
        # Three lines of every head are not kept: LB-Path, LB-Request-Uri, Cookie. Nearly always they are printable
        # ASCII without a percent sign, so that there is nothing to decode. To read those here, without the two
        # functions that LineMemo calls, takes a third off their cost, 0.4 us off that of a head.
        name, colon, value = line.partition(":")
        if colon and line.isascii() and line.isprintable() and "%" not in value:
            key = self._plain[name]
            if key is not None:
                return key, value.strip(" ")
        return super().__missing__(line)

    def _key_of_plain(self, name: str) -> str | None:
        """The key of a field whose lines are not kept; None of one whose lines are kept, or that has none."""
        read_value, kept = self.names[name]
        return None if kept else read_value("")[0]

    def combine(self, lines: list[str]) -> dict[str, str]:
        """The fields of a head in which some are repeated (RFC 9110 §5.3, RFC 9113 §8.2.3), or have no name."""
        fields: dict[str, str] = {}
        for line in lines:
            key, value = self[line]
            if key is None:
                continue
            if key in fields and key != CONTENT_TYPE:
                if not key.startswith("HTTP_"):
                    raise ProtocolError(f"{key} is said twice")
                value = f"{fields[key]}{'; ' if key == COOKIE else ', '}{value}"
            fields[key] = value
        return fields


class RequestHead:
    """A request's head. `text`: without the empty line at its end. Raises ProtocolError."""

    __slots__ = ("fields", "framing", "keep_alive", "method", "target", "version")

    def __init__(self, text: str, memo: RequestFields) -> None:
        lines = text.split("\r\n")
        self.method, self.target, version = _request_line(lines.pop(0))
        self.version = version
        """"1.0" or "1.1\""""
        fields: dict[str, str] = dict(map(memo.__getitem__, lines))  # type: ignore[arg-type] # a key may be None here
        if len(fields) < len(lines) or None in fields:
            fields = memo.combine(lines)
        self.fields = fields
        """by the names of `RequestFields`, without Connection"""
        self.keep_alive = version == "1.1"
        """the connection may carry another request (RFC 9112 §9.3)"""
        if CONNECTION in fields and "close" in fields.pop(CONNECTION).lower():
            self.keep_alive = False
        self.framing: Framing = 0
        """how the body is framed"""
        if CONTENT_LENGTH in fields or TRANSFER_ENCODING in fields:
            self.framing = framing.of_request(fields.get(CONTENT_LENGTH), fields.get(TRANSFER_ENCODING), version)


def _request_line(line: str) -> tuple[str, str, str]:
    """Method, target and version (RFC 9112 §3). The target is visible ASCII: it ends at a space."""
    try:
        method, target, version = line.split(" ")
        minor = _MINOR[version]
    except (ValueError, KeyError):
        raise ProtocolError(f"{line[:40]!r} begins no request") from None
    if not (target and line.isascii() and line.isprintable() and (method in METHODS or is_name(method))):
        raise ProtocolError(f"{line[:40]!r} begins no request")
    return method, target, minor


class _Head(Protocol):
    """What the reader has to know of a head."""

    keep_alive: bool
    framing: Framing


Head = TypeVar("Head", bound=_Head)


class RequestReader(Generic[Head]):
    """The requests of one connection, one after the other. `read_head` makes a head of its text.

    One thread at a time may call it; see `states`.
    """

    def __init__(self, read_head: Callable[[str], Head]) -> None:
        self.state: State = IDLE
        self.request: Head | None = None
        """the head that is here, until the request was answered and all of it was read"""
        self.keep_alive = True
        """the connection may carry another request"""
        self.pieces: deque[bytes] = deque()
        """what was read of the body; a piece that is used is taken out"""
        self._read_head = read_head
        self._beginning = bytearray()
        """the beginning of a head of which not all is here"""
        self._decoder: Decoder | None = None
        """of a body that is still coming"""

    @property
    def unfinished(self) -> int:
        """Bytes of a head of which not all is here."""
        return len(self._beginning)

    @property
    def body_ended(self) -> bool:
        """The last byte of the request's body was read."""
        return self._decoder is None

    def feed(self, data: bytes) -> None:
        """Read what came. Raises ProtocolError, after which only `stop` may be called."""
        state = self.state
        if state is IDLE:
            self._feed_head(data, 0)
        elif state is HEAD:
            before = len(self._beginning)
            self._beginning += data
            self._feed_head(self._beginning, max(0, before - 3))
        elif state is BODY or state is DISCARDING:
            self._feed_body(data)
        elif state is REQUEST:
            self.keep_alive = False  # our callers do not pipeline; one that does has to ask again (RFC 9112 §9.3.2)

    def answered(self) -> bool:
        """The answer was sent. Whether another request may come at once; else the body's rest is discarded first."""
        state = self.state
        if self.pieces:
            self.pieces.clear()
        if state is REQUEST:
            self.request = None
        self.state = ANSWERED[state]  # last: from now on the thread that polls may read
        return state is REQUEST

    def stop(self) -> None:
        """Forget what is here: no request will be read any more."""
        self.pieces.clear()
        self._beginning = bytearray()

    def _feed_head(self, data: bytes | bytearray, start: int) -> None:
        """`data`: all that came of it; its end cannot be found before `start`."""
        end = data.find(b"\r\n\r\n", start)
        if end < 0 or end > _SMALL:
            self._check_size(data, end)
            if end < 0:
                if data is not self._beginning:
                    self._beginning = bytearray(data)
                    self.state = HEAD_BEGINS[self.state]
                return
        if self._beginning:
            data, self._beginning = bytes(data), bytearray()
        self.request = request = self._read_head(data[:end].decode("latin-1"))
        self.keep_alive = request.keep_alive
        if request.framing:
            self._decoder = framing.decoder(request.framing)
            self.state = HEAD_ENDS[self.state]
        else:
            self.state = REQUEST_ENDS[self.state]
        if len(data) > end + 4:
            self.feed(bytes(data[end + 4 :]))

    def _check_size(self, data: bytes | bytearray, end: int) -> None:
        """`end`: the place of the head's end in `data`; negative where it has not come."""
        if (end if end >= 0 else len(data)) > MAX_HEAD:
            raise ProtocolError(f"a head of more than {MAX_HEAD} bytes", 431)
        if end < 0:
            if not _BEGINS(data):
                raise ProtocolError(f"{bytes(data[:40])!r} begins no request")
        elif data.count(b"\n", 0, end) >= MAX_LINES:
            raise ProtocolError(f"a head of more than {MAX_LINES} lines", 431)

    def _feed_body(self, data: bytes) -> None:
        decoder = self._decoder
        assert decoder is not None
        pieces = decoder.feed(data)
        discarding = self.state is DISCARDING
        if not discarding:
            self.pieces += pieces
        if decoder.complete:
            self._decoder = None
            if discarding:
                self.request = None
            self.state = REQUEST_ENDS[self.state]
            if decoder.rest:  # pipelined after a request without an answer; the next request after one that has it
                self.feed(decoder.rest)
