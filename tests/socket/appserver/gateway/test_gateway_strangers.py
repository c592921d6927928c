"""The gateway: strangers, and connections that are closed at a bad moment."""

from __future__ import annotations

import contextlib
import http.client
import itertools
import json
import os
import select
import socket
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from gateway_stage import (
    ASSIGNMENT,
    WAIT,
    Harness,
    Serve,
    head,
    hello,
    login,
    seen,
    until,
)

from lbadaptor.appserver.http import dispatch, limits
from lbadaptor.appserver.http.admission import Admission
from lbadaptor.appserver.http.gateway import Gateway
from lbadaptor.appserver.http.status import Status
from lbadaptor.appserver.process.messages import Assignment
from lbadaptor.appserver.sessions.table import SessionTable
from lbadaptor.http1.states import REQUEST

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
        began = time.monotonic()
        caller = harness.caller()
        if known:
            assert caller.ask(head()).status == 200
        dribble = itertools.cycle(b"X")
        caller.send(b"GET / HTTP/1.1\r\nX: ")
        poll = select.poll()
        poll.register(caller.socket, select.POLLIN)
        with contextlib.suppress(ConnectionError):  # it is closed with a byte unread
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
