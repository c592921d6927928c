"""A TCP peer that follows a script, in the place of an AppServer."""

from __future__ import annotations

import contextlib
import socket
import struct
import threading
from collections.abc import Callable
from dataclasses import dataclass

from lbadaptor.contract.address import Address

PATIENCE = 10.0
"""Seconds after which a test that hangs fails instead."""


@dataclass
class Request:
    """A request as the peer got it."""

    line: str
    headers: list[tuple[str, str]]
    body: bytes = b""

    def get(self, name: str) -> str | None:
        """The only value of a header."""
        found = [value for key, value in self.headers if key.lower() == name.lower()]
        assert len(found) < 2, f"{name} came {len(found)} times"
        return found[0] if found else None


class Talk:
    """One request's exchange, from the peer's side; the head is read, the body when a step asks for it."""

    def __init__(self, connection: socket.socket, request: Request, rest: bytes) -> None:
        self.connection = connection
        self.request = request
        self.over = False
        self.rest = bytearray(rest)

    def send(self, data: bytes) -> None:
        self.connection.sendall(data)

    def read_body(self) -> bytes:
        """The request's body, to its end."""
        if self.request.get("Transfer-Encoding") == "chunked":
            pieces = []
            while size := int(self._line(), 16):
                pieces.append(self._exactly(size))
                assert self._line() == b""
            assert self._line() == b""
            self.request.body += b"".join(pieces)
        else:
            self.request.body += self._exactly(int(self.request.get("Content-Length") or 0))
        return self.request.body

    def close(self) -> None:
        """Hang up in order."""
        self.over = True
        with contextlib.suppress(OSError):
            self.connection.shutdown(socket.SHUT_RDWR)
        self.connection.close()

    def reset(self) -> None:
        """Hang up without order: the caller gets ECONNRESET."""
        self.over = True
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.connection.close()

    def _exactly(self, size: int) -> bytes:
        while len(self.rest) < size:
            self.receive()
        data = bytes(self.rest[:size])
        del self.rest[:size]
        return data

    def _line(self) -> bytes:
        while (end := self.rest.find(b"\r\n")) < 0:
            self.receive()
        line = self._exactly(end)
        self._exactly(2)
        return line

    def receive(self) -> None:
        data = self.connection.recv(65536)
        if not data:
            raise ConnectionResetError("the caller went away within the body")
        self.rest += data


Step = bytes | Callable[[Talk], None]
"""What is answered to one request: bytes, after its body was read; or anything a function does."""


def answer(
    body: bytes = b"hello", status: str = "200 OK", *extra: str, framing: str | None = None, kind: str = "text/plain"
) -> bytes:
    """An answer in one piece."""
    lines = [f"HTTP/1.1 {status}", *extra, f"Content-Type: {kind}"] if kind else [f"HTTP/1.1 {status}", *extra]
    lines += [f"Content-Length: {len(body)}"] if framing is None else [framing] if framing else []
    return "\r\n".join([*lines, "LB-Status: OK", "LB-Load: 1/8/5", "", ""]).encode() + body


def refusal(kind: str, *extra: str) -> bytes:
    """A refusal as an AppServer gives it, with further lines of its head."""
    status = "403 Forbidden" if kind == "KEY" else "421 Misdirected Request"
    return answer(b"no\n", status, f"LB-Refused: {kind}", *extra)


def total(*servers: ScriptedServer) -> int:
    """How many requests came to all of them."""
    return sum(len(server.requests) for server in servers)


def hang_up(talk: Talk) -> None:
    """Read the request, and go away without a word."""
    talk.read_body()
    talk.close()


class ScriptedServer:
    """Listens on a port of its own; each request takes the next step, whatever connection it comes by.

    When the steps are used up, `default` answers. `requests` holds what came, `connections` how many.
    """

    def __init__(self, *steps: Step, default: Step | None = None) -> None:
        self.requests: list[Request] = []
        self.connections = 0
        self._steps = list(steps)
        self._default = answer() if default is None else default
        self._errors: list[BaseException] = []
        self._open: list[socket.socket] = []
        self._lock = threading.Lock()
        self._closing = threading.Event()
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.address = Address(*self._listener.getsockname())
        self._threads = [threading.Thread(target=self._accept)]
        self._threads[0].start()

    def stop(self) -> None:
        """Hang up, and raise what went wrong in a step."""
        self._closing.set()
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        with self._lock:
            for connection in self._open:
                with contextlib.suppress(OSError):
                    connection.shutdown(socket.SHUT_RDWR)
        for thread in self._threads:
            thread.join(PATIENCE)
            assert not thread.is_alive(), "a step hangs"
        if self._errors:
            raise self._errors[0]

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            connection.settimeout(PATIENCE)
            with self._lock:
                if self._closing.is_set():
                    connection.close()
                    return
                self.connections += 1
                self._open.append(connection)
                thread = threading.Thread(target=self._serve, args=(connection,))
                self._threads.append(thread)
            thread.start()

    def _serve(self, connection: socket.socket) -> None:
        with connection:
            try:
                while talk := self._next(connection):
                    step = self._take_step()
                    if callable(step):
                        step(talk)
                    else:
                        talk.read_body()
                        talk.send(step)
                    if talk.over:
                        return
            except OSError:
                pass  # the caller went away, which is for the test to judge
            except BaseException as error:
                self._errors.append(error)

    def _take_step(self) -> Step:
        with self._lock:
            return self._steps.pop(0) if self._steps else self._default

    def _next(self, connection: socket.socket) -> Talk | None:
        data = b""
        while b"\r\n\r\n" not in data:
            piece = connection.recv(65536)
            if not piece:
                return None
            data += piece
        head, _, rest = data.partition(b"\r\n\r\n")
        line, *lines = head.decode("latin-1").split("\r\n")
        pairs = [(name, value.strip()) for name, _, value in (text.partition(":") for text in lines)]
        request = Request(line, pairs)
        with self._lock:
            self.requests.append(request)
        return Talk(connection, request, rest)
