"""One exchange with an AppServer: a request out, an answer in, over one connection (HTTP/1.1, RFC 9112)."""

from __future__ import annotations

import errno
import re
import time
from collections.abc import Iterator
from enum import Enum

from lbadaptor.body import Body
from lbadaptor.failover import Failure
from lbadaptor.headers import HOP_BY_HOP
from lbadaptor.http1 import Chunks, Lines, Memory, NotHttp, is_name, length
from lbadaptor.pool import Connection

MAX_HEAD = 65536
BLOCK = 65536
PAUSE = 0.05
"""Seconds of silence within an answer that make it a stream (server-sent events)."""
LONGEST = 0.5
"""Seconds for which an answer is taken over; one that goes on for longer is a stream, though it never pauses."""

_STATUS_LINE = re.compile(r"HTTP/1\.([01]) ([1-5][0-9][0-9])(?: ([\t\x20-\x7e\x80-\xff]*))?").fullmatch
Status = tuple[str, int, str]
"""Minor version of HTTP; code; code and reason, as start_response wants them."""
_BODILESS = frozenset((204, 304))


class ExchangeFailed(Exception):
    """An exchange came to nothing; `failure` names how far it came."""

    def __init__(self, failure: Failure, why: str = "") -> None:
        super().__init__(f"{failure.value}{': ' if why else ''}{why}")
        self.failure = failure


class _For(Enum):
    """Whom a header of an answer concerns."""

    VISITOR = "the visitor"
    US = "us: what the AppServer says of itself"
    LENGTH = "the visitor, and the framing"
    CODINGS = "the framing"
    CONNECTION = "whether the connection may be used again"
    NOBODY = "nobody beyond this connection"


_VISITOR, _US, _LENGTH = _For.VISITOR, _For.US, _For.LENGTH  # an enum's own look-up takes longer


def _mean(name: str, value: str) -> tuple[_For, tuple[str, str]]:
    """What a header of an answer means: whom it concerns; its name (ours in lower case) and its value."""
    if not is_name(name):
        raise NotHttp(f"{name[:40]!r} is no header's name")
    key = name.lower()
    if key.startswith("lb-"):
        return _For.US, (key, value)
    if key == "content-length":
        return _For.LENGTH, (name, value)
    if key == "transfer-encoding":
        return _For.CODINGS, (name, value.lower())
    if key == "connection":
        return _For.CONNECTION, (name, value.lower())
    return _For.NOBODY if key in HOP_BY_HOP else _For.VISITOR, (name, value)


_lines: Lines[tuple[_For, tuple[str, str]]] = Lines(_mean)


class Answer:
    """An answer whose head is here. Its body is read as `blocks` is iterated, which blocks.

    Raises ExchangeFailed: NOT_HTTP at once; SILENT or BROKEN within the body.
    """

    def __init__(self, connection: Connection, rest: bytes, method: str, status: Status, lines: list[str]) -> None:
        version, self.status, self.status_line = status
        self.headers: list[tuple[str, str]] = []
        """what is for the visitor, in the order of their coming, names as sent, values latin-1"""
        self.own: dict[str, str] = {}
        """what the AppServer says of itself: the LB- headers, names in lower case"""
        self.complete = False
        """the body is over, and the connection may carry another request if `reusable`"""
        self.reusable = version == "1"
        self.connection = connection
        self._rest = rest
        """what came along with the head"""
        self._chunks: Chunks | None = None
        self._left, codings = self._read(lines)
        """bytes of a counted body that are still to come"""
        # How the body is framed (RFC 9112 §6.3).
        if method == "HEAD" or self.status in _BODILESS or self._left == 0:
            self._end(rest)
        elif self._left is None and codings is None:
            self.reusable = False
        if codings is not None:
            if codings != "chunked" or self._left is not None:
                raise ExchangeFailed(Failure.NOT_HTTP, f"Transfer-Encoding {codings!r}")
            self._chunks = Chunks()

    @property
    def blocks(self) -> Iterator[bytes]:
        """What is still to come of the body."""
        return iter(self.read, b"")

    def read(self) -> bytes:
        """The next block of the body; empty at its end. Blocks."""
        while not self.complete:
            if block := self._step():
                return block
        return b""

    def take(self, bound: int) -> list[bytes]:
        """Read the body until it is complete, larger than `bound` bytes, or a stream: it pauses, or lasts."""
        if self._left and len(self._rest) == self._left:  # it came along with the head
            taken = [self._rest]
            self._end(b"")
            return taken
        taken = []
        size = 0
        end = None
        while not self.complete and size <= bound:
            now = time.monotonic()
            end = end or now + LONGEST
            if now >= end or not (self._rest or self.connection.ready(PAUSE)):
                break
            if block := self._step():
                taken.append(block)
                size += len(block)
        return taken

    def _read(self, lines: list[str]) -> tuple[int | None, str | None]:
        """Read the headers; of those that concern the framing, the length and the codings."""
        left = codings = None
        for line in lines:
            whom, header = _lines[line]
            if whom is _VISITOR:
                self.headers.append(header)
            elif whom is _US:
                self.own.setdefault(*header)
            elif whom is _LENGTH:
                if left is not None and left != length(header[1]):
                    raise ExchangeFailed(Failure.NOT_HTTP, "two different lengths")
                left = length(header[1])
                self.headers.append(header)
            elif whom is _For.CODINGS:
                codings = header[1] if codings is None else f"{codings}, {header[1]}"
            elif whom is _For.CONNECTION and "close" in header[1]:
                self.reusable = False
        return left, codings

    def _end(self, more: bytes) -> None:
        """The body is over. `more`: what came beyond it, which nobody asked for."""
        self.complete = True
        self._rest = b""
        if more:
            self.reusable = False

    def _step(self) -> bytes:
        """What came next of the body; empty at its end, or where it was none of the body's own bytes."""
        data = self._rest or receive(self.connection, Failure.BROKEN)
        self._rest = b""
        left = self._left
        if left is not None:
            if len(data) >= left:
                self._end(data[left:])
                return data[:left]
            if not data:
                raise ExchangeFailed(Failure.BROKEN, f"{left} bytes are missing")
            self._left = left - len(data)
            return data
        if self._chunks is None:
            if not data:
                self._end(b"")
            return data
        if not data:
            raise ExchangeFailed(Failure.BROKEN, "the last chunk is missing")
        try:
            pieces = self._chunks.feed(data)
        except NotHttp as error:
            raise ExchangeFailed(Failure.BROKEN, str(error)) from None
        if self._chunks.over:
            self._end(self._chunks.rest)
        return b"".join(pieces)


