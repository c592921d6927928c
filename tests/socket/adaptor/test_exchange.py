"""Receiving an answer from an AppServer."""

from __future__ import annotations

import io
import socket
import threading
from pathlib import Path
from typing import Any

import pytest
from exchanges import BOUND, CHUNKED, HEAD, Serve, asked, post
from scripted import PATIENCE, Step, Talk, answer, hang_up

from lbadaptor.adaptor.exchange import BLOCK, PAUSE, ExchangeFailed, Response, _receive_response, exchange
from lbadaptor.adaptor.pool import connect
from lbadaptor.adaptor.retry import Failure
from lbadaptor.adaptor.spool import EMPTY, keep
from lbadaptor.contract.address import Address
from lbadaptor.http1.response import MAX_HEAD


def in_pieces(*pieces: bytes) -> Step:
    """A step that sends pieces, each in a packet of its own as far as can be."""

    def step(talk: Talk) -> None:
        talk.read_body()
        for piece in pieces:
            talk.send(piece)

    return step


def then_close(data: bytes) -> Step:
    def step(talk: Talk) -> None:
        talk.read_body()
        talk.send(data)
        talk.close()

    return step


def then_reset(data: bytes) -> Step:
    def step(talk: Talk) -> None:
        talk.read_body()
        talk.send(data)
        talk.connection.recv(1)  # until the test has read and hung up
        talk.reset()

    return step


# How an answer's body is framed.


def test_an_answer_with_a_length(serve: Serve) -> None:
    with asked(serve, answer(b"hello", "404 Not Found")) as got:
        assert (got.status, got.status_line) == (404, "404 Not Found")
        assert b"".join(got.take(BOUND)) == b"hello"
        assert got.complete
        assert got.reusable


def test_an_answer_of_length_0_is_complete_at_once(serve: Serve) -> None:
    with asked(serve, answer(b"")) as got:
        assert got.complete
        assert got.take(BOUND) == []


def test_an_answer_in_chunks(serve: Serve) -> None:
    with asked(serve, CHUNKED + b"5\r\nhello\r\n1;x=y\r\n \r\nA\r\n0123456789\r\n0\r\nTrailer: x\r\n\r\n") as got:
        assert b"".join(got.take(BOUND)) == b"hello 0123456789"
        assert got.complete
        assert got.reusable


def test_an_answer_byte_by_byte(serve: Serve) -> None:
    data = CHUNKED + b"5\r\nhello\r\n0\r\n\r\n"
    with asked(serve, in_pieces(*(data[place : place + 1] for place in range(len(data))))) as got:
        assert b"".join(got.blocks) == b"hello"
        assert got.complete


def test_an_answer_until_the_connection_is_closed_leaves_none_to_reuse(serve: Serve) -> None:
    with asked(serve, then_close(answer(b"hello", framing=""))) as got:
        assert b"".join(got.take(BOUND)) == b"hello"
        assert got.complete
        assert not got.reusable


@pytest.mark.parametrize(
    ("method", "data"),
    [
        ("HEAD", answer(b"", framing="Content-Length: 1000")),
        ("HEAD", CHUNKED),
        ("GET", answer(b"", "204 No Content", framing="")),
        ("GET", answer(b"", "304 Not Modified", framing="Content-Length: 1000")),
    ],
)
def test_an_answer_without_a_body_is_complete_whatever_its_length_says(
    serve: Serve, method: str, data: bytes
) -> None:
    with asked(serve, data, method) as got:
        assert got.complete
        assert got.reusable
        assert got.take(BOUND) == []


@pytest.mark.parametrize(
    "data",
    [
        answer(b"hello") + b"HTTP/1.1 200 OK\r\n\r\n",
        answer(b"", "204 No Content", framing="") + b"hello",
        CHUNKED + b"0\r\n\r\nmore",
    ],
)
def test_unrequested_bytes_make_the_connection_useless(serve: Serve, data: bytes) -> None:
    with asked(serve, data) as got:
        assert b"".join(got.take(BOUND)) in (b"hello", b"")
        assert got.complete
        assert not got.reusable


@pytest.mark.parametrize("line", ["Connection: close", "connection: Keep-Alive, Close"])
def test_a_connection_that_will_be_closed_is_not_reused(serve: Serve, line: str) -> None:
    with asked(serve, answer(b"hello", "200 OK", line)) as got:
        got.take(BOUND)
        assert got.complete
        assert not got.reusable


def test_an_answer_in_http_1_0_is_the_last_on_its_connection(serve: Serve) -> None:
    with asked(serve, answer().replace(b"HTTP/1.1", b"HTTP/1.0")) as got:
        assert b"".join(got.take(BOUND)) == b"hello"
        assert not got.reusable


