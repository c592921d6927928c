"""A connection of a caller: its socket, and the application's input that reads from it."""

from __future__ import annotations

import io
import socket
from collections.abc import Callable
from typing import Any

from lbadaptor.appserver.wsgi import request_cache
from lbadaptor.appserver.wsgi.environ import Request
from lbadaptor.http1.lines import ProtocolError
from lbadaptor.http1.request import RequestReader
from lbadaptor.http1.states import ABANDONED, FORK, HANG_UP, REQUEST

BLOCK = 65536


class Connection(RequestReader[Request]):
    """A connection that is kept alive. One thread at a time has it: the one that polls, or the one that serves it.

    `state` (see `http1.states`) says which, and what is here of a request.
    """

    def __init__(self, sock: socket.socket, peer: Any) -> None:
        super().__init__(request_cache.read)
        self.socket = sock
        self.peer = peer
        self.paused = False
        """it was taken out of the poll while its request is served; see `poller`"""
        self.broken = False
        """the caller went away, or moved no byte for too long, within a request"""
        self._input: _Incoming | None = None
        """the application's, of the request that is here, if not all of its body was here when it was called"""

    @property
    def complete(self) -> bool:
        """All of a request is here, its body too, and it has no answer."""
        return self.state is REQUEST

    def receive(self, flags: int = 0) -> bool:
        """Read what is there. False at the caller's end.

        Blocks unless `flags` holds MSG_DONTWAIT. Raises ProtocolError, OSError (BlockingIOError if nothing is there).
        """
        data = self.socket.recv(BLOCK, flags)
        if not data:
            return False
        self.feed(data)
        return True

    def finish(self) -> bool:
        """The answer was sent. Whether another request may come at once; else this one's rest is discarded first."""
        if self._input is not None:
            self._end_input()
        return self.answered()

    def hang_up(self) -> bool:
        """Send no more, and read on: closing now would reset the connection, the last answer included, for a
        caller that still sends (RFC 9112 §9.6). False when the caller is gone already."""
        self._end_input()
        self.stop()
        try:
            self.socket.shutdown(socket.SHUT_WR)
        except OSError:
            return False
        self.state = HANG_UP[self.state]  # last: from now on the polling thread may read
        return True

    def abandon(self) -> None:
        """In a forked child: close our copy of the socket. The parent goes on using its own."""
        self.state = FORK[self.state]
        self.paused = False
        self.socket.close()

    def send(self, data: bytes) -> None:
        """Send all of it. Blocks. Raises OSError when the caller went away, or takes nothing for too long.

        In a forked child nothing is sent, and nothing raised: the parent sends the answer.
        """
        try:
            self.socket.sendall(data)
        except OSError:
            if self.state is ABANDONED:
                return
            self.broken = True
            raise

    def body(self) -> io.BufferedIOBase:
        """wsgi.input for the request that is here (PEP 3333). Reading it blocks until the caller sends."""
        if self.state is REQUEST:
            return io.BytesIO(b"".join(self._drain())) if self.pieces else io.BytesIO()
        self._input = _Incoming(self.next_piece)
        return io.BufferedReader(self._input, BLOCK)

    def _end_input(self) -> None:
        """The application's input ends: after the rest of the body if all of it is here, else at once."""
        if self._input is not None:
            self._input.end(self._drain() if self.complete else None)
            self._input = None

    def _drain(self) -> list[bytes]:
        pieces = list(self.pieces)
        self.pieces.clear()
        return pieces

    def next_piece(self) -> bytes:
        """Some of the body; empty at its end. Blocks. Raises OSError when the caller broke off."""
        while not self.pieces:
            if self.body_ended:
                return b""
            try:
                if not self.receive():
                    raise ConnectionResetError("the caller went away within the request's body")
            except ProtocolError as error:
                self.keep_alive = False
                raise OSError(f"the request's body: {error}") from None
            except OSError:
                self.broken = True
                raise
        return self.pieces.popleft()


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
    raise ValueError("the request is over")  # what comes now is not its body
