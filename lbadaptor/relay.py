"""One exchange with an AppServer: a request out, an answer in, over one connection (HTTP/1.1, RFC 9112)."""

from __future__ import annotations

import errno
import re
import select
import socket
import time
from collections.abc import Iterator

from lbadaptor.body import Body
from lbadaptor.failover import Failure
from lbadaptor.headers import HOP_BY_HOP

MAX_HEAD = 65536
BLOCK = 65536
PAUSE = 0.05
"""Seconds of silence within an answer that make it a stream (server-sent events)."""
LONGEST = 0.5
"""Seconds for which an answer is taken over; one that goes on for longer is a stream, though it never pauses."""

_STATUS_LINE = re.compile(r"HTTP/1\.([01]) ([1-5][0-9][0-9])(?: ([\t\x20-\x7e\x80-\xff]*))?").fullmatch
_TOKEN = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+").fullmatch
_ODD = re.compile(r"[\r\n\0]").search
_CHUNK_SIZE = re.compile(rb"[0-9A-Fa-f]{1,15}")
_BODILESS = frozenset((204, 304))


class ExchangeFailed(Exception):
    """An exchange came to nothing; `failure` names how far it came."""

    def __init__(self, failure: Failure, why: str = "") -> None:
        super().__init__(f"{failure.value}{': ' if why else ''}{why}")
        self.failure = failure


class Answer:
    """An answer whose head is here. Its body is read as `blocks` is iterated, which blocks.

    Raises ExchangeFailed: NOT_HTTP at once; SILENT or BROKEN within the body.
    """

    def __init__(
        self, connection: socket.socket, buffer: bytes, method: str, status: int, reason: str, lines: list[str]
    ) -> None:
        self.status = status
        self.reason = reason
        self.headers: list[tuple[str, str]] = []
        """what is for the visitor, in the order of their coming, names as sent, values latin-1"""
        self.own: dict[str, str] = {}
        """what the AppServer says of itself: the LB- headers, names in lower case"""
        self.complete = False
        """the body is over, and the connection may carry another request if `reusable`"""
        self.reusable = True
        self.blocks: Iterator[bytes] = iter(())
        self.connection = connection
        self._buffer = buffer
        self._begin_body(method == "HEAD" or status in _BODILESS, *self._read(lines))

    def take(self, bound: int) -> list[bytes]:
        """Read the body until it is complete, larger than `bound` bytes, or a stream: it pauses, or lasts."""
        taken: list[bytes] = []
        size = 0
        end = time.monotonic() + LONGEST
        while not self.complete and size <= bound and time.monotonic() < end:
            # The line break after a chunk is nothing to pass on, nor a reason to block for what follows it.
            if not self._buffer.strip(b"\r\n") and not ready(self.connection, PAUSE):
                break
            block = next(self.blocks, None)
            if block is None:
                break
            taken.append(block)
            size += len(block)
        return taken

    def _read(self, lines: list[str]) -> tuple[str | None, str | None]:
        """The headers; of those that concern the framing, the length and the codings."""
        length = codings = None
        for line in lines:
            name, colon, value = line.partition(":")
            if not colon or not _TOKEN(name):
                raise ExchangeFailed(Failure.NOT_HTTP, repr(line[:40]))
            value = value.strip(" \t")
            key = name.lower()
            if key.startswith("lb-"):
                self.own.setdefault(key, value)
                continue
            if key in HOP_BY_HOP:
                if key == "transfer-encoding":
                    codings = value.lower() if codings is None else f"{codings}, {value.lower()}"
                elif key == "connection" and "close" in value.lower():
                    self.reusable = False
                continue
            if key == "content-length":
                if length is not None and value != length:
                    raise ExchangeFailed(Failure.NOT_HTTP, "two different lengths")
                length = value
            self.headers.append((name, value))
        return length, codings

    def _begin_body(self, bodiless: bool, length: str | None, codings: str | None) -> None:
        """Find out how the body is framed (RFC 9112 §6.3)."""
        if length is not None and not (length.isascii() and length.isdigit() and len(length) < 19):
            raise ExchangeFailed(Failure.NOT_HTTP, f"Content-Length {length!r}")
        if bodiless:
            self._end()
        elif codings is not None:
            if codings != "chunked" or length is not None:
                raise ExchangeFailed(Failure.NOT_HTTP, f"Transfer-Encoding {codings!r}")
            self.blocks = self._chunks()
        elif length is not None:
            self.blocks = self._counted(int(length))
            if int(length) == 0:
                self._end()
        else:
            self.reusable = False
            self.blocks = self._until_close()

    def _end(self) -> None:
        self.complete = True
        if self._buffer:
            self.reusable = False  # bytes that nobody asked for

    def _receive(self) -> bytes:
        """More of the answer; empty at its end. Raises ExchangeFailed."""
        if self._buffer:
            data, self._buffer = self._buffer, b""
            return data
        return receive(self.connection, Failure.BROKEN)

    def _counted(self, left: int) -> Iterator[bytes]:
        while left:
            data = self._receive()
            if not data:
                raise ExchangeFailed(Failure.BROKEN, f"{left} bytes are missing")
            if len(data) > left:
                data, self._buffer = data[:left], data[left:]
            left -= len(data)
            if not left:
                self._end()
            yield data

    def _until_close(self) -> Iterator[bytes]:
        while data := self._receive():
            yield data
        self._end()

    def _chunks(self) -> Iterator[bytes]:
        while True:
            size = self._chunk_size()
            if size == 0:
                while self._line():
                    pass  # trailers, which WSGI knows nothing of
                self._end()
                return
            yield from self._counted_within(size)
            if self._line():
                raise ExchangeFailed(Failure.BROKEN, "a chunk is longer than it says")

    def _counted_within(self, left: int) -> Iterator[bytes]:
        while left:
            data = self._receive()
            if not data:
                raise ExchangeFailed(Failure.BROKEN, "the last chunk is missing")
            if len(data) > left:
                data, self._buffer = data[:left], data[left:]
            left -= len(data)
            yield data

    def _chunk_size(self) -> int:
        digits = self._line().partition(b";")[0].strip(b" \t")
        if not _CHUNK_SIZE.fullmatch(digits):
            raise ExchangeFailed(Failure.BROKEN, f"chunk size {digits[:20]!r}")
        return int(digits, 16)

    def _line(self) -> bytes:
        while (end := self._buffer.find(b"\r\n")) < 0:
            if len(self._buffer) > MAX_HEAD:
                raise ExchangeFailed(Failure.BROKEN, "a line without end")
            data = receive(self.connection, Failure.BROKEN)
            if not data:
                raise ExchangeFailed(Failure.BROKEN, "the last chunk is missing")
            self._buffer += data
        line, self._buffer = self._buffer[:end], self._buffer[end + 2 :]
        return line


