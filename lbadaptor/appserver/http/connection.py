"""One caller's connection: bytes in, requests out (HTTP/1.1, RFC 9112)."""

from __future__ import annotations

import io
import re
import socket
from collections import deque
from collections.abc import Callable
from typing import Any

from lbadaptor.appserver.wsgi.environ import Request
from lbadaptor.http1.lines import Chunks, NotHttp

BLOCK = 65536
MAX_HEAD = 1 << 20
"""Bytes of a head: Apache takes 100 fields of 8,190 bytes (LimitRequestFields, LimitRequestFieldSize), and the
adaptor adds some."""
MAX_LINES = 4096
"""Lines of a head: Apache takes 100 fields."""
_FEW = 16384
"""Bytes of a head whose lines need no counting: it cannot have more than that many."""

_BEGINS = re.compile(rb"[!#$%&'*+.^_`|~0-9A-Za-z-]{1,64}(?: |$)").match
"""What may be the beginning of a request, whose head has not all come."""


class Malformed(Exception):
    """Not HTTP, or more than this server takes; `status` is what is answered before it hangs up."""

    def __init__(self, status: int, why: str) -> None:
        super().__init__(why)
        self.status = status


class Connection:
    """A kept-alive connection. One thread at a time has it: whoever polls, or the one that serves it."""

    def __init__(self, sock: socket.socket, peer: Any) -> None:
        self.socket = sock
        self.peer = peer
        self.request: Request | None = None
        """the request whose head is here, until `finish`"""
        self.complete = False
        """the request's body is here too"""
        self.keep_alive = True
        self.discarding = False
        """it was answered already; what still comes of its body is thrown away"""
        self.leaving = False
        """the last answer is out; whatever still comes is thrown away"""
        self.served = False
        """a request is here that has no answer yet"""
        self.disregarded = False
        """it was taken out of the poll while its request is served"""
        self.broken = False
        """the caller went away, or moved no byte for too long, within a request"""
        self.closed = False
        """nobody uses it any more"""
        self.abandoned = False
        """this process is a forked child, and has closed its copy of the socket"""
        self._head = bytearray()
        """the beginning of a head of which not all is here"""
        self._input: _Incoming | None = None
        """the application's, of the request that is here, if not all of its body was here when it was called"""
        self._left = 0
        """bytes of a counted body that are still to come"""
        self._chunks: Chunks | None = None
        self._body: deque[bytes] = deque()

    def receive(self, flags: int = 0) -> bool:
        """Read what is there. False at the caller's end. Raises Malformed, OSError (BlockingIOError if nothing).

        Blocks unless `flags` holds MSG_DONTWAIT.
        """
        data = self.socket.recv(BLOCK, flags)
        if not data:
            return False
        if self.leaving:
            return True
        if self.request is None:
            if self._head:
                before = len(self._head)
                self._head += data
                self._take_head(self._head, max(0, before - 3))
            else:
                self._take_head(data, 0)
        elif self.complete:
            self.keep_alive = False  # our callers pipeline nothing; whoever does has to ask again (RFC 9112 §9.3.2)
        else:
            self._take_body(data)
        return True

    @property
    def unfinished(self) -> int:
        """Bytes of a head of which not all is here."""
        return len(self._head)

    def _take_head(self, data: bytes | bytearray, start: int) -> None:
        """`data`: all that came of it; its end cannot be found before `start`."""
        end = data.find(b"\r\n\r\n", start)
        if (end if end >= 0 else len(data)) > MAX_HEAD:
            raise Malformed(431, f"a head of more than {MAX_HEAD} bytes")
        if end < 0:
            if not _BEGINS(data):
                raise Malformed(400, f"{bytes(data[:40])!r} begins no request")
            if data is not self._head:
                self._head = bytearray(data)
            return
        if end > _FEW and data.count(b"\n", 0, end) >= MAX_LINES:
            raise Malformed(431, f"a head of more than {MAX_LINES} lines")
        if self._head:
            data, self._head = bytes(data), bytearray()
        try:
            request = Request(data[:end].decode("latin-1"))
        except NotHttp as error:
            raise Malformed(400, str(error)) from None
        self.request = request
        self.served = True
        self.keep_alive = request.keep_alive
        if request.chunked:
            self._chunks = Chunks()
        elif request.length:
            self._left = request.length
        else:
            self.complete = True
        if len(data) > end + 4:
            if self.complete:
                self.keep_alive = False
            else:
                self._take_body(bytes(data[end + 4 :]))

    def _take_body(self, data: bytes) -> None:
        if self._chunks is None:
            pieces, rest = [data[: self._left]], data[self._left :]
            self._left -= len(pieces[0])
            self.complete = not self._left
        else:
            try:
                pieces = self._chunks.feed(data)
            except NotHttp as error:
                raise Malformed(400, str(error)) from None
            self.complete, rest = self._chunks.over, self._chunks.rest
            if self.complete:
                self._chunks = None
        if not self.discarding:
            self._body += pieces
            if rest:
                self.keep_alive = False
        elif rest:  # the end of an answered request's body, and the next request, came in one piece
            self._next()
            self._take_head(rest, 0)

    def finish(self) -> bool:
        """The answer is out. Whether another request may follow at once (else the rest is still to be read)."""
        whole = self.complete
        if whole:
            if self._input is not None:
                self._end_input()
            self._next()
        else:
            self.discarding = True
            self._end_input()
            self._body.clear()
        self.served = False  # last: from now on whoever polls may read on
        return whole

    def _next(self) -> None:
        if self._body:
            self._body.clear()  # of a refused request, nobody has read it, and the next one's begins anew
        self.request = None
        self.complete = False
        self.discarding = False

    def hang_up(self) -> bool:
        """Send no more, and read on: closing now would reset the connection, the last answer included, for a
        caller that still sends (RFC 9112 §9.6). False when the caller is gone already."""
        self.leaving = True
        self._end_input()
        self._body.clear()
        self._head = bytearray()
        try:
            self.socket.shutdown(socket.SHUT_WR)
        except OSError:
            return False
        self.served = False
        return True

    def abandon(self) -> None:
        """In a forked child: close our copy of the socket. It is the parent's to be used."""
        self.abandoned = self.closed = True
        self.disregarded = False
        self.socket.close()

    def send(self, data: bytes) -> None:
        """Send all of it. Blocks. Raises OSError when the caller went away, or takes nothing for too long.

        In a forked child nothing is sent: the answer is its parent's to give.
        """
        try:
            self.socket.sendall(data)
        except OSError:
            if self.abandoned:
                return
            self.broken = True
            raise

    def body(self) -> io.BufferedIOBase:
        """wsgi.input for the request that is here (PEP 3333). Reading it blocks until the caller sends."""
        if self.complete:
            return io.BytesIO(b"".join(self._drain()) if self._body else b"")
        self._input = _Incoming(self.next_piece)
        return io.BufferedReader(self._input, BLOCK)

    def _end_input(self) -> None:
        """The application's input gives nothing more, but for the rest of a body that is here to its end."""
        if self._input is not None:
            self._input.end(self._drain() if self.complete else None)
            self._input = None

    def _drain(self) -> list[bytes]:
        pieces = list(self._body)
        self._body.clear()
        return pieces

    def next_piece(self) -> bytes:
        """Some of the body; empty at its end. Blocks. Raises OSError when the caller broke off."""
        while not self._body:
            if self.complete:
                return b""
            try:
                if not self.receive():
                    raise ConnectionResetError("the caller went away within the request's body")
            except Malformed as error:
                self.keep_alive = False
                raise OSError(f"the request's body: {error}") from None
            except OSError:
                self.broken = True
                raise
        return self._body.popleft()


class _Incoming(io.RawIOBase):
    """A body that is still coming, as a raw stream. `next_piece` gives some of it, empty at its end."""

    def __init__(self, next_piece: Callable[[], bytes]) -> None:
        self._next_piece = next_piece
        self._rest = memoryview(b"")

    def readable(self) -> bool:
        return True

    def end(self, pieces: list[bytes] | None) -> None:
        """The connection goes on to another request. `pieces`: the rest of the body; None: it was never here."""
        self._next_piece = _is_over if pieces is None else iter([*pieces, b""]).__next__

    def readinto(self, buffer: Any) -> int:
        if not self._rest:
            try:
                self._rest = memoryview(self._next_piece())
            except StopIteration:
                return 0
        size = min(len(buffer), len(self._rest))
        buffer[:size] = self._rest[:size]
        self._rest = self._rest[size:]
        return size


def _is_over() -> bytes:
    raise ValueError("the request is over")  # and what comes now is not its body
