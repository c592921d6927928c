"""The gateway: applications that fail, and callers that leave."""

from __future__ import annotations

import http.client
import logging
import select
import socket
import struct
import sys
import threading
from collections.abc import Iterable, Iterator
from typing import Any, NoReturn

import pytest
from gateway_stage import (
    WAIT,
    Caller,
    Gate,
    Serve,
    head,
    hello,
    until,
)

from lbadaptor.appserver.http import accept
from lbadaptor.contract.headers import LONGEST_LINE

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
