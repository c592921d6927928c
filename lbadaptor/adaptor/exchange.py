"""One exchange with an AppServer: a request out, an answer in, over one connection (HTTP/1.1, RFC 9112)."""

from __future__ import annotations

import errno
import re
import select
import socket
import time
from collections.abc import Callable, Iterator
from enum import Enum

from lbadaptor.adaptor.pool import Connection
from lbadaptor.adaptor.retry import Failure
from lbadaptor.adaptor.spool import Body, VisitorGone
from lbadaptor.contract.headers import HOP_BY_HOP, is_ours
from lbadaptor.http1.chunks import ChunkDecoder
from lbadaptor.http1.framing import length
from lbadaptor.http1.lines import TEXT, LineMemo, Memo, ProtocolError
from lbadaptor.log import texts

MAX_HEAD = 1 << 20
"""Bytes of an answer's head, interim answers included: more than mod_wsgi or Apache themselves let through."""
BLOCK = 65536
PAUSE = 0.05
"""Seconds of silence within an answer that make it a stream (server-sent events)."""
PATIENCE = 0.5
"""Seconds for which, in one request, an AppServer that has begun to answer is waited for while the visitor could have
been asked for more."""
LONGEST = 0.5
"""Seconds for which an answer is taken over; one that goes on for longer is a stream, though it never pauses."""

_DONTWAIT = int(socket.MSG_DONTWAIT)
_STATUS_LINE = re.compile(rf"HTTP/1\.([01]) ([1-5][0-9][0-9])(?: ({TEXT}))?").fullmatch
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


def _read_name(name: str) -> Callable[[str], tuple[_For, tuple[str, str]]]:
    """What a header of an answer means: whom it concerns; its name (ours in lower case) and its value."""
    key = name.lower()
    if is_ours(key):
        return lambda value: (_For.US, (key, value))
    if key == "content-length":
        return lambda value: (_For.LENGTH, (name, value))
    if key == "transfer-encoding":
        return lambda value: (_For.CODINGS, (name, value.lower()))
    if key == "connection":
        return lambda value: (_For.CONNECTION, (name, value.lower()))
    whom = _For.NOBODY if key in HOP_BY_HOP else _For.VISITOR
    return lambda value: (whom, (name, value))


_lines: LineMemo[tuple[_For, tuple[str, str]]] = LineMemo(_read_name, 262144)


class Sending:
    """What is still to be sent of a request while its answer may be coming already.

    An application may answer while it reads. If this side only sent until all is sent, and the AppServer only sent
    until its answer is taken, they would wait for each other. So whoever waits for the answer takes what comes, and
    sends as much as the AppServer takes. What has come is always taken first: before the visitor is asked for more,
    and perhaps waited for, a refusal has been seen.
    """

    def __init__(self, connection: Connection, first: bytes, body: Body) -> None:
        self.over = False
        """nothing more is sent: all was, or the AppServer takes no more"""
        self.whole = False
        """all of it was sent"""
        self._connection = connection
        self._begun = False
        """the AppServer has begun to answer"""
        self._patience = PATIENCE
        self._unsent = memoryview(first)
        self._pieces = body.pieces() if body.small is None else iter(())
        self._kept = body.kept
        self._chunked = body.length is None
        self._poll = select.poll()
        self._poll.register(connection, select.POLLIN | select.POLLOUT)

    def stop(self) -> None:
        """Send no more."""
        self.over = True

    def receive(self, lost: Failure) -> bytes:
        """As the function `receive`, and send meanwhile. SILENT: no byte was moved either way for too long."""
        timeout = self._connection.answer_timeout
        while not self.over:
            events = self._wait(timeout)
            if not events:
                raise ExchangeFailed(Failure.SILENT, "it takes no more of the request")
            if events & ~select.POLLOUT:
                break
            if self._begun and self._patience > 0 and not (self._kept or self._unsent):
                # The visitor may send more only when they have the answer to what they have sent.
                if self._connection.ready(PAUSE):
                    break
                asked = time.monotonic()
                self._send()
                if time.monotonic() - asked < PAUSE:
                    self._patience -= PAUSE  # they had more to send
            else:
                self._send()
        self._begun = True
        return receive(self._connection, lost)

    def ready(self, seconds: float) -> bool:
        """Whether something comes within so many seconds; send meanwhile, but ask the visitor for nothing."""
        end = time.monotonic() + seconds
        while self._kept and not self.over:
            left = end - time.monotonic()
            events = self._wait(max(0.0, left))
            if events & ~select.POLLOUT:
                return True
            if left <= 0 or not events:
                return False
            self._send()
        return self._connection.ready(max(0.0, end - time.monotonic()))

    def finish(self) -> bool:
        """Send the rest to an AppServer that has said all. Whether it took all. Blocks. Never raises."""
        try:
            while not self.over and self._wait(self._connection.answer_timeout) == select.POLLOUT:
                self._send()
        except (ExchangeFailed, VisitorGone, OSError):
            return False
        return self.whole

    def _wait(self, seconds: float) -> int:
        """The events that there are at once or within so many seconds; 0: none. Raises ExchangeFailed: OURS."""
        try:
            events = self._poll.poll(seconds * 1000)
        except OSError as error:
            raise ExchangeFailed(Failure.OURS, texts.what(error)) from None
        return events[0][1] if events else 0

    def _send(self) -> None:
        """Send what the AppServer takes at once of the next piece, which may have to come from the visitor first.

        Raises ExchangeFailed: OURS; VisitorGone.
        """
        if not self._unsent:
            self._unsent = self._next()
            if self.over:
                return
        try:
            self._unsent = self._unsent[self._connection.send(self._unsent, _DONTWAIT) :]
            if self._kept and not self._unsent:
                self._unsent = self._next()  # so that its end is known as soon as all is sent
        except BlockingIOError:
            time.sleep(0.001)  # it can be written to, said the poll: but not even by a byte
        except OSError as error:
            if error.errno in _SHORTAGE:
                raise ExchangeFailed(Failure.OURS, texts.what(error)) from None
            # It takes no more, and may have answered (a refusal) and hung up before it had read everything.
            self.over = True

    def _next(self) -> memoryview:
        for piece in self._pieces:
            if piece:
                return memoryview(b"%x\r\n%b\r\n" % (len(piece), piece) if self._chunked else piece)
        if self._chunked:
            self._chunked = False
            return memoryview(b"0\r\n\r\n")
        self.over = self.whole = True
        return memoryview(b"")


