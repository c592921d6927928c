"""The client's side: a response is read from a connection's bytes."""

from __future__ import annotations

import re
from collections.abc import Callable
from enum import Enum
from typing import NamedTuple

from lbadaptor.contract.headers import HOP_BY_HOP, is_ours
from lbadaptor.http1 import framing
from lbadaptor.http1.framing import UNTIL_CLOSE, Decoder
from lbadaptor.http1.lines import TEXT, LineMemo, Memo, ProtocolError

MAX_HEAD = 1 << 20
"""Bytes of a response's head, interim responses included: more than mod_wsgi or Apache themselves let through."""

Header = tuple[str, str]

_STATUS_LINE = re.compile(rf"HTTP/1\.([01]) ([1-5][0-9][0-9])(?: ({TEXT}))?").fullmatch
_STATUS_FIELD = "lb-status:"


class HeadTooLarge(ProtocolError):
    """A head of more than MAX_HEAD bytes."""


class MalformedHead(ProtocolError):
    """What came is no head of a response. `own`: it is an AppServer's all the same, because it has LB-Status."""

    def __init__(self, why: str, own: bool = False) -> None:
        super().__init__(why)
        self.own = own


class Field(Enum):
    """What a field of a response is for."""

    END_TO_END = "for the visitor"
    OWN = "what the AppServer says of itself: LB-..."
    LENGTH = "for the visitor, and for the framing"
    CODINGS = "for the framing"
    CONNECTION = "says whether the connection may be used again"
    HOP_BY_HOP = "for nobody beyond this connection"


END_TO_END, OWN, LENGTH, CODINGS, CONNECTION, _ = Field  # an enum's own look-up takes longer


def _read_name(name: str) -> Callable[[str], tuple[Field, Header]]:
    """For a field's value: what the field is for, its name as sent (LB-... in lower case), and its value."""
    lower = name.lower()
    if is_ours(lower):
        return lambda value: (OWN, (lower, value))
    if lower == "content-length":
        return lambda value: (LENGTH, (name, value))
    if lower == "transfer-encoding":
        return lambda value: (CODINGS, (name, value))
    if lower == "connection":
        return lambda value: (CONNECTION, (name, value.lower()))
    use = Field.HOP_BY_HOP if lower in HOP_BY_HOP else END_TO_END
    return lambda value: (use, (name, value))


def _status(line: str) -> tuple[str, int, str]:
    """Minor version of HTTP; code; code and reason, as PEP 3333's start_response wants them."""
    found = _STATUS_LINE(line)
    if not found:
        raise ProtocolError(repr(line[:40]))
    return found[1], int(found[2]), f"{found[2]} {found[3] or ''}"


_fields: LineMemo[tuple[Field, Header]] = LineMemo(_read_name, 262144)
_statuses = Memo(_status, 65536)


class Whole(NamedTuple):
    """A response all of which came in one piece, after which its connection can be used again."""

    status: int
    status_line: str
    """code and reason, as PEP 3333's start_response wants them"""
    headers: list[Header]
    """as `ResponseReader.headers`"""
    own: dict[str, str]
    """as `ResponseReader.own`"""
    body: bytes


def read_whole(method: str, received: bytes) -> Whole | None:
    """Read what came first of a response, if it is all of a plain one: HTTP/1.1, with Content-Length and a body.

    Most are like that, and this is the short way for them. None: ResponseReader has to read it, and to say what is
    wrong if something is.
    """
    end = received.find(b"\r\n\r\n")
    if end < 0 or method == "HEAD":
        return None
    lines = received[:end].decode("latin-1").split("\r\n")
    body = received[end + 4 :]
    headers: list[Header] = []
    own: dict[str, str] = {}
    length = ""
    fields = _fields
    try:
        version, status, status_line = _statuses[lines.pop(0)]
        for line in lines:
            use, header = fields[line]
            if use is END_TO_END:
                headers.append(header)
            elif use is OWN:
                own.setdefault(*header)
            elif use is LENGTH and not length:
                length = header[1]
                headers.append(header)
            else:
                return None
    except ProtocolError:
        return None
    if length != str(len(body)) or version != "1" or status < 200 or status in framing.BODILESS:
        return None
    return Whole(status, status_line, headers, own, body)


