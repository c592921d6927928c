"""The gateway: a real one on port 0, with scripted applications and callers."""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Iterable, Iterator
from typing import Any
from wsgiref.validate import validator

import pytest
from gateway_stage import (
    PROBE,
    WAIT,
    Gate,
    Serve,
    echo,
    head,
    hello,
    seen,
    until,
)


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