_SHORTAGE = frozenset((errno.ENOBUFS, errno.ENOMEM))


class Answer:
    """An answer whose head is here. Its body is read as `blocks` is iterated, which blocks.

    Raises ExchangeFailed: NOT_HTTP or MALFORMED at once; SILENT, BROKEN or CUT within the body. As long as part of
    the request is unsent, whatever waits for the answer sends it, too, and raises VisitorGone.
    """

    def __init__(
        self,
        connection: Connection,
        rest: bytes,
        method: str,
        status: Status,
        lines: list[str],
        sending: Sending | None = None,
    ) -> None:
        version, self.status, self.status_line = status
        self.headers: list[tuple[str, str]] = []
        """what is for the visitor, in the order of their coming, names as sent, values latin-1"""
        self.own: dict[str, str] = {}
        """what the AppServer says of itself: the LB- headers, names in lower case"""
        self.complete = False
        """the body is over"""
        self.reusable = version == "1"
        """the connection may carry another request, once the answer is complete and the request is sent"""
        self.connection = connection
        self._sending = sending
        self._rest = rest
        """what came along with the head"""
        self._chunks: ChunkDecoder | None = None
        self._left, codings = self._read(lines)
        """bytes of a counted body that are still to come"""
        # How the body is framed (RFC 9112 §6.3).
        if sending is not None and not sending.over and self.status >= 400:
            self.reusable = False  # what is unsent goes unsent, as soon as the answer is complete
        if method == "HEAD" or self.status in _BODILESS or self._left == 0:
            self._end(rest)
        elif self._left is None and codings is None:
            self.reusable = False
        if codings is not None:
            if codings != "chunked" or self._left is not None:
                raise ProtocolError(f"Transfer-Encoding {codings!r}")
            self._chunks = ChunkDecoder()

    @property
    def over(self) -> bool:
        """The answer is complete, and nothing is left to be sent of the request."""
        return self.complete and (self._sending is None or self._sending.over)

    def finish(self) -> bool:
        """Send what is unsent of the request, the answer being complete. Whether the connection may be used again.

        Blocks on the AppServer, and on the visitor. Never raises.
        """
        if not self.complete or (self._sending is not None and not self._sending.finish()):
            self.reusable = False
        return self.reusable

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
            if now >= end or not (self._rest or self._ready()):
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
                    raise ProtocolError("two different lengths")
                left = length(header[1])
                self.headers.append(header)
            elif whom is _For.CODINGS:
                codings = header[1] if codings is None else f"{codings}, {header[1]}"
            elif whom is _For.CONNECTION and "close" in header[1]:
                self.reusable = False
        return left, codings

    def _ready(self) -> bool:
        """Whether more of the answer comes before it pauses."""
        sending = self._sending
        if sending is None or sending.over:
            return self.connection.ready(PAUSE)
        return sending.ready(PAUSE)

    def _end(self, more: bytes) -> None:
        """The body is over. `more`: what came beyond it, which nobody asked for."""
        self.complete = True
        self._rest = b""
        if more:
            self.reusable = False
        if self._sending is not None:
            if self.status >= 400 and not self._sending.over:
                self._sending.stop()
            if self._sending.over and not self._sending.whole:
                self.reusable = False

    def _step(self) -> bytes:
        """What came next of the body; empty at its end, or where it was none of the body's own bytes."""
        data = self._rest
        if not data:
            sending = self._sending
            data = receive(self.connection, Failure.BROKEN) if sending is None else sending.receive(Failure.BROKEN)
        self._rest = b""
        left = self._left
        if left is not None:
            if len(data) >= left:
                self._end(data[left:])
                return data[:left]
            if not data:
                raise _ended(self.connection, Failure.BROKEN, f"{left} bytes are missing")
            self._left = left - len(data)
            return data
        if self._chunks is None:
            if not data:
                self._end(b"")
            return data
        if not data:
            raise _ended(self.connection, Failure.BROKEN, "the last chunk is missing")
        try:
            pieces = self._chunks.feed(data)
        except ProtocolError as error:
            raise ExchangeFailed(Failure.BROKEN, str(error)) from None
        if self._chunks.complete:
            self._end(self._chunks.rest)
        return b"".join(pieces)


