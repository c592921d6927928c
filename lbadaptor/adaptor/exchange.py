"""One exchange with an AppServer over one connection: send a request, receive a response.

This is the socket work around `http1.response`, and both directions at once where the request's body is large.
"""

from __future__ import annotations

import errno
import select
import socket
import time
from collections.abc import Iterator

from lbadaptor.adaptor.pool import Connection
from lbadaptor.adaptor.retry import Failure
from lbadaptor.adaptor.spool import Body, VisitorGone
from lbadaptor.http1 import chunks
from lbadaptor.http1.lines import ProtocolError
from lbadaptor.http1.response import HeadTooLarge, MalformedHead, ResponseReader, Whole, read_whole
from lbadaptor.log import texts

BLOCK = 65536
PAUSE = 0.05
"""Seconds without a byte within a response that make it a stream (server-sent events)."""
PATIENCE = 0.5
"""Seconds, in one request, of waiting for an AppServer that has begun to answer, while the visitor could have been
asked for more of the body."""
MAX_TAKE_TIME = 0.5
"""Seconds for which a response is taken over. One that takes longer is a stream, even if it never pauses."""

_DONTWAIT = int(socket.MSG_DONTWAIT)
_SHORTAGE = frozenset((errno.ENOBUFS, errno.ENOMEM))


class ExchangeFailed(Exception):
    """An exchange failed; `failure` says how far it came. `moved_to`: what LB-Moved-To said, unchecked."""

    def __init__(self, failure: Failure, why: str = "", moved_to: str = "") -> None:
        super().__init__(f"{failure.value}{': ' if why else ''}{why}")
        self.failure = failure
        self.moved_to = moved_to


