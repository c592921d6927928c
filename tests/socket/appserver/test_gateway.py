"""The gateway: a real one on port 0, with scripted applications and callers."""

from __future__ import annotations

import contextlib
import http.client
import itertools
import json
import logging
import os
import resource
import select
import socket
import struct
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, NoReturn
from wsgiref.validate import validator

import msgspec
import pytest

from lbadaptor.appserver.http import accept, dispatch, limits, own_errors, schedule, schedule_fast
from lbadaptor.appserver.http.admission import Admission
from lbadaptor.appserver.http.gateway import Gateway
from lbadaptor.appserver.http.status import Status
from lbadaptor.appserver.process.messages import Assignment
from lbadaptor.appserver.sessions.table import SessionTable
from lbadaptor.contract.headers import LONGEST_LINE
from lbadaptor.http1.request import MAX_HEAD
from lbadaptor.http1.states import REQUEST

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
MANDATORY = sorted(LB.keys() - {"LB-Session"})
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


QUEUE_OF_2 = msgspec.structs.replace(ASSIGNMENT, queue=2)


@pytest.fixture(autouse=True, params=["fast", "plain"])
def schedule_name(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Every test runs with both schedules."""
    name = str(request.param)
    monkeypatch.setenv(schedule.VARIABLE, name)
    return name


@pytest.fixture
def serve() -> Iterator[Callable[..., Harness]]:
    harnesses: list[Harness] = []

    def start(application: Application, threads: int = 2, assignment: Assignment = ASSIGNMENT) -> Harness:
        harnesses.append(Harness(application, threads, assignment))
        return harnesses[-1]

    yield start
    for harness in harnesses:
        harness.end()


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


# Requests and answers.


def test_a_request_is_answered_with_status_and_load(serve: Serve) -> None:
    reply = serve(hello).ask(head())
    assert (reply.status, reply.body) == (200, b"hello")
    assert reply.headers["LB-Status"] == "OK"
    assert reply.headers["LB-Load"] == "1/2/0"
    assert reply.refused is None


def test_a_connection_carries_many_requests(serve: Serve) -> None:
    caller = serve(echo).caller()
    for number in range(200):
        body = b"%d" % number
        assert caller.ask(head("POST", "/", f"Content-Length: {len(body)}") + body).body == body


def test_a_request_may_come_byte_by_byte(serve: Serve) -> None:
    caller = serve(echo).caller()
    for byte in head("POST", "/", "Transfer-Encoding: chunked") + b"5\r\nhello\r\n0\r\n\r\n":
        caller.send(bytes([byte]))
    assert caller.reply().body == b"hello"
    assert caller.ask(head()).status == 200


def test_a_body_larger_than_all_buffers_arrives(serve: Serve) -> None:
    body = os.urandom(6_000_000)
    caller = serve(echo).caller()
    assert caller.ask(head("POST", "/", f"Content-Length: {len(body)}") + body).body == body


def test_a_chunked_body_ends_where_the_chunks_end(serve: Serve) -> None:
    caller = serve(echo).caller()
    request = head("POST", "/", "Transfer-Encoding: chunked")
    for _ in range(2):
        caller.send(request + b"3\r\nabc\r\n")
        assert caller.ask(b"2;x=y\r\nde\r\n0\r\nTrailer: x\r\n\r\n").body == b"abcde"


@pytest.mark.parametrize("size", [5, 3_000_000])
def test_a_body_that_the_application_does_not_read_does_not_disturb_the_next_request(serve: Serve, size: int) -> None:
    caller = serve(hello).caller()
    caller.send(head("POST", "/", f"Content-Length: {size}"))
    for _ in range(3):
        assert caller.reply().body == b"hello"
        caller.send(bytes(size) + head("POST", "/", f"Content-Length: {size}"))
    assert caller.reply().body == b"hello"


def test_input_may_be_read_while_the_answer_goes_out(serve: Serve) -> None:
    def application(environ: dict[str, Any], start_response: Any) -> Iterator[bytes]:
        start_response("200 OK", [])
        while data := environ["wsgi.input"].read(3):
            yield data

    caller = serve(application).caller()
    caller.send(head("POST", "/", "Content-Length: 6") + b"abc")
    assert caller.socket.recv(65536).endswith(b"\r\n\r\n3\r\nabc\r\n")
    caller.send(b"def")
    rest = b""
    while not rest.endswith(b"0\r\n\r\n"):
        rest += caller.socket.recv(65536)
    assert rest == b"3\r\ndef\r\n0\r\n\r\n"


class Held:
    """An application whose answer is out, and that is not done: after its last byte, or in its close()."""

    def __init__(self, where: str, headers: list[tuple[str, str]], blocks: tuple[bytes, ...] = (b"hello",)) -> None:
        self.where = where
        self.headers = headers
        self.blocks = blocks
        self.go = threading.Event()
        self.held = threading.Semaphore(0)
        self.closed = threading.Semaphore(0)

    def __call__(self, environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        if environ["REQUEST_URI"] == "/free":
            return hello(environ, start_response)
        start_response("200 OK", self.headers)
        return self

    def hold(self) -> None:
        self.held.release()
        assert self.go.wait(WAIT)

    def __iter__(self) -> Iterator[bytes]:
        yield from self.blocks
        if self.where == "after the last byte":
            self.hold()

    def close(self) -> None:
        if self.where == "in close":
            self.hold()
        self.closed.release()


@pytest.mark.parametrize(
    ("method", "where", "headers", "version"),
    [
        ("GET", "after the last byte", [("Content-Length", "5")], "1.1"),
        ("HEAD", "after the last byte", [], "1.1"),
        ("GET", "in close", [("Content-Length", "5")], "1.1"),
        ("GET", "in close", [], "1.1"),
        ("HEAD", "in close", [], "1.1"),
        ("GET", "in close", [], "1.0"),
    ],
)
def test_no_request_waits_for_anothers_close(
    serve: Serve, method: str, where: str, headers: list[tuple[str, str]], version: str
) -> None:
    application = Held(where, headers)
    harness = serve(application)
    caller = harness.caller()
    reply = caller.ask(head(method, version=version), method)
    assert (reply.status, reply.body) == (200, b"" if method == "HEAD" else b"hello")
    assert application.held.acquire(timeout=WAIT)
    if version == "1.0":
        assert caller.ended()
        caller = harness.caller()
    for _ in range(3):
        assert caller.ask(head(Request_Uri="/free")).body == b"hello"
    until(lambda: harness.admission.in_flight == 1)
    assert not application.closed.acquire(blocking=False), "its thread and its place are not free before it is done"
    application.go.set()
    assert application.closed.acquire(timeout=WAIT)
    assert caller.ask(head(Request_Uri="/free")).body == b"hello"
    assert harness.still_serves()


def test_all_threads_may_be_held_by_close_and_the_next_request_waits_for_a_thread_only(serve: Serve) -> None:
    application = Held("in close", [("Content-Length", "5")])
    harness = serve(application, threads=2)
    limits = [harness.caller() for _ in range(2)]
    for caller in limits:
        assert caller.ask(head()).body == b"hello"
        assert application.held.acquire(timeout=WAIT)
    limits[0].send(head(Request_Uri="/free"))
    assert json.loads(harness.ask(PROBE).body)["in_flight"] == 3
    application.go.set()
    assert limits[0].reply().body == b"hello"
    assert harness.still_serves()


@pytest.mark.parametrize("fails", ["after the last byte", "in close"])
def test_what_an_application_raises_after_its_answer_is_logged_and_harms_no_other_request(
    serve: Serve, capsys: pytest.CaptureFixture[str], fails: str
) -> None:
    class Fails(Held):
        def hold(self) -> None:
            super().hold()
            raise KeyError("too late")

    application = Fails(fails, [("Content-Length", "5")])
    harness = serve(application)
    caller = harness.caller()
    assert caller.ask(head()).body == b"hello"
    assert application.held.acquire(timeout=WAIT)
    caller.send(head(Request_Uri="/free")[:50])  # the connection is between two requests
    application.go.set()
    assert harness.admission.wait_idle(WAIT)
    caller.send(head(Request_Uri="/free")[50:])
    reply = caller.reply()
    assert (reply.body, reply.hangs_up) == (b"hello", False)
    assert "KeyError: 'too late'" in capsys.readouterr().err


def test_more_than_the_length_is_dropped_though_another_answer_goes_out(serve: Serve) -> None:
    go, more = threading.Event(), threading.Event()

    def application(environ: dict[str, Any], start_response: Any) -> Iterator[bytes]:
        if environ["REQUEST_URI"] == "/free":
            start_response("200 OK", [])
            yield b"he"
            go.set()
            assert more.wait(WAIT)
            yield b"llo"
            return
        write = start_response("200 OK", [("Content-Length", "5")])
        yield b"hello"
        assert go.wait(WAIT)
        for _ in range(10):
            yield b"HTTP/1.1 200 OK\r\n\r\n"
            write(b"HTTP/1.1 200 OK\r\n\r\n")
        more.set()

    caller = serve(application).caller()
    assert caller.ask(head()).body == b"hello"
    assert caller.ask(head(Request_Uri="/free")).body == b"hello"


def test_after_its_answer_an_application_may_read_what_is_here_of_its_input_and_no_other(serve: Serve) -> None:
    go = threading.Event()
    read: list[bytes] = []

    def application(environ: dict[str, Any], start_response: Any) -> Iterator[bytes]:
        if environ["REQUEST_URI"] == "/free":
            yield from echo(environ, start_response)
            return
        body = environ["wsgi.input"]
        read.append(body.read(1))
        start_response("200 OK", [("Content-Length", "2")])
        yield b"ok"
        assert go.wait(WAIT)
        read.append(body.read())
        read.append(body.read())

    harness = serve(application)
    caller = harness.caller()
    caller.send(head("POST", "/", "Content-Length: 4"))
    assert json.loads(harness.ask(PROBE).body)["in_flight"] == 1
    caller.send(b"body")
    assert caller.reply().body == b"ok"
    caller.send(head("POST", "/", "Content-Length: 5", Request_Uri="/free") + b"other")
    assert caller.reply().body == b"other"
    go.set()
    assert harness.admission.wait_idle(WAIT)
    assert b"".join(read) == b"body"


def test_an_input_that_is_not_here_yet_may_be_read_after_the_answer_and_ends_the_connection(serve: Serve) -> None:
    read: list[bytes] = []

    def application(environ: dict[str, Any], start_response: Any) -> Iterator[bytes]:
        start_response("200 OK", [("Content-Length", "2")])
        yield b"ok"
        read.append(environ["wsgi.input"].read())

    harness = serve(application)
    caller = harness.caller()
    caller.send(head("POST", "/", "Content-Length: 4"))
    reply = caller.reply()
    assert (reply.body, reply.hangs_up) == (b"ok", True)
    caller.send(b"body")
    assert caller.ended()
    assert harness.admission.wait_idle(WAIT)
    assert read == [b"body"]


def test_a_generator_is_closed(serve: Serve) -> None:
    closed = threading.Event()

    class Blocks:
        def __iter__(self) -> Iterator[bytes]:
            yield b"a"
            yield b"b"

        def close(self) -> None:
            closed.set()

    def application(environ: dict[str, Any], start_response: Any) -> Blocks:
        start_response("200 OK", [])
        return Blocks()

    assert serve(application).ask(head()).body == b"ab"
    assert closed.wait(WAIT)


def test_write_goes_out_at_once(serve: Serve) -> None:
    go = threading.Event()

    def application(environ: dict[str, Any], start_response: Any) -> list[bytes]:
        start_response("200 OK", [])(b"now")
        assert go.wait(WAIT)
        return [b"later"]

    caller = serve(application).caller()
    caller.send(head())
    assert caller.socket.recv(65536).endswith(b"3\r\nnow\r\n")
    go.set()
    assert caller.socket.recv(65536).startswith(b"5\r\nlater\r\n")


def test_a_file_wrapper_sends_its_file_and_closes_it(serve: Serve, tmp_path: Any) -> None:
    (tmp_path / "file").write_bytes(b"x" * 200_000)
    file = (tmp_path / "file").open("rb")

    def application(environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        start_response("200 OK", [("Content-Length", "200000")])
        wrapped: Iterable[bytes] = environ["wsgi.file_wrapper"](file)
        return wrapped

    harness = serve(application)
    assert harness.ask(head()).body == b"x" * 200_000
    assert harness.admission.wait_idle(WAIT)
    assert file.closed


@pytest.mark.parametrize(
    ("method", "status"), [("HEAD", "200 OK"), ("GET", "204 No Content"), ("GET", "304 Not Modified")]
)
def test_an_answer_without_body_leaves_the_connection_usable(serve: Serve, method: str, status: str) -> None:
    def application(environ: dict[str, Any], start_response: Any) -> Iterator[bytes]:
        start_response(status, [])
        yield b"not"
        yield b"sent"

    caller = serve(application).caller()
    for _ in range(3):
        reply = caller.ask(head(method), method)
        assert (reply.status, reply.body) == (int(status[:3]), b"")


def test_an_http_1_0_caller_gets_no_chunks_and_the_connections_end(serve: Serve) -> None:
    def application(environ: dict[str, Any], start_response: Any) -> Iterator[bytes]:
        start_response("200 OK", [])
        yield b"one"
        yield b"two"

    caller = serve(application).caller()
    caller.send(head(version="1.0"))
    data = b""
    while more := caller.socket.recv(65536):
        data += more
    lines, _, body = data.partition(b"\r\n\r\n")
    assert body == b"onetwo"
    assert b"Connection: close" in lines
    assert b"Transfer-Encoding" not in lines


def test_a_connection_that_is_not_to_be_kept_is_ended(serve: Serve) -> None:
    caller = serve(hello).caller()
    reply = caller.ask(head("GET", "/", "Connection: close"))
    assert (reply.status, reply.hangs_up) == (200, True)
    assert caller.ended()


def test_an_upgrade_is_passed_over_and_its_body_arrives(serve: Serve) -> None:
    """RFC 9110 §7.8: a server may ignore it."""
    caller = serve(echo).caller()
    for _ in range(2):
        lines = ("Connection: Upgrade", "Upgrade: h2c", "Content-Length: 3")
        reply = caller.ask(head("POST", "/", *lines) + b"abc")
        assert (reply.status, reply.body, reply.hangs_up) == (200, b"abc", False)


def test_of_two_pipelined_requests_the_first_is_answered_and_the_second_has_to_be_asked_again(serve: Serve) -> None:
    gate = Gate()
    gate.go.release()
    harness = serve(gate)
    caller = harness.caller()
    reply = caller.ask(head() * 2)
    assert (reply.status, reply.hangs_up) == (200, True)
    assert caller.ended()
    assert gate.calls == 1


def test_the_environ_is_valid(serve: Serve) -> None:
    def application(environ: dict[str, Any], start_response: Any) -> list[bytes]:
        body = environ["wsgi.input"].read(100)
        environ["wsgi.errors"].write("")
        start_response("200 OK", [("Content-Type", "text/plain"), ("Content-Length", str(len(body)))])
        return [body]

    harness = serve(validator(application))
    assert (
        harness.ask(head("POST", "/?a=b", "Content-Length: 5", "Host: x", "Cookie: a=b") + b"hello").body == b"hello"
    )
    assert harness.ask(head("GET", "/", Script_Name="", Path="/")).status == 200
    assert harness.ask(head("POST", "/", "Transfer-Encoding: chunked") + b"1\r\nx\r\n0\r\n\r\n").body == b"x"


def test_method_and_query_that_http_parsers_do_not_take_arrive(serve: Serve) -> None:
    environ = json.loads(serve(seen).ask(head("POST", "/?x=1", Method="BREW", Query="tea=%E4")).body)
    assert environ["REQUEST_METHOD"] == "BREW"
    assert environ["QUERY_STRING"] == "tea=\xe4"


def test_an_answer_to_head_under_another_method_on_the_wire_has_no_body(serve: Serve) -> None:
    caller = serve(hello).caller()
    assert caller.ask(head("POST", "/", Method="HEAD"), "HEAD").body == b""
    assert caller.ask(head()).body == b"hello"


def test_names_with_an_underscore_do_not_arrive(serve: Serve) -> None:
    environ = json.loads(
        serve(seen).ask(head("GET", "/", "Remote_User: root", "LB_Remote_User: root", "X_A: b")).body
    )
    assert "root" not in environ.values()
    assert "HTTP_X_A" not in environ


def test_the_application_does_not_see_the_sockets_peer(serve: Serve) -> None:
    environ = json.loads(serve(seen).ask(head()).body)
    assert environ["REMOTE_ADDR"] == "192.0.2.7"
    assert "127.0.0.1" not in environ.values()


def test_the_lb_headers_of_an_application_are_removed(serve: Serve) -> None:
    def application(environ: dict[str, Any], start_response: Any) -> list[bytes]:
        start_response("421 Mine", [("LB-Refused", "DYING"), ("lb-status", "DYING"), ("LB-LOAD", "0/0/0")])
        return []

    reply = serve(application).ask(head())
    assert (reply.status, reply.reason) == (421, "Mine")
    assert reply.refused is None
    assert reply.headers.get_all("LB-Status") == ["OK"]
    assert reply.headers.get_all("LB-Load") == ["1/2/0"]


# Sessions.


def login(environ: dict[str, Any], start_response: Any) -> list[bytes]:
    start_response("200 OK", [("Set-Cookie", "_SID_=new; Path=/app")])
    return [b"%d" % environ["lbadaptor.session_lost"]]


def test_the_ticket_goes_along_with_a_session(serve: Serve) -> None:
    harness = serve(login)
    reply = harness.ask(head())
    assert reply.headers.get_all("Set-Cookie") == ["_SID_=new; Path=/app", f"__PRT__={TICKET}; Path=/app; HttpOnly"]
    assert reply.headers["Cache-Control"] == "private"
    assert harness.sessions.count(0.0) == 1


def spoken(environ: dict[str, Any], start_response: Any) -> Iterator[bytes]:
    """The application says itself who has a session: before its answer, in it, or behind its head."""
    sessions = environ["lbadaptor.sessions"]
    environ["SCRIPT_NAME"] = environ["wsgi.url_scheme"] = "its own"
    when, _, word = environ["QUERY_STRING"].partition("=")
    if when == "before":
        getattr(sessions, word)()
    start_response("200 OK", [("Content-Type", "text/plain")])
    if when == "after":
        getattr(sessions, word)()
    yield b""
    if when == "empty":
        getattr(sessions, word)()
    yield b"head "
    try:
        if when == "late":
            getattr(sessions, word)()
        yield b"in time"
    except RuntimeError as error:
        yield str(error).encode()


@pytest.mark.parametrize("when", ["before", "after", "empty"])
def test_the_application_may_say_that_a_session_begins_until_its_head_is_out(serve: Serve, when: str) -> None:
    harness = serve(spoken)
    reply = harness.ask(head("GET", f"/app/page?{when}=begin"))
    session, ticket = reply.headers.get_all("Set-Cookie")
    assert reply.body == b"head in time"
    assert ticket == f"__PRT__={TICKET}; Path=/app; SameSite=Lax; Secure; HttpOnly"
    assert harness.sessions.count(0.0) == 1
    harness.admission.dying = True
    brought = f"Cookie: {session.partition(';')[0]}"
    reply = harness.ask(head("GET", f"/app/page?{when}=begin", brought, Session="held"))
    assert reply.status == 200
    assert "Set-Cookie" not in reply.headers
    reply = harness.ask(head("GET", f"/app/page?{when}=end", brought, Session="held"))
    assert reply.headers["Set-Cookie"] == "__PRT__=; Path=/app; SameSite=Lax; Secure; HttpOnly; Max-Age=0"
    assert harness.sessions.count(0.0) == 0
    assert harness.ask(head("GET", "/app/page", brought, Session="held")).refused == "DYING"


def test_once_the_head_is_out_a_session_may_end_and_none_begin(serve: Serve) -> None:
    harness = serve(spoken)
    harness.sessions.assign("mine", [], time.monotonic())
    assert b"too late" in harness.ask(head("GET", "/app/page?late=begin")).body
    assert (
        harness.ask(head("GET", "/app/page?late=begin", "Cookie: _SID_=mine", Session="held")).body == b"head in time"
    )
    assert harness.sessions.count(time.monotonic()) == 1
    assert (
        harness.ask(head("GET", "/app/page?late=end", "Cookie: _SID_=mine", Session="held")).body == b"head in time"
    )
    assert harness.sessions.count(time.monotonic()) == 0


def test_without_a_session_cookie_there_is_nothing_to_say_it_to(serve: Serve) -> None:
    def application(environ: dict[str, Any], start_response: Any) -> list[bytes]:
        start_response("200 OK", [])
        return [str("lbadaptor.sessions" in environ).encode()]

    for cookie in ("_SID_", ""):
        harness = serve(application, assignment=msgspec.structs.replace(ASSIGNMENT, session_cookie=cookie))
        assert harness.ask(head()).body == str(bool(cookie)).encode()


@pytest.mark.parametrize(
    ("session", "cookie", "lost"),
    [
        ("lost", "Cookie: a=b; _SID_=old", b"1"),
        ("lost", "Cookie: a=b", b"0"),
        ("held", "Cookie: _SID_=old", b"0"),
        ("none", "Cookie: _SID_=old", b"0"),
    ],
)
def test_a_session_is_lost_when_ticket_and_old_cookie_say_so(
    serve: Serve, session: str, cookie: str, lost: bytes
) -> None:
    assert serve(login).ask(head("GET", "/", cookie, Session=session)).body == lost


def test_dying_admits_known_sessions_only(serve: Serve) -> None:
    harness = serve(hello)
    harness.sessions.assign("mine", [], time.monotonic())
    harness.admission.dying = True
    caller = harness.caller()
    for cookie, refused in [
        ("X: y", "DYING"),
        ("Cookie: _SID_=other", "DYING"),
        ("Cookie: __PRT__=" + TICKET, "DYING"),
        ("Cookie: _SID_=mine", None),
        ("Cookie: a=b\r\nCookie: _SID_=other; _SID_=mine", None),
    ]:
        reply = caller.ask(head("POST", "/", cookie, "Content-Length: 2", Session="held") + b"ab")
        assert reply.refused == refused
        assert reply.status == (421 if refused else 200)
        assert reply.headers["LB-Status"] == "DYING"
    harness.admission.dying = False
    assert caller.ask(head()).headers["LB-Status"] == "OK"


def test_dying_admits_a_value_that_a_login_has_just_replaced(serve: Serve) -> None:
    harness = serve(login)
    harness.sessions.assign("old", [], time.monotonic())
    assert harness.ask(head("GET", "/", "Cookie: _SID_=old")).status == 200
    harness.admission.dying = True
    assert harness.ask(head("GET", "/", "Cookie: _SID_=old")).status == 200


def test_stopping_admits_no_request(serve: Serve) -> None:
    harness = serve(hello)
    harness.sessions.assign("mine", [], time.monotonic())
    harness.admission.stopping = True
    reply = harness.ask(head("GET", "/", "Cookie: _SID_=mine"))
    assert (reply.status, reply.refused, reply.headers["LB-Status"]) == (421, "DYING", "DYING")


AFFINITY = msgspec.structs.replace(ASSIGNMENT, session_cookie="", affinity=True)


@pytest.mark.parametrize(("session", "lost"), [("none", b"0"), ("lost", b"1")])
def test_with_affinity_the_first_answer_has_the_ticket(serve: Serve, session: str, lost: bytes) -> None:
    harness = serve(login, assignment=AFFINITY)
    reply = harness.ask(head(Session=session))
    assert reply.headers.get_all("Set-Cookie") == [
        "_SID_=new; Path=/app",
        f"__PRT__={TICKET}; Path=/app; SameSite=Lax; Secure; HttpOnly",
    ]
    assert reply.headers["Cache-Control"] == "private"
    assert reply.body == lost
    assert harness.sessions.count(0.0) == 1


def test_with_affinity_a_holder_gets_no_ticket_again(serve: Serve) -> None:
    harness = serve(login, assignment=AFFINITY)
    reply = harness.ask(head(Session="held"))
    assert reply.headers.get_all("Set-Cookie") == ["_SID_=new; Path=/app"]
    assert reply.headers["Cache-Control"] is None
    assert reply.body == b"0"
    assert harness.sessions.count(0.0) == 1


def test_with_affinity_the_ticket_is_for_the_mount_whatever_the_application_makes_of_it(serve: Serve) -> None:
    def dispatcher(environ: dict[str, Any], start_response: Any) -> list[bytes]:
        environ["SCRIPT_NAME"] += "/inner"
        environ["wsgi.url_scheme"] = "http"
        return hello(environ, start_response)

    reply = serve(dispatcher, assignment=AFFINITY).ask(head())
    assert reply.headers["Set-Cookie"] == f"__PRT__={TICKET}; Path=/app; SameSite=Lax; Secure; HttpOnly"


def test_with_affinity_dying_admits_only_holders(serve: Serve) -> None:
    harness = serve(hello, assignment=AFFINITY)
    harness.admission.dying = True
    caller = harness.caller()
    for session, status in (("none", 421), ("lost", 421), ("held", 200)):
        assert caller.ask(head(Session=session)).status == status
    assert harness.sessions.count(0.0) == 1  # a visitor that is refused is not counted


def test_another_visitor_does_not_keep_a_session_alive(serve: Serve) -> None:
    harness = serve(hello)
    harness.sessions.assign("mine", [], time.monotonic())
    before = dict(harness.sessions._last_use)
    assert harness.ask(head("GET", "/", "Cookie: _SID_=mine", Key="wrong")).status == 403
    assert harness.ask(head("GET", "/", "Cookie: _SID_=mine", Generation="18")).status == 421
    assert dict(harness.sessions._last_use) == before
    assert harness.ask(head("GET", "/", "Cookie: _SID_=mine")).status == 200
    assert dict(harness.sessions._last_use) != before


@pytest.mark.parametrize("size", [1, 1_000_000])
def test_a_session_that_began_with_an_undelivered_answer_is_none(serve: Serve, size: int) -> None:
    """Where its head may have been read, the session stays."""
    asked, gone = threading.Event(), threading.Event()

    def login(environ: dict[str, Any], start_response: Any) -> list[bytes]:
        asked.set()
        gone.wait(WAIT)
        start_response("200 OK", [("Set-Cookie", "_SID_=new; Path=/")])
        return [b"x" * size]

    harness = serve(login)
    caller = harness.caller()
    caller.socket.sendall(head())
    assert asked.wait(WAIT)
    caller.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    caller.socket.close()  # by a reset
    gone.set()
    assert harness.admission.wait_idle(WAIT)
    assert harness.sessions.count(time.monotonic()) == (size > 1)


# Refusals.


def never(environ: dict[str, Any], start_response: Any) -> NoReturn:
    raise AssertionError("the application was called")


@pytest.mark.parametrize("name", MANDATORY)
def test_without_a_mandatory_header_a_request_is_incomplete(serve: Serve, name: str) -> None:
    reply = serve(never).ask(head("POST", "/", "Content-Length: 10000000", without=[name]))
    assert (reply.status, reply.refused) == (421, "INCOMPLETE")
    assert reply.body == f"missing: {name}\n".encode()


@pytest.mark.parametrize("generation", ["16", "18", "", "017", "17.0"])
def test_another_generation_is_stale_whatever_the_key(serve: Serve, generation: str) -> None:
    reply = serve(never).ask(head("POST", "/", "Content-Length: 10000000", Generation=generation, Key="x"))
    assert (reply.status, reply.refused) == (421, "STALE")


@pytest.mark.parametrize("key", ["", "wrong", "probe's", "caller's!", "\xe4"])
def test_a_wrong_key_is_forbidden_before_a_byte_of_the_body_is_read(serve: Serve, key: str) -> None:
    reply = serve(never).ask(head("POST", "/", "Content-Length: 10000000", Key=key))
    assert (reply.status, reply.refused) == (403, "KEY")


def test_contradicting_headers_are_incomplete(serve: Serve) -> None:
    harness = serve(hello)
    caller = harness.caller()
    reply = caller.ask(head(Script_Name="/other"))
    assert (reply.status, reply.refused) == (421, "INCOMPLETE")
    assert caller.ask(head()).status == 200


@pytest.mark.parametrize("size", [0, 5, 3_000_000])
def test_a_refused_requests_connection_stays_usable(serve: Serve, size: int) -> None:
    caller = serve(hello).caller()
    for _ in range(3):
        refusal = caller.ask(head("POST", "/", f"Content-Length: {size}", Generation="16") + bytes(size))
        assert refusal.refused == "STALE"
        assert caller.ask(head()).body == b"hello"


def test_a_refusal_of_head_has_no_body(serve: Serve) -> None:
    caller = serve(hello).caller()
    assert caller.ask(head("HEAD", Generation="16"), "HEAD").refused == "STALE"
    assert caller.ask(head()).body == b"hello"


def test_a_malformed_rest_of_a_refused_requests_body_gets_no_second_answer(serve: Serve) -> None:
    harness = serve(hello)
    caller = harness.caller()
    assert caller.ask(head("POST", "/", "Transfer-Encoding: chunked", Generation="16")).refused == "STALE"
    caller.send(b"no size\r\n")
    assert caller.ended()
    assert harness.still_serves()


@pytest.mark.parametrize(
    ("data", "status"),
    [
        (b"\x16\x03\x01\x02\x00\x01\xfc\x03\x03", 400),
        (b"hello\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nX: " + b"x" * (3 * MAX_HEAD), 431),
        (head("POST", "/", "Transfer-Encoding: chunked") + b"no size\r\n", 400),
        (head("POST", "/", "Content-Length: 3", "Content-Length: 3") + b"abc", 400),
        (b"GET / HTTP/2.0\r\n\r\n", 400),
    ],
    ids=["TLS", "not HTTP", "large head", "malformed body", "two lengths", "HTTP/2"],
)
def test_what_is_not_accepted_is_answered_and_closed(serve: Serve, data: bytes, status: int) -> None:
    harness = serve(hello)
    caller = harness.caller()
    reply = caller.ask(data)
    assert (reply.status, reply.hangs_up) == (status, True)
    assert caller.socket.recv(1) == b""
    for _ in range(3):  # no reset, which could overtake the answer
        assert harness.ask(head()).status == 200
        caller.send(b"more")
    caller.socket.close()
    assert harness.still_serves()


def test_beyond_the_queue_requests_are_refused_as_busy(serve: Serve) -> None:
    gate = Gate()
    harness = serve(gate, threads=1, assignment=QUEUE_OF_2)
    limits = [harness.caller() for _ in range(4)]
    limits[0].send(head())
    assert gate.entered.acquire(timeout=WAIT)
    for caller in limits[1:]:
        caller.send(head())
    busy = [caller for caller in limits if _readable(caller)]
    while not busy:
        busy = [caller for caller in limits if _readable(caller)]
    refusal = busy[0].reply()
    assert (refusal.status, refusal.refused) == (421, "BUSY")
    gate.go.release(3)
    assert [caller.reply().status for caller in limits if caller is not busy[0]] == [200] * 3
    assert gate.calls == 3


def _queued(harness: Harness, count: int) -> None:
    """Wait until so many requests are at work or in the queue."""
    until = time.monotonic() + WAIT
    while harness.admission.in_flight != count:
        assert time.monotonic() < until
        time.sleep(0.001)


def test_ticket_holders_come_first(serve: Serve) -> None:
    order: list[str] = []
    gate = Gate()

    def application(environ: dict[str, Any], start_response: Any) -> list[bytes]:
        order.append(environ["PATH_INFO"])
        return gate(environ, start_response)

    harness = serve(application, threads=1)
    limits = []
    for number, (page, session) in enumerate(
        [("/at-work", "none"), ("/new-1", "none"), ("/lost", "lost"), ("/held-1", "held"), ("/held-2", "held")], 1
    ):
        limits.append(harness.caller())
        limits[-1].send(head(Path="/app" + page, Session=session))
        _queued(harness, number)
        if number == 1:
            assert gate.entered.acquire(timeout=WAIT)
    gate.go.release(5)
    assert [caller.reply().status for caller in limits] == [200] * 5
    assert order == ["/at-work", "/held-1", "/held-2", "/new-1", "/lost"]


def test_in_a_full_queue_a_ticket_holder_takes_the_place_of_a_request_that_may_go_elsewhere(serve: Serve) -> None:
    gate = Gate()
    harness = serve(gate, threads=1, assignment=QUEUE_OF_2)
    at_work, first, second, held, held_2, held_3 = (harness.caller() for _ in range(6))
    for number, caller in enumerate((at_work, first, second), 1):
        caller.send(head())
        _queued(harness, number)
        if number == 1:
            assert gate.entered.acquire(timeout=WAIT)
    held.send(head(Session="held"))
    assert second.reply().refused == "BUSY"  # who has waited the least
    held_2.send(head(Session="held"))
    assert first.reply().refused == "BUSY"
    assert held_3.ask(head(Session="held")).refused == "BUSY"  # they cannot go elsewhere: nobody is displaced
    assert harness.ask(head()).refused == "BUSY"
    assert harness.admission.in_flight == 3
    gate.go.release(3)
    assert [caller.reply().status for caller in (at_work, held, held_2)] == [200] * 3
    assert gate.calls == 3
    gate.go.release(3)
    assert second.ask(head()).status == 200, "its connection is as good as before"
    assert harness.still_serves()


def _readable(caller: Caller) -> bool:
    with contextlib.suppress(BlockingIOError):
        caller.socket.settimeout(0.01)
        try:
            return bool(caller.socket.recv(1, socket.MSG_PEEK))
        except TimeoutError:
            return False
        finally:
            caller.socket.settimeout(WAIT)
    return False


# Threads.


def test_a_probe_is_answered_while_all_threads_are_at_work(serve: Serve) -> None:
    gate = Gate()
    harness = serve(gate, threads=3)
    limits = [harness.caller() for _ in range(5)]
    for caller in limits:
        caller.send(head())
    for _ in range(3):
        assert gate.entered.acquire(timeout=WAIT)
    probe = harness.caller()
    reports = [json.loads(probe.ask(PROBE).body) for _ in range(3)]
    while reports[-1]["in_flight"] < 5:
        reports.append(json.loads(probe.ask(PROBE).body))
    assert (reports[-1]["status"], reports[-1]["threads"], reports[-1]["served"]) == ("OK", 3, 0)
    gate.go.release(5)
    assert [caller.reply().status for caller in limits] == [200] * 5


@pytest.mark.parametrize(
    ("target", "key"),
    [
        ("/__lb__/status", "wrong"),
        ("/__lb__/status", "caller's"),
        ("/__lb__/status", ""),
        ("/__lb__/other", "probe's"),
    ],
)
def test_without_the_probes_key_or_path_it_is_a_request_as_any(serve: Serve, target: str, key: str) -> None:
    harness = serve(hello)
    assert harness.ask(head("GET", target, Probe=key)).body == b"hello"
    assert harness.ask(f"GET {target} HTTP/1.1\r\nLB-Probe: {key}\r\n\r\n".encode()).refused == "INCOMPLETE"


def test_a_probe_is_answered_whatever_the_orders_and_is_no_request(serve: Serve) -> None:
    harness = serve(hello)
    harness.admission.dying = harness.admission.stopping = True
    report = json.loads(harness.ask(PROBE).body)
    assert (report["status"], report["in_flight"], report["served"]) == ("DYING", 0, 0)


@pytest.mark.parametrize("threads", [1, 3])
def test_no_more_requests_are_at_work_than_there_are_threads(serve: Serve, threads: int) -> None:
    gate = Gate()
    harness = serve(gate, threads=threads)
    limits = [harness.caller() for _ in range(4 * threads)]
    for caller in limits:
        caller.send(head())
    for _ in limits:
        assert gate.entered.acquire(timeout=WAIT)
        gate.go.release()
    assert [caller.reply().status for caller in limits] == [200] * len(limits)
    assert gate.most <= threads
    gate.go.release()
    assert harness.still_serves()


def test_requests_beyond_the_threads_wait_parked_in_no_thread_of_their_own(serve: Serve) -> None:
    gate = Gate()
    harness = serve(gate, threads=2)
    before = threading.active_count()
    limits = [harness.caller() for _ in range(40)]
    for caller in limits:
        caller.send(head())
    for _ in range(2):
        assert gate.entered.acquire(timeout=WAIT)
    _queued(harness, 40)
    assert threading.active_count() == before
    assert not gate.entered.acquire(blocking=False), "two are at work, and no other has begun"
    for _ in limits:
        gate.go.release()
    assert [caller.reply().status for caller in limits] == [200] * 40


def test_all_threads_can_be_at_work_at_once(serve: Serve) -> None:
    together = threading.Barrier(4)

    def application(environ: dict[str, Any], start_response: Any) -> list[bytes]:
        together.wait(WAIT)
        return hello(environ, start_response)

    harness = serve(application, threads=4)
    for _ in range(20):
        limits = [harness.caller() for _ in range(4)]
        for caller in limits:
            caller.send(head())
        assert [caller.reply().status for caller in limits] == [200] * 4


def test_short_requests_are_served_by_the_thread_that_polls(
    serve: Serve, monkeypatch: pytest.MonkeyPatch, schedule_name: str
) -> None:
    if schedule_name == "plain":
        pytest.skip("another thread serves them")
    monkeypatch.setattr(schedule_fast, "LONG", 1.0)  # however busy the machine is
    monkeypatch.setattr(schedule_fast, "WORTH_A_THREAD", 1.0)
    threads: set[int] = set()

    def who(environ: dict[str, Any], start_response: Any) -> list[bytes]:
        threads.add(threading.get_ident())
        return hello(environ, start_response)

    harness = serve(who, threads=4)
    limits = [harness.caller() for _ in range(8)]
    for _ in range(20):
        for caller in limits:
            caller.send(head())
        assert [caller.reply().status for caller in limits] == [200] * 8
    assert len(threads) == 1


def test_one_that_computes_does_not_keep_others_waiting(serve: Serve) -> None:
    over = threading.Event()

    def computes(environ: dict[str, Any], start_response: Any) -> list[bytes]:
        if environ["QUERY_STRING"] == "long":
            while not over.is_set():  # never lets go of the interpreter lock by itself
                sum(range(1000))
        return hello(environ, start_response)

    harness = serve(computes)
    long = harness.caller()
    long.send(head("GET", "/app/page?long"))
    other = harness.caller()
    assert [other.ask(head()).status for _ in range(20)] == [200] * 20
    over.set()
    assert long.reply().status == 200


def test_after_long_requests_and_short_ones_no_thread_is_lost(serve: Serve, schedule_name: str) -> None:
    def mixed(environ: dict[str, Any], start_response: Any) -> list[bytes]:
        time.sleep(float(environ["QUERY_STRING"] or 0))
        return hello(environ, start_response)

    harness = serve(mixed, threads=3)
    limits = [harness.caller() for _ in range(9)]
    for number in range(60):
        seconds = (0, 0.005, 0, 0.001, 0.01)[number % 5]
        for caller in limits:
            caller.send(head("GET", f"/app/page?{seconds}"))
        assert [caller.reply().status for caller in limits] == [200] * 9
    assert harness.still_serves()
    chosen = harness.gateway.schedule
    assert isinstance(chosen, schedule_fast.FastSchedule) == (schedule_name == "fast")
    if isinstance(chosen, schedule_fast.FastSchedule):
        parked = chosen.leadership._parked
        until(lambda: len(parked) == 3)  # all but the leader


def test_an_error_in_the_leaders_own_work_costs_no_leadership(
    serve: Serve, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    harness = serve(hello)
    first = harness.caller()
    assert first.ask(head()).status == 200
    begin = harness.admission.begin
    failures = iter([True, True, False])

    def fails() -> object:
        if next(failures, False):
            raise MemoryError("as it may come anywhere")
        return begin()

    monkeypatch.setattr(harness.admission, "begin", fails)
    assert first.ask(head()).status == 200
    assert harness.still_serves()
    assert caplog.text.count("begins anew") == 2


def test_the_last_time_limit_may_be_lifted_while_the_leader_looks_at_it(
    serve: Serve, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Another thread closes that connection at this very moment."""
    harness = serve(hello)
    unknown = harness.caller()
    until(lambda: bool(harness.gateway.callers.limited))
    monkeypatch.setattr(harness.gateway.callers, "next_end", lambda: None)
    assert harness.ask(head()).status == 200
    unknown.socket.close()
    assert harness.still_serves()
    assert "begins anew" not in caplog.text


def test_idle_connections_cost_no_thread(serve: Serve) -> None:
    harness = serve(hello, threads=1)
    idle = [harness.caller() for _ in range(50)]
    begun = [harness.caller() for _ in range(50)]
    for caller in begun:
        caller.send(head()[:40])
    assert harness.ask(head()).status == 200
    for caller in begun:
        caller.send(head()[40:])
    assert [caller.reply().status for caller in begun] == [200] * 50
    assert [caller.ask(head()).status for caller in idle] == [200] * 50


def test_many_callers_at_once_lose_no_request(serve: Serve) -> None:
    harness = serve(echo, threads=3)
    wrong: list[object] = []

    def call(name: int) -> None:
        try:
            caller = Caller(harness.address)
            with caller.socket:
                for number in range(60):
                    body = b"%d.%d" % (name, number)
                    got = caller.ask(head("POST", "/", f"Content-Length: {len(body)}") + body).body
                    if got != body:
                        wrong.append((body, got))
        except Exception as error:
            wrong.append(error)

    threads = [threading.Thread(target=call, args=(name,)) for name in range(12)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []
    assert harness.admission.wait_idle(WAIT)
    assert harness.admission.served == 12 * 60
    assert harness.still_serves()


def test_stop_ends_threads_and_connections() -> None:
    descriptors = set(os.listdir("/proc/self/fd"))
    harness = Harness(hello, 2, ASSIGNMENT)
    limits = [harness.caller() for _ in range(3)]
    assert [caller.ask(head()).status for caller in limits] == [200] * 3
    harness.gateway.stop(WAIT)
    assert [(goodbye.status, goodbye.refused) for goodbye in (caller.reply() for caller in limits)] == [
        (421, "DYING")
    ] * 3
    assert all(caller.ended() for caller in limits)
    assert not any(thread.is_alive() for thread in harness.gateway.threads)
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(harness.address)
    for caller in limits:
        caller.socket.close()
    assert set(os.listdir("/proc/self/fd")) == descriptors


def test_accepted_and_unread_requests_are_refused_at_the_end() -> None:
    harness = Harness(never, 2, ASSIGNMENT, started=False)
    limits = [harness.caller() for _ in range(80)]
    for caller in limits[1:]:
        caller.send(head("POST", "/", "Content-Length: 3") + b"abc")
    limits[0].send(head()[:20])
    harness.gateway.stop(WAIT)
    for caller in limits:
        reply = caller.reply()
        assert (reply.status, reply.refused, reply.hangs_up) == (421, "DYING", True)
    harness.hang_up()


def test_a_request_that_waits_for_a_thread_at_the_end_is_refused() -> None:
    gate = Gate()
    harness = Harness(gate, 1, ASSIGNMENT)
    working, waiting = harness.caller(), harness.caller()
    working.send(head())
    assert gate.entered.acquire(timeout=WAIT)
    waiting.send(head("POST", "/", "Content-Length: 3") + b"abc")
    assert json.loads(harness.ask(PROBE).body)["in_flight"] == 2
    harness.gateway.stop(timeout=0.05)
    reply = waiting.reply()
    assert (reply.status, reply.refused) == (421, "DYING")
    gate.go.release()
    for thread in harness.gateway.threads:
        thread.join(WAIT)
    harness.hang_up()
    harness.gateway.poller.end()


def test_stop_abandons_what_does_not_end_and_hangs_up_on_it() -> None:
    gate = Gate()
    harness = Harness(gate, 2, ASSIGNMENT)
    caller = harness.caller()
    caller.send(head())
    assert gate.entered.acquire(timeout=WAIT)
    harness.gateway.stop(timeout=0.05)
    assert caller.ended()
    gate.go.release()
    for thread in harness.gateway.threads:
        thread.join(WAIT)
    assert harness.admission.in_flight == 0
    caller.socket.close()
    harness.gateway.poller.end()


# Applications that fail.


def test_a_line_that_the_fast_lane_does_not_take_is_a_502_and_said_once(
    serve: Serve, caplog: pytest.LogCaptureFixture
) -> None:
    def application(environ: dict[str, Any], start_response: Any) -> Iterator[bytes]:
        name, _, length = environ["QUERY_STRING"].partition("=")
        start_response("200 OK", [(name, "x" * (int(length) - len(name) - 2))] if name else [])
        yield b"hello"

    harness = serve(application)
    caller = harness.caller()
    fast = {"Variables": "SSL-TLS-SNI"}
    assert caller.ask(head("GET", f"/?X-Long={LONGEST_LINE}", **fast)).status == 200
    assert caller.ask(head("GET", f"/?X-Long={LONGEST_LINE + 1}")).status == 200, "the Python lane takes it"
    assert not caplog.records
    for name in ("X-Long", "X-Long", "X-Another", "X-Long"):
        reply = caller.ask(head("GET", f"/?{name}={LONGEST_LINE + 1}", **fast))
        assert (reply.status, reply.headers[name], reply.hangs_up) == (502, None, False)
    told = [record.getMessage() for record in caplog.records]
    assert len(told) == 2
    assert told[0] == (
        "GET /app/page: the answer's header X-Long is too long for the fast lane (16384 bytes of at most 16383): "
        "the visitor gets 502; shorten it, or keep this path out of the fast lane "
        "(docs/reference/fast-lane.md, Header lines)"
    )
    assert "header X-Another" in told[1]
    assert harness.still_serves()


def test_an_application_that_raises_is_a_500_and_its_traceback_is_logged(
    serve: Serve, capsys: pytest.CaptureFixture[str]
) -> None:
    def application(environ: dict[str, Any], start_response: Any) -> NoReturn:
        environ.clear()
        raise KeyError("the reason")

    caller = serve(application).caller()
    for _ in range(3):
        reply = caller.ask(head())
        assert (reply.status, reply.headers["Content-Type"]) == (500, "text/html")
        assert b"the reason" not in reply.body
    told = capsys.readouterr().err
    assert told.count("GET /app/page: the application failed") == 3
    assert "KeyError: 'the reason'" in told


@pytest.mark.parametrize(
    "error",
    [
        SystemExit(1),
        KeyboardInterrupt(),
        GeneratorExit(),
        ConnectionRefusedError("the database is down"),
        BrokenPipeError(),
        BlockingIOError(),
        TimeoutError(),
    ],
    ids=repr,
)
@pytest.mark.parametrize("started", [False, True])
def test_whatever_an_application_raises_is_a_500(
    serve: Serve, capsys: pytest.CaptureFixture[str], error: BaseException, started: bool
) -> None:
    def application(environ: dict[str, Any], start_response: Any) -> NoReturn:
        if started:
            start_response("200 OK", [("Content-Length", "5")])
        raise error

    harness = serve(application)
    caller = harness.caller()
    for _ in range(harness.admission.threads + 2):
        assert caller.ask(head()).status == 500
    assert type(error).__name__ in capsys.readouterr().err


@pytest.mark.parametrize(
    ("status", "headers", "blocks"),
    [
        ("OK", [], [b"x"]),
        ("200 OK", [("X", "a\r\nSet-Cookie: b=c")], [b"x"]),
        ("200 OK", [("Content-Length", "many")], [b"x"]),
        ("200 OK", [], ["text"]),
        ("200 OK", [], [None]),
        ("200 OK", [], None),
    ],
)
def test_a_wrong_answer_is_a_500(
    serve: Serve, capsys: pytest.CaptureFixture[str], status: str, headers: list[tuple[str, str]], blocks: Any
) -> None:
    def application(environ: dict[str, Any], start_response: Any) -> Any:
        start_response(status, headers)
        return blocks

    caller = serve(application).caller()
    for _ in range(3):
        reply = caller.ask(head())
        assert (reply.status, reply.headers["Set-Cookie"]) == (500, None)
    assert "Traceback" in capsys.readouterr().err


def still_takes(caller: Caller) -> None:
    """Only the other side's half has ended: whoever is alive, and has failed, can be told from one that is gone."""
    for _ in range(3):
        caller.send(b"x")
    error = caller.socket.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
    poll = select.poll()
    poll.register(caller.socket, select.POLLIN)
    assert (error, poll.poll(50)[0][1] & (select.POLLHUP | select.POLLERR)) == (0, 0)


def test_an_application_that_fails_within_its_answer_breaks_it_off(
    serve: Serve, capsys: pytest.CaptureFixture[str]
) -> None:
    def application(environ: dict[str, Any], start_response: Any) -> Iterator[bytes]:
        start_response("200 OK", [])
        yield b"begun"
        raise KeyError("the reason")

    harness = serve(application)
    caller = harness.caller()
    with pytest.raises(http.client.IncompleteRead):
        caller.ask(head())
    assert caller.ended()
    still_takes(caller)
    assert "KeyError: 'the reason'" in capsys.readouterr().err
    caller.socket.close()
    until(lambda: not harness.gateway.callers.by_descriptor)


def test_an_answer_shorter_than_its_length_is_broken_off(serve: Serve, caplog: pytest.LogCaptureFixture) -> None:
    def application(environ: dict[str, Any], start_response: Any) -> list[bytes]:
        start_response("200 OK", [("Content-Length", "10")])
        return [b"short"]

    caller = serve(application).caller()
    with pytest.raises(http.client.IncompleteRead):
        caller.ask(head())
    assert caller.ended()
    still_takes(caller)
    assert "GET /app/page: the answer is 5 bytes shorter than its Content-Length" in caplog.text


def test_an_answer_without_a_byte_of_its_length_is_a_500(serve: Serve, caplog: pytest.LogCaptureFixture) -> None:
    def application(environ: dict[str, Any], start_response: Any) -> list[bytes]:
        start_response("200 OK", [("Content-Length", "5")])
        return []

    caller = serve(application).caller()
    assert [caller.ask(head()).status for _ in range(3)] == [500] * 3
    assert "GET /app/page: not one byte of 5 that Content-Length says" in caplog.text


def test_an_answer_longer_than_its_length_is_cut_and_the_next_one_is_whole(serve: Serve) -> None:
    def application(environ: dict[str, Any], start_response: Any) -> list[bytes]:
        start_response("200 OK", [("Content-Length", "5")])
        return [b"hello", b"HTTP/1.1 200 OK\r\n\r\n"]

    caller = serve(application).caller()
    assert [caller.ask(head()).body for _ in range(3)] == [b"hello"] * 3


def test_an_application_that_fails_in_close_does_not_spoil_the_answer(
    serve: Serve, capsys: pytest.CaptureFixture[str]
) -> None:
    class Blocks:
        def __iter__(self) -> Iterator[bytes]:
            yield b"hello"

        def close(self) -> None:
            raise KeyError("in close")

    def application(environ: dict[str, Any], start_response: Any) -> Blocks:
        start_response("200 OK", [])
        return Blocks()

    harness = serve(application)
    assert harness.ask(head()).body == b"hello"
    assert harness.admission.wait_idle(WAIT)
    assert "in close" in capsys.readouterr().err


def test_a_log_that_cannot_be_written_costs_no_answer(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    class Full:
        def write(self, text: str) -> NoReturn:
            raise OSError("no space left on device")

    def application(environ: dict[str, Any], start_response: Any) -> NoReturn:
        raise KeyError

    harness = serve(application)
    monkeypatch.setattr(sys, "stderr", Full())
    assert harness.ask(head()).status == 500


# Callers that leave.


@pytest.mark.parametrize(
    "data",
    [b"", head()[:20], head("POST", "/", "Content-Length: 9", Generation="16") + b"x", b"no HTTP"],
    ids=["before the head", "within the head", "within a refused body", "no HTTP"],
)
@pytest.mark.parametrize("how", ["reset", "end"])
def test_a_caller_that_leaves_before_the_application_is_called_leaves_nothing(
    serve: Serve, data: bytes, how: str
) -> None:
    harness = serve(hello)
    for _ in range(harness.admission.threads + 2):
        caller = harness.caller()
        caller.send(data)
        if how == "reset":
            caller.reset()
        else:
            caller.socket.close()
    assert harness.still_serves()


@pytest.mark.parametrize("how", ["reset", "end"])
@pytest.mark.parametrize("catches", [True, False])
def test_a_caller_that_leaves_within_the_body_ends_the_read(
    serve: Serve, capsys: pytest.CaptureFixture[str], how: str, catches: bool
) -> None:
    reading = threading.Semaphore(0)
    raised: list[BaseException] = []

    def application(environ: dict[str, Any], start_response: Any) -> list[bytes]:
        if environ["REQUEST_METHOD"] == "POST":
            reading.release()
            try:
                environ["wsgi.input"].read()
            except OSError as error:
                raised.append(error)
                if not catches:
                    raise
        return hello(environ, start_response)

    harness = serve(application)
    for _ in range(harness.admission.threads + 2):
        caller = harness.caller()
        caller.send(head("POST", "/", "Content-Length: 9") + b"x")
        assert reading.acquire(timeout=WAIT)
        if how == "reset":
            caller.reset()
        else:
            caller.socket.close()
    assert harness.still_serves()
    assert len(raised) == harness.admission.threads + 2
    assert "Traceback" not in capsys.readouterr().err


@pytest.mark.parametrize("how", ["reset", "end"])
def test_a_caller_that_leaves_within_the_answer_ends_the_application(
    serve: Serve, capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture, how: str
) -> None:
    closed = threading.Semaphore(0)

    class Endless:
        def __iter__(self) -> Iterator[bytes]:
            while True:
                yield b"x" * 65536

        def close(self) -> None:
            closed.release()

    def application(environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        if environ["REQUEST_METHOD"] == "GET":
            return hello(environ, start_response)
        start_response("200 OK", [])
        return Endless()

    caplog.set_level(logging.INFO)
    harness = serve(application)
    for _ in range(harness.admission.threads + 2):
        caller = harness.caller()
        caller.send(head("POST", "/"))
        assert caller.socket.recv(65536).startswith(b"HTTP/1.1 200 OK")
        if how == "reset":
            caller.reset()
        else:
            caller.socket.close()
        assert closed.acquire(timeout=WAIT)
    assert harness.still_serves()
    assert "the caller went away" in caplog.text
    assert "Traceback" not in capsys.readouterr().err + caplog.text


def test_a_caller_that_leaves_while_its_request_waits_leaves_nothing(serve: Serve) -> None:
    gate = Gate()
    harness = serve(gate, threads=1)
    harness.caller().send(head())
    assert gate.entered.acquire(timeout=WAIT)
    for _ in range(5):
        caller = harness.caller()
        caller.send(head())
        caller.reset()
    gate.go.release(7)
    assert harness.still_serves()


def test_a_caller_that_takes_nothing_is_given_up(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(accept, "_TIMEVAL", struct.pack("@ll", 0, 50_000))

    def application(environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        if environ["REQUEST_METHOD"] == "GET":
            return hello(environ, start_response)
        start_response("200 OK", [])
        return iter(lambda: b"x" * 65536, b"")

    harness = serve(application)
    caller = harness.caller()
    caller.send(head("POST", "/"))
    assert harness.still_serves()


# Shortages.


class Shortage:
    """While it lasts, this process has no descriptor left."""

    def __init__(self) -> None:
        self.limits = resource.getrlimit(resource.RLIMIT_NOFILE)
        self.fillers: list[int] = []

    def __enter__(self) -> Shortage:
        highest = max(int(name) for name in os.listdir("/proc/self/fd"))
        resource.setrlimit(resource.RLIMIT_NOFILE, (highest + 20, self.limits[1]))
        with contextlib.suppress(OSError):
            while True:
                self.fillers.append(os.open("/dev/null", os.O_RDONLY))
        return self

    def __exit__(self, *_: object) -> None:
        for filler in self.fillers:
            os.close(filler)
        resource.setrlimit(resource.RLIMIT_NOFILE, self.limits)


@pytest.fixture
def unconnected() -> Iterator[list[socket.socket]]:
    """Sockets that are there before descriptors run out."""
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(30)]
        for one in sockets:
            one.settimeout(WAIT)
        yield sockets


def test_it_survives_a_lack_of_descriptors(
    serve: Serve,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    unconnected: list[socket.socket],
) -> None:
    """The probe and whoever has a key are let in all the while; it is said when it begins, and when it is over."""
    monkeypatch.setattr(accept, "ACCEPT_PAUSE", 0.1)
    caplog.set_level(logging.INFO)
    harness = serve(hello)
    kept = [harness.caller() for _ in range(5)]
    assert [caller.ask(head()).status for caller in kept] == [200] * 5
    with Shortage():
        for one in unconnected[:6]:
            one.connect(harness.address)
            one.sendall(PROBE)
            assert one.recv(65536).startswith(b"HTTP/1.1 200 OK")
            one.sendall(head())
            assert one.recv(65536).startswith(b"HTTP/1.1 200 OK")
        assert [caller.ask(head()).status for caller in kept] == [200] * 5, "the reserve was enough"
        assert caplog.text.count("cannot take connections") == 1
        assert "there are descriptors again" not in caplog.text
    until(lambda: "there are descriptors again" in caplog.text)
    assert harness.gateway.acceptor.reserve.left == accept.RESERVE
    assert harness.still_serves()
    assert caplog.text.count("cannot take connections") == 1


def test_without_descriptors_unknown_callers_make_room_for_each_other_and_for_known_ones(
    serve: Serve, monkeypatch: pytest.MonkeyPatch, unconnected: list[socket.socket]
) -> None:
    monkeypatch.setattr(accept, "ACCEPT_PAUSE", 0.1)
    harness = serve(hello)
    kept = harness.caller()
    assert kept.ask(head()).status == 200
    with Shortage():
        for unknown in unconnected[:29]:
            unknown.connect(harness.address)
        last = unconnected[29]
        last.connect(harness.address)
        last.sendall(head())
        assert last.recv(65536).startswith(b"HTTP/1.1 200 OK")
        assert kept.ask(head()).status == 200
    assert harness.still_serves()


def test_when_the_reserve_is_used_up_an_idle_caller_gets_busy_and_is_closed(
    serve: Serve, monkeypatch: pytest.MonkeyPatch, unconnected: list[socket.socket]
) -> None:
    """As adaptors know it: an answer that nobody asked for makes them throw the connection away."""
    monkeypatch.setattr(accept, "ACCEPT_PAUSE", 0.1)
    harness = serve(hello)
    kept = [harness.caller() for _ in range(2)]
    assert [caller.ask(head()).status for caller in kept] == [200] * 2
    with Shortage():
        for one in unconnected[: accept.RESERVE + 1]:
            one.connect(harness.address)
            one.sendall(head())
            assert one.recv(65536).startswith(b"HTTP/1.1 200 OK")
        goodbye = kept[0].reply()
        assert (goodbye.status, goodbye.refused, goodbye.hangs_up) == (421, "BUSY", True)
        assert kept[0].ended()
        assert kept[1].ask(head()).status == 200
    assert harness.still_serves()


def test_without_descriptor_reserve_or_idle_caller_connections_wait(
    serve: Serve,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    unconnected: list[socket.socket],
) -> None:
    monkeypatch.setattr(accept, "ACCEPT_PAUSE", 0.1)
    gate = Gate()
    harness = serve(gate, threads=2)
    working = harness.caller()
    working.send(head())
    assert gate.entered.acquire(timeout=WAIT)
    harness.gateway.acceptor.reserve.close()
    with Shortage():
        for one in unconnected[:3]:
            one.connect(harness.address)
            one.sendall(PROBE)
        until(lambda: harness.gateway.acceptor.paused)
        gate.go.release()
        assert working.reply().status == 200
        assert caplog.text.count("cannot take connections") == 1
    for one in unconnected[:3]:
        assert one.recv(65536).startswith(b"HTTP/1.1 200 OK")
    gate.go.release(10)
    assert harness.still_serves()


def test_after_a_pause_listening_is_taken_up_again_though_it_fails_at_first(
    serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(own_errors, "PAUSE", 0.001)
    harness = serve(hello)
    gateway = harness.gateway
    (listener,) = gateway._listeners
    known = harness.caller()
    assert known.ask(head()).status == 200
    failures = iter([True])
    acceptor, add = gateway.acceptor, gateway.poller.add

    def fails_once(sock: socket.socket) -> None:
        if next(failures, False):
            raise OSError(12, "Cannot allocate memory")
        add(sock)

    monkeypatch.setattr(gateway.poller, "add", fails_once)
    gateway.poller.remove(listener)
    acceptor._accept_at = acceptor.check_at = time.monotonic()
    assert known.ask(head()).status == 200
    gateway.poller.wake()
    until(lambda: not acceptor.paused)
    assert harness.still_serves()


def test_a_limit_below_the_descriptors_in_use_costs_no_caller(
    serve: Serve,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    unconnected: list[socket.socket],
) -> None:
    """An application may set it for itself. To close connections would make no room: who is there is served on."""
    monkeypatch.setattr(accept, "ACCEPT_PAUSE", 0.1)
    harness = serve(hello)
    kept = [harness.caller() for _ in range(2)]
    assert [caller.ask(head()).status for caller in kept] == [200] * 2
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (3, hard))
    try:
        unconnected[0].connect(harness.address)
        unconnected[0].sendall(head())
        until(lambda: harness.gateway.acceptor.paused)
        assert [caller.ask(head()).status for caller in kept] == [200] * 2
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert unconnected[0].recv(65536).startswith(b"HTTP/1.1 200 OK")
    assert [caller.ask(head()).status for caller in kept] == [200] * 2
    assert caplog.text.count("cannot take connections") == 1
    assert "an error in" not in caplog.text
    assert harness.still_serves()


@pytest.mark.parametrize("error", [MemoryError, RecursionError, OSError])
@pytest.mark.parametrize("where", ["receive", "admit", "_environ", "headers", "record", "begin", "end", "log"])
def test_an_error_of_our_own_costs_a_connection_at_most(
    serve: Serve, monkeypatch: pytest.MonkeyPatch, where: str, error: type[Exception], schedule_name: str
) -> None:
    """Memory may run out anywhere. No thread ends, no place is lost, and then all is as before."""
    if where == "record" and schedule_name == "plain":
        pytest.skip("it does not record how long requests last")
    monkeypatch.setattr(own_errors, "PAUSE", 0.001)
    harness = serve(hello)
    assert harness.ask(head()).status == 200
    failures = 4
    owner: Any = {
        "receive": dispatch.Connection,
        "admit": harness.admission,
        "_environ": harness.gateway.serving,
        "headers": harness.status,
        "record": getattr(harness.gateway.schedule, "leadership", None),
        "begin": harness.admission,
        "end": harness.admission,
        "log": own_errors.log,
    }[where]
    name = "exception" if where == "log" else where
    whole = getattr(owner, name)

    def fails(*arguments: Any) -> Any:
        nonlocal failures
        if failures:
            failures -= 1
            if where == "end":
                whole(*arguments)
            raise error("for a moment")
        return whole(*arguments)

    monkeypatch.setattr(owner, name, fails)
    if where == "log":
        monkeypatch.setattr(harness.admission, "admit", lambda *_: 1 / 0)
    for _ in range(8):
        caller = harness.caller()
        with contextlib.suppress(OSError, http.client.HTTPException):
            caller.ask(head())
    monkeypatch.undo()
    until(lambda: not harness.admission.in_flight)
    assert all(thread.is_alive() for thread in harness.gateway.threads)
    assert harness.ask(head()).status == 200
    assert harness.admission.wait_idle(WAIT), "its answer is out before its thread is done"
    assert json.loads(harness.ask(PROBE).body)["in_flight"] == 0


# Strangers.


@pytest.fixture
def short_limit(monkeypatch: pytest.MonkeyPatch) -> float:
    monkeypatch.setattr(limits, "TIME_LIMIT", 0.3)
    return 0.3


@pytest.mark.parametrize(
    "data",
    [b"", head()[:40], head(Key="wrong"), head(Generation="16"), b"POST / HTTP/1.1\r\nContent-Length: 9\r\n\r\nx"],
    ids=["nothing", "half a head", "a wrong key", "another generation", "half a body"],
)
def test_an_unknown_caller_has_a_time_limit(serve: Serve, short_limit: float, data: bytes) -> None:
    harness = serve(hello)
    known = harness.caller()
    assert known.ask(head()).status == 200
    unknown = harness.caller()
    began = time.monotonic()
    unknown.send(data)
    while unknown.socket.recv(65536):
        pass
    assert time.monotonic() - began < WAIT / 2
    assert known.ask(head()).status == 200, "it was idle for longer than that"
    assert len(harness.gateway.callers.by_descriptor) == 1


def test_a_head_that_comes_slowly_has_no_longer(serve: Serve, short_limit: float) -> None:
    harness = serve(hello)
    for known in (True, False):
        caller = harness.caller()
        if known:
            assert caller.ask(head()).status == 200
        dribble = itertools.cycle(b"X")
        caller.send(b"GET / HTTP/1.1\r\nX: ")
        poll = select.poll()
        poll.register(caller.socket, select.POLLIN)
        began = time.monotonic()
        while not poll.poll(10):
            caller.send(bytes([next(dribble)]))
        assert 0.2 < time.monotonic() - began < WAIT / 2


def test_a_known_callers_head_may_come_in_two_pieces(serve: Serve) -> None:
    harness = serve(hello)
    caller = harness.caller()
    for _ in range(3):
        caller.send(head()[:100])
        until(lambda: bool(harness.gateway.callers.limited))
        assert caller.ask(head()[100:]).status == 200
        assert not harness.gateway.callers.limited


@pytest.mark.parametrize(
    ("wrong", "status"), [({"Generation": "16"}, 421), ({"Key": "wrong"}, 403), ({"Path": "%"}, 421)]
)
def test_a_refused_request_that_came_in_two_pieces_leaves_no_time_limit(
    serve: Serve, wrong: dict[str, str], status: int
) -> None:
    """A known caller's idle connection must not be closed: its next request could come at that moment."""
    harness = serve(hello)
    caller = harness.caller()
    assert caller.ask(head()).status == 200
    request = head(**wrong)
    caller.send(request[:100])
    until(lambda: bool(harness.gateway.callers.limited))
    assert caller.ask(request[100:]).status == status
    assert not harness.gateway.callers.limited
    assert not harness.gateway.callers._unfinished


def test_an_unknown_callers_time_does_not_begin_again_with_each_refusal(serve: Serve, short_limit: float) -> None:
    harness = serve(hello)
    caller = harness.caller()
    request = head("POST", "/", "Content-Length: 1", Key="wrong")
    caller.send(request)
    deadline = time.monotonic() + WAIT / 2
    with contextlib.suppress(http.client.BadStatusLine, ConnectionError):
        while time.monotonic() < deadline:
            assert caller.reply().status == 403
            caller.send(b"x" + request)
    assert time.monotonic() < deadline, "the connection was closed"


def test_a_caller_that_does_not_hang_up_is_closed(serve: Serve, short_limit: float) -> None:
    def application(environ: dict[str, Any], start_response: Any) -> Iterator[bytes]:
        start_response("200 OK", [("Content-Length", "10")])
        yield b"short"

    harness = serve(application)
    limits = [harness.caller() for _ in range(3)]
    for caller in limits:
        caller.send(head())
        assert b"short" in caller.socket.recv(65536)
    until(lambda: not harness.gateway.callers.by_descriptor)
    assert not harness.gateway.callers.limited


def test_the_eldest_unknown_caller_makes_room_and_known_ones_stay(
    serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "MAX_UNKNOWN", 10)
    harness = serve(hello)
    known = harness.caller()
    assert known.ask(head()).status == 200
    unknown = []
    for _ in range(30):
        unknown.append(harness.caller())
        unknown[-1].send(b"GET")
        if len(unknown) > 10:
            assert unknown[len(unknown) - 11].ended()
    assert [caller.ask(head()[3:]).status for caller in unknown[20:]] == [200] * 10
    assert known.ask(head()).status == 200


def test_unknown_callers_at_the_port_close_none_at_the_unix_socket(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "MAX_UNKNOWN", 10)
    status = Status(0, 17, Admission(2, 4))
    listeners = [socket.create_server(("127.0.0.1", 0)), socket.socket(socket.AF_UNIX)]
    listeners[1].bind(str(tmp_path / "0"))
    gateway = Gateway(listeners, hello, ASSIGNMENT, status, SessionTable(1800.0))
    gateway.start()
    with contextlib.ExitStack() as stack:
        at_unix = []
        for _ in range(10):
            at_unix.append(stack.enter_context(socket.socket(socket.AF_UNIX)))
            at_unix[-1].settimeout(WAIT)
            at_unix[-1].connect(str(tmp_path / "0"))
        at_port = [stack.enter_context(socket.create_connection(listeners[0].getsockname(), WAIT)) for _ in range(30)]
        assert at_port[0].recv(1) == b""
        for caller in at_unix:
            caller.sendall(head())
            assert caller.recv(1000).startswith(b"HTTP/1.1 200 ")
        gateway.stop(WAIT)


def test_the_memory_of_unknown_callers_is_bounded(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "MAX_UNFINISHED", 1_000_000)
    harness = serve(hello)
    unknown = []
    for _ in range(20):
        unknown.append(harness.caller())
        with contextlib.suppress(OSError):
            unknown[-1].send(b"GET / HTTP/1.1\r\nX: " + b"x" * 200_000)
    until(lambda: len(harness.gateway.callers.by_descriptor) == 4)
    assert harness.ask(head("GET", "/", f"X: {'x' * 500_000}")).status == 200, "whoever has a key comes first"
    assert sum(connection.unfinished for connection in harness.gateway.callers.by_descriptor.values()) <= 1_000_000


def test_a_head_as_large_as_apache_lets_through_is_accepted(serve: Serve) -> None:
    """LimitRequestFields 100, LimitRequestFieldSize 8190."""
    harness = serve(seen)
    fields = [f"X-Field-{number}: {'x' * 8160}" for number in range(100)]
    caller = harness.caller()
    for _ in range(2):
        environ = json.loads(caller.ask(head("GET", "/", *fields)).body)
        assert len([name for name in environ if name.startswith("HTTP_X_FIELD_")]) == 100


def test_a_head_of_too_many_lines_is_refused(serve: Serve) -> None:
    harness = serve(hello)
    reply = harness.ask(head("GET", "/", *(["a: b"] * 10_000)))
    assert (reply.status, reply.hangs_up) == (431, True)


def test_a_head_in_many_pieces_costs_no_more_than_in_one(serve: Serve) -> None:
    """What was looked through is not looked through again."""
    harness = serve(hello)
    caller = harness.caller()
    data = head("GET", "/", *(f"X-{number}: {'x' * 8000}" for number in range(100)))
    began = time.process_time()
    for place in range(0, len(data), 100):
        caller.send(data[place : place + 100])
    assert caller.reply().status == 200
    assert time.process_time() - began < 3.0


def test_alone_a_caller_that_has_asked_may_be_idle(serve: Serve, short_limit: float) -> None:
    harness = serve(hello, assignment=Assignment("", session_cookie="_SID_"))
    caller, silent = harness.caller(), harness.caller()
    assert caller.ask(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n").status == 200
    assert silent.ended()
    assert caller.ask(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n").status == 200


@pytest.mark.filterwarnings("ignore:.*multi-threaded.*:DeprecationWarning")  # what Python 3.12 thinks of it
def test_a_child_needs_no_lock_that_another_thread_holds(serve: Serve) -> None:
    statuses: list[int] = []

    def application(environ: dict[str, Any], start_response: Any) -> list[bytes]:
        if child := os.fork():
            statuses.append(os.waitpid(child, 0)[1])
        else:
            start_response("200 OK", [("Set-Cookie", "_SID_=x")])
            return [b"the child's"]
        return hello(environ, start_response)

    harness = serve(application)
    caller = harness.caller()
    gateway = harness.gateway
    locks = [gateway.poller.lock, harness.sessions._lock, gateway.callers._lock, harness.status.cookies._lock]
    with contextlib.ExitStack() as stack:
        caller.send(head())
        until(lambda: harness.admission.in_flight == 1 or bool(statuses))
        for lock in locks:
            stack.enter_context(lock)
        until(lambda: bool(statuses))
    assert caller.reply().body == b"hello"
    assert statuses == [0]


@contextlib.contextmanager
def closed_at_work(harness: Harness) -> Iterator[dispatch.Connection]:
    """A connection whose request is at work, and that has just been closed."""
    ours, theirs = socket.socketpair()
    with theirs:
        connection = dispatch.Connection(ours, None)
        connection.state = REQUEST
        harness.gateway.poller.close(connection)
        yield connection


def test_a_connection_may_be_closed_while_it_is_taken_out_of_the_poll(
    serve: Serve, capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    """The serving thread is first. It is the leader's part that must not raise."""
    harness = serve(hello)
    with closed_at_work(harness) as connection:
        harness.gateway.dispatcher.readable(connection)
        harness.gateway.poller.close(connection)
    assert caplog.text == ""
    assert harness.still_serves()


def test_an_answer_on_a_connection_that_is_closed_leaves_no_time_limit(serve: Serve, short_limit: float) -> None:
    """A limit that nothing removes has always just ended: the thread that polls would never sleep again."""
    harness = serve(hello)
    with closed_at_work(harness) as connection:
        harness.gateway.dispatcher.answered(connection)
        assert connection not in harness.gateway.callers.limited
        harness.gateway.callers.limit(connection)  # as by a thread that has found it open just before
        assert harness.still_serves()
        until(lambda: connection not in harness.gateway.callers.limited)


def test_an_error_after_the_answer_does_not_close_the_connection(
    serve: Serve, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Another thread may serve its next request by then."""

    class Body(list[bytes]):
        def close(self) -> None:
            raise ValueError("after the last byte")

    def application(environ: dict[str, Any], start_response: Any) -> list[bytes]:
        start_response("200 OK", [])
        return Body([b"hello"])

    def fail(*_: object) -> None:
        raise MemoryError

    harness = serve(application)
    monkeypatch.setattr(harness.gateway.serving, "_failed", fail)
    caller = harness.caller()
    assert caller.ask(head()).body == b"hello"
    assert harness.admission.wait_idle(WAIT)
    assert "an error after an answer was sent" in caplog.text
    assert caller.ask(head()).body == b"hello"


@pytest.mark.filterwarnings("ignore:.*multi-threaded.*:DeprecationWarning")  # what Python 3.12 thinks of it
def test_a_forked_child_of_the_application_does_not_hold_the_callers_connection(serve: Serve) -> None:
    read, write = os.pipe()
    children: list[int] = []

    def application(environ: dict[str, Any], start_response: Any) -> list[bytes]:
        child = os.fork()
        if not child:
            os.close(write)
            os.read(read, 1)
            os._exit(0)
        children.append(child)
        return hello(environ, start_response)

    try:
        caller = serve(application).caller()
        assert caller.ask(head("GET", "/", "Connection: close")).status == 200
        assert caller.ended()
    finally:
        os.close(write)
        os.close(read)
        for child in children:
            os.waitpid(child, 0)


# Alone.


def test_alone_every_request_is_served_from_the_request_line(serve: Serve) -> None:
    harness = serve(seen, assignment=Assignment("", session_cookie="_SID_"))
    environ = json.loads(harness.ask(b"GET /a%20b?c HTTP/1.1\r\nHost: x\r\nLB-Remote-User: root\r\n\r\n").body)
    assert (environ["PATH_INFO"], environ["QUERY_STRING"]) == ("/a b", "c")
    assert environ["REMOTE_ADDR"] == "127.0.0.1"
    assert environ["lbadaptor.session_lost"] is False
    assert "root" not in environ.values()


def test_alone_there_is_no_probe_and_no_ticket(serve: Serve) -> None:
    harness = serve(login, assignment=Assignment("", session_cookie="_SID_"))
    reply = harness.ask(b"GET /__lb__/status HTTP/1.1\r\nLB-Probe: \r\n\r\n")
    assert (reply.status, reply.headers.get_all("Set-Cookie")) == (200, ["_SID_=new; Path=/app"])


def test_it_serves_all_that_it_listens_on(tmp_path: Path) -> None:
    status = Status(0, 17, Admission(2, 4))
    listeners = [socket.create_server(("127.0.0.1", 0)), socket.socket(socket.AF_UNIX)]
    listeners[1].bind(str(tmp_path / "0"))
    gateway = Gateway(listeners, hello, ASSIGNMENT, status, SessionTable(1800.0))
    gateway.start()
    with contextlib.ExitStack() as limits:
        connections = [limits.enter_context(socket.socket(listener.family)) for listener in listeners]
        for connection, listener in zip(connections, listeners, strict=True):
            connection.connect(listener.getsockname())
        for connection in (*connections, *connections):
            connection.sendall(head())
            assert connection.recv(1000).startswith(b"HTTP/1.1 200 ")
        gateway.stop(WAIT)
        for connection in connections:
            assert connection.recv(1000).startswith(b"HTTP/1.1 421 "), "it takes leave of everybody"
    assert all(listener.fileno() == -1 for listener in listeners)