def exchange(connection: Connection, method: str, head: bytes, body: Body) -> Answer:
    """Send a request, and read the answer up to its body. Blocks.

    `head` ends with the empty line, and its framing fits the body. Raises ExchangeFailed; what the visitor
    does wrong while the body is streamed (VisitorGone) passes through.
    """
    small = body.small
    try:
        if small is not None:
            _send_all(connection, head + small, Failure.UNSENT)
        else:
            _send_all(connection, head, Failure.UNSENT)
            if early := _send_large(connection, method, body):
                return early
    except ExchangeFailed as failed:
        if failed.failure is not Failure.LOST:
            raise
        # It may have answered (a refusal) and hung up before it had read everything.
        try:
            answer = _answer(connection, method)
        except ExchangeFailed:
            raise failed from None
        answer.reusable = False
        return answer
    return _answer(connection, method)


def receive(connection: Connection, lost: Failure) -> bytes:
    """What is there; empty at the end. Raises ExchangeFailed: SILENT, or `lost` when the connection broke."""
    try:
        return connection.recv(BLOCK)
    except (BlockingIOError, TimeoutError):  # SO_RCVTIMEO
        raise ExchangeFailed(Failure.SILENT) from None
    except OSError as error:
        raise ExchangeFailed(lost, error.strerror or "") from None


def _send_large(connection: Connection, method: str, body: Body) -> Answer | None:
    """Send a body piece by piece, and look for an answer that comes early: a refusal must be seen while all
    that was sent is still kept. A refusal or an error ends the sending.
    """
    early: Answer | None = None
    try:
        for piece in body.pieces():
            if body.length is None:
                piece = b"%x\r\n%b\r\n" % (len(piece), piece)
            _send_all(connection, piece, Failure.LOST)
            if early is None and connection.ready(0):
                early = _answer(connection, method)
                if early.status >= 400:
                    early.reusable = False
                    return early
        if body.length is None:
            _send_all(connection, b"0\r\n\r\n", Failure.LOST)
    except ExchangeFailed:
        if early is None:
            raise
        early.reusable = False  # it took no more, having answered
    return early


def _send_all(connection: Connection, data: bytes, lost_at_once: Failure) -> None:
    """Send all of it. Raises ExchangeFailed: SILENT; `lost_at_once` when not one byte was taken, else LOST."""
    failure = lost_at_once
    while True:
        try:
            sent = connection.send(data)
        except (BlockingIOError, TimeoutError):  # SO_SNDTIMEO
            raise ExchangeFailed(Failure.SILENT, "it takes no more of the request") from None
        except OSError as error:
            if error.errno in (errno.ENOBUFS, errno.ENOMEM):
                failure = Failure.OURS
            raise ExchangeFailed(failure, error.strerror or "") from None
        if sent == len(data):
            return
        failure = Failure.LOST
        data = data[sent:]


def _answer(connection: Connection, method: str) -> Answer:
    data = receive(connection, Failure.LOST)
    while True:
        while (end := data.find(b"\r\n\r\n")) < 0:
            if data and not data.startswith(b"HTTP/"[: len(data)]):
                raise ExchangeFailed(Failure.NOT_HTTP, repr(data[:40]))
            if len(data) > MAX_HEAD:
                raise ExchangeFailed(Failure.NOT_HTTP, f"a head of more than {MAX_HEAD} bytes")
            lost = Failure.BROKEN if data else Failure.LOST
            more = receive(connection, lost)
            if not more:
                raise ExchangeFailed(lost)
            data += more
        first, *lines = data[:end].decode("latin-1").split("\r\n")
        try:
            status = _statuses[first]
            rest = data[end + 4 :]
            if status[1] >= 200:
                return Answer(connection, rest, method, status, lines)
        except NotHttp as error:
            raise ExchangeFailed(Failure.NOT_HTTP, str(error)) from None
        if status[1] == 101:
            raise ExchangeFailed(Failure.NOT_HTTP, "it changes the protocol")
        data = rest


def _status(line: str) -> Status:
    found = _STATUS_LINE(line)
    if not found:
        raise NotHttp(repr(line[:40]))
    return found[1], int(found[2]), f"{found[2]} {found[3] or ''}"


_statuses = Memory(_status)