class ResponseReader:
    """One response to a request of `method`: first `feed_head` until the head is here, then `feed` until `complete`.

    One thread at a time may call it.
    """

    def __init__(self, method: str) -> None:
        self.status = 0
        self.status_line = ""
        """code and reason, as PEP 3333's start_response wants them"""
        self.headers: list[Header] = []
        """what is for the visitor, in the order in which it came, names as sent, values latin-1"""
        self.own: dict[str, str] = {}
        """what the AppServer says of itself: the LB- headers, names in lower case"""
        self.framing = 0
        """how the body is framed"""
        self.complete = False
        """all of the response was read"""
        self.keep_alive = True
        """the connection may carry another request when the response is complete (RFC 9112 §9.3)"""
        self.rest = b""
        """what came along with the head; `feed` it"""
        self._method = method
        self._beginning = bytearray()
        """the beginning of a head of which not all is here"""
        self._size = 0
        """bytes of all heads, as far as they came"""
        self._decoder: Decoder | None = None

    @property
    def begun(self) -> bool:
        """The beginning of a head is here."""
        return bool(self._beginning)

    def feed_head(self, received: bytes) -> bool:
        """Read what came. Whether the head is here. Raises MalformedHead, HeadTooLarge.

        Interim responses (1xx) are skipped. A change of protocol (101) is refused: nobody asked for one.
        """
        self._size += len(received)
        start = 0
        data: bytes | bytearray = received
        if self._beginning:
            start = max(0, len(self._beginning) - 3)
            self._beginning += received
            data = self._beginning
        while True:
            end = data.find(b"\r\n\r\n", start)
            if end < 0:
                if not data.startswith(b"HTTP/"[: len(data)]):
                    raise MalformedHead(repr(bytes(data[:40])))
                if self._size > MAX_HEAD:
                    raise HeadTooLarge(f"a head of more than {MAX_HEAD} bytes")
                if data is not self._beginning:
                    self._beginning = bytearray(data)
                return False
            lines = data[:end].decode("latin-1").split("\r\n")
            data = data[end + 4 :]
            start = 0
            try:
                version, status, self.status_line = _statuses[lines.pop(0)]
                if status >= 200:
                    self.status = status
                    self.keep_alive = version == "1"
                    self._read_fields(lines)
                    break
                if status == 101:
                    raise ProtocolError("it changes the protocol")
            except ProtocolError as error:
                own = any(line.lower().startswith(_STATUS_FIELD) for line in lines)
                raise MalformedHead(str(error), own) from None
        if not self.framing:
            self._end(data)
        else:
            self.rest = bytes(data)
        return True

    def feed(self, data: bytes) -> list[bytes]:
        """The pieces of the body that `data` holds: `rest`, or what came since. Raises ProtocolError."""
        self.rest = b""
        decoder = self._decoder
        if decoder is None:
            if len(data) == self.framing:  # nearly always, the head and the body come in one piece
                self.complete = True
                return [data]
            decoder = self._decoder = framing.decoder(self.framing)
        pieces = decoder.feed(data)
        if decoder.complete:
            self._end(decoder.rest)
        return pieces

    def end(self) -> None:
        """The connection's end came. Raises ProtocolError where that is not the end of the body."""
        missing = (self._decoder or framing.decoder(self.framing)).missing
        if missing:
            raise ProtocolError(missing)
        self._end(b"")

    def _end(self, more: bytes | bytearray) -> None:
        """The body is over. `more`: what came after it, which nobody asked for."""
        self.complete = True
        if more:
            self.keep_alive = False

    def _read_fields(self, lines: list[str]) -> None:
        lengths: list[str] = []
        codings = None
        headers, fields = self.headers, _fields
        for line in lines:
            use, header = fields[line]
            if use is END_TO_END:
                headers.append(header)
            elif use is OWN:
                self.own.setdefault(*header)
            elif use is LENGTH:
                lengths.append(header[1])
                headers.append(header)
            elif use is CODINGS:
                codings = header[1] if codings is None else f"{codings}, {header[1]}"
            elif use is CONNECTION and "close" in header[1]:
                self.keep_alive = False
        self.framing = framing.of_response(self._method, self.status, lengths, codings)
        if self.framing == UNTIL_CLOSE:
            self.keep_alive = False
