"""A gateway on port 0, with scripted applications and callers."""

from __future__ import annotations

import contextlib
import http.client
import json
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterable
from typing import Any, NoReturn

from lbadaptor.appserver.http.admission import Admission
from lbadaptor.appserver.http.gateway import Gateway
from lbadaptor.appserver.http.status import Status
from lbadaptor.appserver.process.messages import Assignment
from lbadaptor.appserver.sessions.table import SessionTable

WAIT = 10.0
"""Seconds after which a test gives up waiting for an event."""
TICKET = "0.17.signature"
LB = {
    "LB-Key": "caller's",
    "LB-Generation": "17",
    "LB-Session": "none",
    "LB-Remote-Addr": "192.0.2.7",
    "LB-Remote-Port": "51234",
    "LB-Scheme": "https",
    "LB-Script-Name": "/app",
    "LB-Path": "/app/page",
    "LB-Request-Uri": "/app/page",
    "LB-Server-Name": "www.example.org",
    "LB-Server-Port": "443",
    "LB-Server-Protocol": "HTTP/1.1",
}
PROBE = b"GET /__lb__/status HTTP/1.1\r\nLB-Probe: probe's\r\n\r\n"
Application = Callable[[dict[str, Any], Any], Iterable[bytes]]


def head(
    method: str = "GET",
    target: str = "/app/page",
    *lines: str,
    version: str = "1.1",
    without: Iterable[str] = (),
    **lb: str,
) -> bytes:
    """A request's head as an adaptor sends it; `Key="x"` becomes `LB-Key: x`."""
    fields = {**LB, **{"LB-" + name.replace("_", "-"): value for name, value in lb.items()}}
    told = [f"{name}: {value}" for name, value in fields.items() if name not in without]
    return "\r\n".join([f"{method} {target} HTTP/{version}", *told, *lines, "", ""]).encode("latin-1")


class Reply:
    """An answer, read to its end."""

    def __init__(self, response: http.client.HTTPResponse) -> None:
        self.status = response.status
        self.reason = response.reason
        self.headers = response.headers
        self.chunked = response.chunked
        self.hangs_up = bool(response.will_close)
        self.body = response.read()

    @property
    def refused(self) -> str | None:
        return self.headers["LB-Refused"]


class Caller:
    """One connection to the gateway."""

    def __init__(self, address: tuple[str, int]) -> None:
        self.socket = socket.create_connection(address, WAIT)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def send(self, data: bytes) -> None:
        self.socket.sendall(data)

    def reply(self, method: str = "GET") -> Reply:
        response = http.client.HTTPResponse(self.socket, method=method)
        with contextlib.closing(response):
            response.begin()
            return Reply(response)

    def ask(self, data: bytes, method: str = "GET") -> Reply:
        self.send(data)
        return self.reply(method)

    def ended(self) -> bool:
        """Whether the gateway hangs up, or has. Blocks."""
        try:
            return self.socket.recv(1) == b""
        except ConnectionResetError:
            return True

    def reset(self) -> None:
        """End with a reset."""
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.socket.close()


class Harness:
    """A gateway at work, and its callers."""

    def __init__(self, application: Application, threads: int, assignment: Assignment, started: bool = True) -> None:
        listener = socket.socket()
        listener.bind(("127.0.0.1", 0))
        self.address: tuple[str, int] = listener.getsockname()
        self.admission: Admission[Any] = Admission(threads, assignment.queue)
        self.status = Status(0, assignment.generation, self.admission)
        self.sessions = SessionTable(1800.0)
        self.gateway = self._gateway([listener], application, assignment, self.status, self.sessions)
        if not started:
            listener.listen(1024)
            listener.setblocking(False)
        else:
            self.gateway.start()
        self._callers: list[Caller] = []

    def _gateway(self, *parts: Any) -> Gateway:
        return Gateway(*parts)

    def caller(self) -> Caller:
        self._callers.append(Caller(self.address))
        return self._callers[-1]

    def ask(self, data: bytes, method: str = "GET") -> Reply:
        return self.caller().ask(data, method)

    def still_serves(self) -> bool:
        """Whether nothing is left of earlier requests, no thread is lost, and a new request is answered."""
        assert self.admission.wait_idle(WAIT)
        assert all(thread.is_alive() for thread in self.gateway.threads)
        return self.ask(head()).status == 200

    def hang_up(self) -> None:
        for caller in self._callers:
            caller.socket.close()

    def end(self) -> None:
        self.hang_up()
        self.gateway.stop(WAIT)
        assert not any(thread.is_alive() for thread in self.gateway.threads)


ASSIGNMENT = Assignment(
    "", session_cookie="_SID_", generation=17, ticket=TICKET, caller_key="caller's", probe_key="probe's"
)


Serve = Callable[..., Harness]


def until(true: Callable[[], bool]) -> None:
    """Wait for what nobody tells of."""
    deadline = time.monotonic() + WAIT
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.001)


def hello(environ: dict[str, Any], start_response: Any) -> list[bytes]:
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [b"hello"]


def echo(environ: dict[str, Any], start_response: Any) -> list[bytes]:
    start_response("200 OK", [])
    return [environ["wsgi.input"].read()]


class Gate:
    """An application whose every request waits until it is let go."""

    def __init__(self) -> None:
        self.entered = threading.Semaphore(0)
        self.go = threading.Semaphore(0)
        self.at_work = 0
        self.most = 0
        self.calls = 0
        self._lock = threading.Lock()

    def __call__(self, environ: dict[str, Any], start_response: Any) -> list[bytes]:
        with self._lock:
            self.calls += 1
            self.at_work += 1
            self.most = max(self.most, self.at_work)
        self.entered.release()
        assert self.go.acquire(timeout=WAIT)
        with self._lock:
            self.at_work -= 1
        return hello(environ, start_response)


def seen(environ: dict[str, Any], start_response: Any) -> list[bytes]:
    """Tells what it sees, as JSON."""
    start_response("200 OK", [])
    return [json.dumps({key: value for key, value in environ.items() if isinstance(value, str | bool)}).encode()]


# Sessions.


def login(environ: dict[str, Any], start_response: Any) -> list[bytes]:
    start_response("200 OK", [("Set-Cookie", "_SID_=new; Path=/app")])
    return [b"%d" % environ["lbadaptor.session_lost"]]


# Refusals.


def never(environ: dict[str, Any], start_response: Any) -> NoReturn:
    raise AssertionError("the application was called")


def queued(harness: Harness, count: int) -> None:
    """Wait until so many requests are at work or in the queue."""
    until = time.monotonic() + WAIT
    while harness.admission.in_flight != count:
        assert time.monotonic() < until
        time.sleep(0.001)