def exchange(connection: Connection, method: str, head: bytes, body: Body) -> Answer:
    """Send a request, and read the answer up to its body. Blocks.

    `head` ends with the empty line, and its framing fits the body. What is unsent when the answer begins is sent
    while the answer is read. Raises ExchangeFailed; what the visitor does wrong while the body is streamed
    (VisitorGone) passes through.
    """
    small = body.small
    data = head if small is None else head + small
    try:
        sent = connection.send(data, _DONTWAIT)
    except BlockingIOError:
        sent = 0
    except OSError as error:
        failure = Failure.OURS if error.errno in _SHORTAGE else Failure.UNSENT
        raise ExchangeFailed(failure, texts.what(error)) from None
    if small is not None and sent == len(data):
        exact = not small and connection.family == socket.AF_UNIX
        return _answer(connection, method, None, Failure.UNREAD if exact else Failure.LOST)
    return _answer(connection, method, Sending(connection, data[sent:], body))


def receive(connection: Connection, lost: Failure, reset: Failure | None = None) -> bytes:
    """What is there; empty at the end. Raises ExchangeFailed: SILENT, or `lost` when the connection broke.

    `reset`: instead of `lost`, where the connection was reset.
    """
    try:
        return connection.recv(BLOCK)
    except (BlockingIOError, TimeoutError):  # SO_RCVTIMEO
        raise ExchangeFailed(Failure.SILENT) from None
    except ConnectionResetError as error:
        raise ExchangeFailed(reset or lost, texts.what(error)) from None
    except OSError as error:
        raise ExchangeFailed(Failure.OURS if error.errno in _SHORTAGE else lost, texts.what(error)) from None


def _ended(connection: Connection, lost: Failure, why: str = "") -> ExchangeFailed:
    """The error for an answer that ends before its end: `lost`, or CUT where the AppServer is still there."""
    return ExchangeFailed(Failure.CUT if connection.half_open() else lost, why)


def _answer(connection: Connection, method: str, sending: Sending | None, reset: Failure = Failure.LOST) -> Answer:
    """The answer, up to its body. `reset`: what it means that the connection is reset before the first byte."""
    data = receive(connection, Failure.LOST, reset) if sending is None else sending.receive(Failure.LOST)
    size = len(data)
    while True:
        end = data.find(b"\r\n\r\n")
        if end < 0:
            data, end, size = _more(connection, sending, data, size)
        first, *lines = data[:end].decode("latin-1").split("\r\n")
        try:
            status = _statuses[first]
            if status[1] >= 200:
                answer = Answer(connection, data[end + 4 :], method, status, lines, sending)
                if sending is not None and "lb-refused" in answer.own:
                    sending.stop()
                    answer.reusable = False
                return answer
        except ProtocolError as error:
            raise ExchangeFailed(_at_fault(lines), str(error)) from None
        if status[1] == 101:
            raise ExchangeFailed(_at_fault(lines), "it changes the protocol")
        data = data[end + 4 :]


def _more(connection: Connection, sending: Sending | None, data: bytes, size: int) -> tuple[bytes, int, int]:
    """The head that some bytes begin, and perhaps more; where it ends; how many bytes came of all heads."""
    head = bytearray(data)
    end = -1
    while end < 0:
        if head and not head.startswith(b"HTTP/"[: len(head)]):
            raise ExchangeFailed(Failure.NOT_HTTP, repr(bytes(head[:40])))
        if size > MAX_HEAD:
            raise ExchangeFailed(Failure.MALFORMED, f"a head of more than {MAX_HEAD} bytes")
        lost = Failure.BROKEN if head else Failure.LOST
        more = receive(connection, lost) if sending is None else sending.receive(lost)
        if not more:
            raise _ended(connection, lost)
        size += len(more)
        seen = len(head)
        head += more
        end = head.find(b"\r\n\r\n", max(0, seen - 3))
    return bytes(head), end, size


def _at_fault(lines: list[str]) -> Failure:
    """Whose malformed answer it is: an AppServer's says LB-Status, a stranger's does not."""
    ours = any(line.lower().startswith("lb-status:") for line in lines)
    return Failure.MALFORMED if ours else Failure.NOT_HTTP


def _status(line: str) -> Status:
    found = _STATUS_LINE(line)
    if not found:
        raise ProtocolError(repr(line[:40]))
    return found[1], int(found[2]), f"{found[2]} {found[3] or ''}"


_statuses = Memo(_status, 65536)