@pytest.mark.parametrize(
    "interim", [b"HTTP/1.1 100 Continue\r\n\r\n", b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n"]
)
def test_interim_answers_are_passed_over(serve: Serve, interim: bytes) -> None:
    with asked(serve, interim * 3 + answer()) as got:
        assert got.status == 200
        assert "link" not in {name.lower() for name, _ in got.headers}
        assert b"".join(got.take(BOUND)) == b"hello"
        assert got.reusable


def test_headers_keep_order_spelling_and_repetition(serve: Serve) -> None:
    lines = ["X-B: 1", "set-cookie: a=1", "Set-Cookie:b=2\t", "X-A: \xe4", "X-Empty:"]
    with asked(serve, answer(b"", "200 OK", *lines).decode().encode("latin-1")) as got:
        assert got.headers[:5] == [
            ("X-B", "1"),
            ("set-cookie", "a=1"),
            ("Set-Cookie", "b=2"),
            ("X-A", "\xe4"),
            ("X-Empty", ""),
        ]


def test_a_status_without_a_reason(serve: Serve) -> None:
    with asked(serve, answer(b"", "200")) as got:
        assert (got.status, got.status_line) == (200, "200 ")


# Answers that are none.


@pytest.mark.parametrize(
    "data",
    [
        b"SSH-2.0-OpenSSH_9.2p1\r\n",
        b"\x16\x03\x01\x02\x00",
        b"<html>",
        b"HTTP/2 200 OK\r\n\r\n",
        b"HTTP/1.1 20 OK\r\n\r\n",
        b"HTTP/1.1 999 OK\r\n\r\n",
        b"HTTP/1.1 2000 OK\r\n\r\n",
        b"HTTP/1.1 200 O\0K\r\n\r\n",
        b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nno colon\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nX : space\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nX: a\r\n folded\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nX: a\nSet-Cookie: b=c\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nX: a\rSet-Cookie: b=c\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nX: a\0b\r\n\r\n",
        b"HTTP/1.1 200 OK\r\n: empty\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 5, 5\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: +5\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: \xb2\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: \r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: %b\r\n\r\n" % (b"9" * 5000),
        b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n",
    ],
    ids=repr,
)
def test_what_is_no_http_answer_is_not_believed(serve: Serve, data: bytes) -> None:
    with pytest.raises(ExchangeFailed) as caught, asked(serve, data):
        pass
    assert caught.value.failure is Failure.NOT_HTTP


def test_a_large_head_within_the_bound_is_taken(serve: Serve) -> None:
    with asked(serve, answer(b"hello", "200 OK", f"X: {'x' * (MAX_HEAD - 1000)}")) as got:
        assert b"".join(got.take(BOUND)) == b"hello"


# By a Unix socket, the kernel tells whether a process that is gone had read the request.


@pytest.mark.parametrize("request_", ["GET", "POST", "POST with a body"])
@pytest.mark.parametrize(
    ("fate", "failure"), [("in the backlog", Failure.UNREAD), ("unread", Failure.UNREAD), ("read", Failure.LOST)]
)
def test_a_request_that_was_not_read_never_began(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fate: str, failure: Failure, request_: str
) -> None:
    method = request_.split()[0]
    body = keep(io.BytesIO(b"x" * 20), 20, 1000, 1000, "") if "body" in request_ else EMPTY
    receive, path = _receive_response, str(tmp_path / "socket")
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(path)
        listener.listen()

        def then(*arguments: Any) -> Response:
            """The request is sent: what becomes of the peer, and then the answer."""
            if fate != "in the backlog":
                with listener.accept()[0] as accepted:
                    accepted.recv(65536, socket.MSG_PEEK if fate == "unread" else 0)
            listener.close()
            return receive(*arguments)

        monkeypatch.setattr("lbadaptor.adaptor.exchange._receive_response", then)
        head = HEAD if method == "GET" else post(body.length)
        appserver = Address("127.0.0.1", 1)
        with connect(appserver, path, 2, PATIENCE) as connection, pytest.raises(ExchangeFailed) as caught:
            exchange(connection, method, head, body)
    assert caught.value.failure is (Failure.LOST if "body" in request_ else failure)


# Connections that are lost.


@pytest.mark.parametrize("step", [hang_up, lambda talk: talk.reset()])
def test_lost_before_the_first_byte(serve: Serve, step: Step) -> None:
    with pytest.raises(ExchangeFailed) as caught, asked(serve, step):
        pass
    assert caught.value.failure is Failure.LOST


@pytest.mark.parametrize("data", [b"H", b"HTTP/1.1 200 OK\r\n", b"HTTP/1.1 200 OK\r\nX: y\r\n\r"])
def test_lost_within_the_head(serve: Serve, data: bytes) -> None:
    with pytest.raises(ExchangeFailed) as caught, asked(serve, then_close(data)):
        pass
    assert caught.value.failure is Failure.BROKEN


@pytest.mark.parametrize(
    "data",
    [
        answer(b"hello", framing="Content-Length: 6"),
        CHUNKED,
        CHUNKED + b"5",
        CHUNKED + b"5\r\nhel",
        CHUNKED + b"5\r\nhello",
        CHUNKED + b"5\r\nhello\r\n",
        CHUNKED + b"5\r\nhello\r\n0\r\n",
        CHUNKED + b"5\r\nhello\r\n0\r\nX: y\r\n",
        CHUNKED + b"3\r\nhello\r\n0\r\n\r\n",
        CHUNKED + b"-5\r\nhello\r\n0\r\n\r\n",
        CHUNKED + b"0x5\r\nhello\r\n0\r\n\r\n",
        CHUNKED + b"1_0\r\n0123456789abcdef\r\n0\r\n\r\n",
        CHUNKED + b"\r\nhello\r\n0\r\n\r\n",
        CHUNKED + b"fffffffffffffffff\r\nhello\r\n0\r\n\r\n",
        CHUNKED + b"5" * (MAX_HEAD + BLOCK),
    ],
    ids=lambda data: repr(data[-40:]),
)
def test_a_body_that_is_broken_off_or_malformed_is_never_taken_for_whole(serve: Serve, data: bytes) -> None:
    with asked(serve, then_close(data)) as got:
        with pytest.raises(ExchangeFailed) as caught:
            b"".join(got.blocks)
        assert caught.value.failure is Failure.BROKEN
        assert not got.complete


def test_a_body_that_is_reset_within_is_broken(serve: Serve) -> None:
    go = threading.Event()

    def step(talk: Talk) -> None:
        talk.send(answer(b"hello", framing="Content-Length: 1000"))
        go.wait(PATIENCE)
        talk.reset()

    with asked(serve, step) as got:
        assert next(got.blocks) == b"hello"
        go.set()
        with pytest.raises(ExchangeFailed) as caught:
            next(got.blocks)
        assert caught.value.failure is Failure.BROKEN


@pytest.mark.parametrize("data", [b"", b"HTTP/1.1 200 OK\r\n", answer(b"hello", framing="Content-Length: 6")])
def test_a_stall_is_silence(serve: Serve, data: bytes) -> None:
    done = threading.Event()

    def step(talk: Talk) -> None:
        talk.send(data)
        done.wait(PATIENCE)

    with pytest.raises(ExchangeFailed) as caught, asked(serve, step, timeout=0.1) as got:
        b"".join(got.blocks)
    done.set()
    assert caught.value.failure is Failure.SILENT


# Taking over and streaming.


def test_no_more_is_taken_over_than_the_bound_and_a_block(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("PAUSE", "MAX_TAKE_TIME"):  # it is no stream, however slowly it comes
        monkeypatch.setattr(f"lbadaptor.adaptor.exchange.{name}", PATIENCE)
    with asked(serve, answer(b"x" * 1_000_000)) as got:
        taken = got.take(100_000)
        assert 100_000 < sum(map(len, taken)) <= 100_000 + BLOCK
        assert not got.complete
        assert sum(map(len, taken)) + sum(map(len, got.blocks)) == 1_000_000
        assert got.complete


@pytest.mark.parametrize(
    ("first", "second", "taken", "rest"),
    [
        (CHUNKED + b"5\r\nhello\r\n", b"1\r\n!\r\n0\r\n\r\n", b"hello", b"!"),
        (CHUNKED + b"5\r\nhello", b"\r\n1\r\n!\r\n0\r\n\r\n", b"hello", b"!"),
        (CHUNKED + b"5\r\nhello\r", b"\n1\r\n!\r\n0\r\n\r\n", b"hello", b"!"),
        (answer(b"hello", framing="Content-Length: 6"), b"!", b"hello", b"!"),
        (answer(b"", framing="Content-Length: 1"), b"!", b"", b"!"),
        (CHUNKED, b"5\r\nhello\r\n0\r\n\r\n", b"", b"hello"),
    ],
)
def test_an_appserver_that_pauses_is_streamed_from_there(
    serve: Serve, first: bytes, second: bytes, taken: bytes, rest: bytes
) -> None:
    go = threading.Event()

    def step(talk: Talk) -> None:
        talk.send(first)
        assert go.wait(PATIENCE)
        talk.send(second)

    with asked(serve, step) as got:
        assert b"".join(got.take(BOUND)) == taken
        assert not got.complete
        go.set()
        assert b"".join(got.blocks) == rest
        assert got.complete
        assert got.reusable


def test_an_appserver_that_goes_on_for_long_without_a_pause_is_streamed_too(
    serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("lbadaptor.adaptor.exchange.MAX_TAKE_TIME", 0.2)
    enough = threading.Event()

    def step(talk: Talk) -> None:
        talk.send(CHUNKED)
        while not enough.wait(PAUSE / 10):
            talk.send(b"1\r\nx\r\n")
        talk.send(b"1\r\n!\r\n0\r\n\r\n")

    with asked(serve, step) as got:
        taken = got.take(BOUND)
        assert taken
        enough.set()
        assert set(taken) == {b"x"}
        assert b"".join(got.blocks).endswith(b"!")
        assert got.complete
