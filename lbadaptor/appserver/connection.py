"""One caller's connection: bytes in, requests out (HTTP/1.1, parsed by httptools)."""

from __future__ import annotations

import io
import socket
from collections import deque
from typing import Any

import httptools

from lbadaptor.appserver.environ import Request

BLOCK = 65536
MAX_HEAD = 131072


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
        self.broken = False
        """the caller went away, or moved no byte for too long, within a request"""
        self._parser = httptools.HttpRequestParser(self)
        self._target = b""
        self._fields: list[tuple[bytes, bytes]] = []
        self._head_bytes = 0
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
            self._head_bytes += len(data)
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserUpgrade:
            self.keep_alive = False  # whatever follows is not for us
            if self.request is not None and self.request.has_body():
                self.complete = False  # the parser ends where the body begins
                raise Malformed(400, "a body along with Upgrade") from None
        except (httptools.HttpParserError, httptools.HttpParserCallbackError) as error:
            if not self.complete:
                raise Malformed(400, str(error)) from None
            self.keep_alive = False  # what follows the request at hand is no HTTP, or pipelined
        if self.request is None and self._head_bytes > MAX_HEAD:
            raise Malformed(431, f"a head of more than {MAX_HEAD} bytes")
        return True

    def finish(self) -> bool:
        """The answer is out. Whether another request may follow at once (else the rest is still to be read)."""
        if not self.complete:
            self.discarding = True
            self._body.clear()
            return False
        self._next()
        return True

    def _next(self) -> None:
        self._body.clear()  # of a refused request, nobody has read it, and the next one's begins anew
        self.request = None
        self.complete = False
        self.discarding = False
        self._head_bytes = 0

    def hang_up(self) -> bool:
        """Send no more, and read on: closing now would reset the connection, the last answer included, for a
        caller that still sends (RFC 9112 §9.6). False when the caller is gone already."""
        self.leaving = True
        self._body.clear()
        try:
            self.socket.shutdown(socket.SHUT_WR)
        except OSError:
            return False
        return True

    def send(self, data: bytes) -> None:
        """Send all of it. Blocks. Raises OSError when the caller went away, or takes nothing for too long."""
        try:
            self.socket.sendall(data)
        except OSError:
            self.broken = True
            raise

    def body(self) -> io.BufferedIOBase:
        """wsgi.input for the request that is here (PEP 3333). Reading it blocks until the caller sends."""
        if self.complete:
            return io.BytesIO(b"".join(self._drain()))
        assert self.request is not None
        return io.BufferedReader(_Incoming(self, self.request), BLOCK)

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

    # What httptools calls.

    def on_message_begin(self) -> None:
        if self.discarding:
            self._next()  # the end of an answered request's body, and the next request, came in one piece
        elif self.request is not None:
            # Our callers pipeline nothing; whoever does has to ask again (RFC 9112 §9.3.2).
            raise _Pipelined
        self._target = b""
        self._fields = []

    def on_url(self, url: bytes) -> None:
        self._target += url

    def on_header(self, name: bytes, value: bytes) -> None:
        if self.request is None:  # else it is a trailer, which WSGI knows nothing of
            self._fields.append((name, value))

    def on_headers_complete(self) -> None:
        version = self._parser.get_http_version()
        self.request = Request(self._parser.get_method().decode("latin-1"), self._target, version, self._fields)
        self.keep_alive = version == "1.1" and bool(self._parser.should_keep_alive())

    def on_body(self, data: bytes) -> None:
        if not self.discarding:
            self._body.append(data)

    def on_message_complete(self) -> None:
        self.complete = True


class _Pipelined(Exception):
    """Stops the parser at a second request."""


class _Incoming(io.RawIOBase):
    """A body that is still coming, as a raw stream."""

    def __init__(self, connection: Connection, request: Request) -> None:
        self._connection = connection
        self._request = request
        self._rest = memoryview(b"")

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        if self._connection.request is not self._request or self._connection.discarding:
            raise ValueError("the request is over")  # and what comes now is not its body
        if not self._rest:
            self._rest = memoryview(self._connection.next_piece())
        size = min(len(buffer), len(self._rest))
        buffer[:size] = self._rest[:size]
        self._rest = self._rest[size:]
        return size