def exchange(connection: socket.socket, method: str, head: bytes, body: Body) -> Answer:
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


def ready(connection: socket.socket, timeout: float) -> bool:
    """Whether there is something to read (its end, too) within `timeout` seconds."""
    poll = select.poll()
    poll.register(connection, select.POLLIN)
    return bool(poll.poll(timeout * 1000))


def receive(connection: socket.socket, lost: Failure) -> bytes:
    """What is there; empty at the end. Raises ExchangeFailed: SILENT, or `lost` when the connection broke."""
    try:
        return connection.recv(BLOCK)
    except (BlockingIOError, TimeoutError):  # SO_RCVTIMEO
        raise ExchangeFailed(Failure.SILENT) from None
    except OSError as error:
        raise ExchangeFailed(lost, error.strerror or "") from None


def _send_large(connection: socket.socket, method: str, body: Body) -> Answer | None:
    """Send a body piece by piece, and look for an answer that comes early: a refusal must be seen while all
    that was sent is still kept. A refusal or an error ends the sending.
    """
    early: Answer | None = None
    try:
        for piece in body.pieces():
            if body.length is None:
                piece = b"%x\r\n%b\r\n" % (len(piece), piece)
            _send_all(connection, piece, Failure.LOST)
            if early is None and ready(connection, 0):
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


def _send_all(connection: socket.socket, data: bytes, lost_at_once: Failure) -> None:
    """Send all of it. Raises ExchangeFailed: SILENT; `lost_at_once` when not one byte was taken, else LOST."""
    view = memoryview(data)
    failure = lost_at_once
    while view:
        try:
            view = view[connection.send(view) :]
        except (BlockingIOError, TimeoutError):  # SO_SNDTIMEO
            raise ExchangeFailed(Failure.SILENT, "it takes no more of the request") from None
        except OSError as error:
            if error.errno in (errno.ENOBUFS, errno.ENOMEM):
                failure = Failure.OURS
            raise ExchangeFailed(failure, error.strerror or "") from None
        failure = Failure.LOST


def _answer(connection: socket.socket, method: str) -> Answer:
    buffer = b""
    while True:
        while (end := buffer.find(b"\r\n\r\n")) < 0:
            if len(buffer) > MAX_HEAD:
                raise ExchangeFailed(Failure.NOT_HTTP, f"a head of more than {MAX_HEAD} bytes")
            data = receive(connection, Failure.BROKEN if buffer else Failure.LOST)
            if not data:
                raise ExchangeFailed(Failure.BROKEN if buffer else Failure.LOST)
            buffer += data
            if not buffer.startswith(b"HTTP/"[: len(buffer)]):
                raise ExchangeFailed(Failure.NOT_HTTP, repr(buffer[:40]))
        status_line, *lines = buffer[:end].decode("latin-1").split("\r\n")
        buffer = buffer[end + 4 :]
        found = _STATUS_LINE(status_line)
        if not found:
            raise ExchangeFailed(Failure.NOT_HTTP, repr(status_line[:40]))
        status = int(found[2])
        if status >= 200:
            break
        if status == 101:
            raise ExchangeFailed(Failure.NOT_HTTP, "it changes the protocol")
    if odd := next((line for line in lines if _ODD(line)), None):
        raise ExchangeFailed(Failure.NOT_HTTP, repr(odd[:40]))
    answer = Answer(connection, buffer, method, status, found[3] or "", lines)
    if found[1] == "0":
        answer.reusable = False
    return answer