class RequestSender:
    """Sends the rest of a request while its response may be coming already.

    An application may answer while it reads. If this side did nothing but send until all is sent, and the AppServer
    did nothing but send until its response is taken, they would wait for each other. So whatever waits for the
    response receives what comes, and sends as much as the AppServer takes. What has come is received first: a refusal
    is seen before the visitor is asked for more, which may block.
    """

    def __init__(self, connection: Connection, first: bytes, body: Body) -> None:
        self.over = False
        """nothing more is sent: all of it was, or the AppServer takes no more"""
        self.whole = False
        """all of it was sent"""
        self._connection = connection
        self._answering = False
        """some of the response has come"""
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
        """As the function `receive`; send meanwhile. SILENT: no byte was moved in either direction for too long."""
        timeout = self._connection.answer_timeout
        while not self.over:
            events = self._wait(timeout)
            if not events:
                raise ExchangeFailed(Failure.SILENT, "it takes no more of the request")
            if events & ~select.POLLOUT:
                break
            if self._answering and self._patience > 0 and not (self._kept or self._unsent):
                # The visitor may send more only after they have the answer to what they have sent.
                if self._connection.ready(PAUSE):
                    break
                asked = time.monotonic()
                self._send()
                if time.monotonic() - asked < PAUSE:
                    self._patience -= PAUSE  # the visitor had more to send
            else:
                self._send()
        self._answering = True
        return receive(self._connection, lost)

    def ready(self, seconds: float) -> bool:
        """Whether something comes within so many seconds. Send meanwhile what is here already of the body."""
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
        """Send the rest to an AppServer whose response is complete. Whether it took all. Blocks. Never raises."""
        try:
            while not self.over and self._wait(self._connection.answer_timeout) == select.POLLOUT:
                self._send()
        except (ExchangeFailed, VisitorGone, OSError):
            return False
        return self.whole

    def _wait(self, seconds: float) -> int:
        """The events that come within so many seconds; 0: none. Raises ExchangeFailed: OURS."""
        try:
            events = self._poll.poll(seconds * 1000)
        except OSError as error:
            raise ExchangeFailed(Failure.OURS, texts.what(error)) from None
        return events[0][1] if events else 0

    def _send(self) -> None:
        """Send what the AppServer takes at once of the next piece.

        Blocks where the visitor has to send that piece first. Raises ExchangeFailed: OURS; VisitorGone.
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
            time.sleep(0.001)  # the poll said that it can be written to, but it takes no byte
        except OSError as error:
            if error.errno in _SHORTAGE:
                raise ExchangeFailed(Failure.OURS, texts.what(error)) from None
            # It takes no more. It may have answered (a refusal) and closed the connection before it had read all.
            self.over = True

    def _next(self) -> memoryview:
        for piece in self._pieces:
            if piece:
                return memoryview(chunks.encode(piece) if self._chunked else piece)
        if self._chunked:
            self._chunked = False
            return memoryview(chunks.LAST)
        self.over = self.whole = True
        return memoryview(b"")


class Response:
    """A response whose head is here. Its body is read as `blocks` is iterated, which blocks.

    Raises ExchangeFailed: SILENT, BROKEN or CUT within the body. As long as part of the request is unsent, whatever
    waits for the response sends it too, and raises VisitorGone.
    """

    def __init__(self, connection: Connection, reader: ResponseReader, sending: RequestSender | None = None) -> None:
        self.status = reader.status
        self.status_line = reader.status_line
        """code and reason, as start_response wants them"""
        self.headers = reader.headers
        """what is for the visitor, in the order in which it came, names as sent, values latin-1"""
        self.own = reader.own
        """what the AppServer says of itself: the LB- headers, names in lower case"""
        self.complete = False
        """all of the body was read"""
        self.reusable = reader.keep_alive
        """the connection may carry another request, once the response is complete and the request is sent"""
        self.connection = connection
        self._reader = reader
        self._sending = sending
        if sending is not None and not sending.whole and (sending.over or self.status >= 400):
            self.reusable = False  # what is unsent will never be sent
        if reader.complete:
            self._end()

    @property
    def over(self) -> bool:
        """The response is complete, and nothing is left to send of the request."""
        return self.complete and (self._sending is None or self._sending.over)

    def finish(self) -> bool:
        """Send the rest of the request after a complete response. Whether the connection may be used again.

        Blocks on the AppServer, and on the visitor. Never raises.
        """
        if not self.complete or (self._sending is not None and not self._sending.finish()):
            self.reusable = False
        return self.reusable

    @property
    def blocks(self) -> Iterator[bytes]:
        """The rest of the body."""
        return iter(self.read, b"")

    def read(self) -> bytes:
        """The next block of the body; empty at its end. Blocks."""
        while not self.complete:
            if block := self._step():
                return block
        return b""

    def take(self, bound: int) -> list[bytes]:
        """Read the body until it is complete, or larger than `bound` bytes, or a stream (PAUSE, MAX_TAKE_TIME)."""
        rest = self._reader.rest
        if rest and len(rest) == self._reader.framing:  # it came along with the head
            return [self._step()]
        taken = []
        size = 0
        end = None
        while not self.complete and size <= bound:
            now = time.monotonic()
            end = end or now + MAX_TAKE_TIME
            if now >= end or not (self._reader.rest or self._ready()):
                break
            if block := self._step():
                taken.append(block)
                size += len(block)
        return taken

    def _ready(self) -> bool:
        """Whether more of the response comes within PAUSE seconds."""
        sending = self._sending
        if sending is None or sending.over:
            return self.connection.ready(PAUSE)
        return sending.ready(PAUSE)

    def _end(self) -> None:
        """The body is complete."""
        self.complete = True
        if not self._reader.keep_alive:
            self.reusable = False
        if self._sending is not None:
            if self.status >= 400 and not self._sending.over:
                self._sending.stop()
            if self._sending.over and not self._sending.whole:
                self.reusable = False

    def _step(self) -> bytes:
        """What comes next of the body; empty at its end, or if only framing came."""
        reader, sending = self._reader, self._sending
        data = reader.rest
        if not data:
            data = receive(self.connection, Failure.BROKEN) if sending is None else sending.receive(Failure.BROKEN)
        try:
            if data:
                pieces = reader.feed(data)
            else:
                pieces = []
                reader.end()
        except ProtocolError as error:
            if data:
                raise ExchangeFailed(Failure.BROKEN, str(error)) from None
            raise _ended(self.connection, Failure.BROKEN, str(error)) from None
        if reader.complete:
            self._end()
        return b"".join(pieces)


class WholeResponse:
    """A response all of which came in one piece. To be used as a `Response`, of which nothing is left to do."""

    complete = over = reusable = True

    def __init__(self, connection: Connection, whole: Whole) -> None:
        self.status, self.status_line, self.headers, self.own, self._body = whole
        self.connection = connection

    def finish(self) -> bool:
        return True

    @property
    def blocks(self) -> Iterator[bytes]:
        return iter(self.take(0))

    def read(self) -> bytes:
        return b"".join(self.take(0))

    def take(self, bound: int) -> list[bytes]:
        """The whole body, once."""
        body, self._body = self._body, b""
        return [body] if body else []


def exchange(connection: Connection, method: str, head: bytes, body: Body) -> Response | WholeResponse:
    """Send a request, and receive the response up to its body. Blocks.

    `head` ends with the empty line, and its framing fits the body. What is unsent when the response begins is
    sent while the response is read. Raises ExchangeFailed; what the visitor does wrong while the body is streamed
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
        return _receive_response(connection, method, None, Failure.UNREAD if exact else Failure.LOST)
    return _receive_response(connection, method, RequestSender(connection, data[sent:], body))


def receive(connection: Connection, lost: Failure, reset: Failure | None = None) -> bytes:
    """What is there; empty at the connection's end. Raises ExchangeFailed: SILENT, or `lost` if the connection broke.

    `reset`: instead of `lost`, if the connection was reset.
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
    """The error for a response that is cut off: `lost`, or CUT if the AppServer is still there."""
    return ExchangeFailed(Failure.CUT if connection.half_open() else lost, why)


def _receive_response(
    connection: Connection, method: str, sending: RequestSender | None, reset: Failure = Failure.LOST
) -> Response | WholeResponse:
    """The response, up to its body. `reset`: what it means that the connection is reset before the first byte."""
    lost = Failure.LOST
    data = receive(connection, lost, reset) if sending is None else sending.receive(lost)
    if sending is None and (whole := read_whole(method, data)) is not None:
        return WholeResponse(connection, whole)
    reader = ResponseReader(method)
    try:
        while data and not reader.feed_head(data):
            lost = Failure.BROKEN if reader.begun else Failure.LOST
            data = receive(connection, lost) if sending is None else sending.receive(lost)
    except HeadTooLarge as error:
        raise ExchangeFailed(Failure.MALFORMED, str(error)) from None
    except MalformedHead as error:
        raise ExchangeFailed(Failure.MALFORMED if error.own else Failure.NOT_HTTP, str(error)) from None
    if not data:
        raise _ended(connection, lost)
    response = Response(connection, reader, sending)
    if sending is not None and "lb-refused" in response.own:
        sending.stop()
        response.reusable = False
    return response
