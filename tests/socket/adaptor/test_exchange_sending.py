"""Sending a request's body to an AppServer, and what becomes of its connection."""

from __future__ import annotations

import io
import threading
from collections.abc import Iterator

import pytest
from exchanges import BOUND, CHUNKED, HEAD, Serve, asked, post
from scripted import PATIENCE, Talk, answer, refusal

from lbadaptor.adaptor.exchange import ExchangeFailed, exchange
from lbadaptor.adaptor.pool import connect
from lbadaptor.adaptor.retry import Failure
from lbadaptor.adaptor.spool import EMPTY, Body, keep


@pytest.mark.parametrize("length", [None, 300_000])
@pytest.mark.parametrize(("memory", "spool"), [(1 << 20, 1 << 20), (1000, 1 << 20), (1000, 100_000), (1000, 0)])
def test_a_body_arrives_whole_however_it_was_kept(serve: Serve, length: int | None, memory: int, spool: int) -> None:
    data = bytes(range(256)) * 1172  # 300,032 bytes
    server = serve()
    body = keep(io.BytesIO(data[:300_000]), length, memory, spool, "")
    with connect(server.address, "", 2, 5) as connection:
        got = exchange(connection, "POST", post(body.length), body)
        assert got.status == 200
        assert b"".join(got.take(BOUND)) == b"hello"
        assert got.reusable
    body.close()
    assert server.requests[0].body == data[:300_000]


def test_a_refusal_is_seen_before_what_is_not_kept_is_sent(serve: Serve) -> None:
    refused = threading.Event()

    def step(talk: Talk) -> None:
        talk.send(refusal("DYING"))
        refused.set()
        talk.read_body()

    def never() -> Iterator[bytes]:
        raise AssertionError("the visitor was asked for more")
        yield b""

    class Patient(Body):
        def pieces(self) -> Iterator[bytes]:
            for piece in super().pieces():
                assert refused.wait(PATIENCE)
                yield piece

    body = Patient(io.BytesIO(b"x" * 200_000), 300_000, never())
    with asked(serve, step, "POST", body, head=post(300_000)) as got:
        assert (got.status, got.own.get("lb-refused")) == (421, "DYING")
        assert body.repeatable
        assert b"".join(got.take(BOUND)) == b"no\n"
        assert not got.reusable


def test_an_answer_that_comes_while_the_body_is_still_sent_does_not_cut_it(serve: Serve) -> None:
    def step(talk: Talk) -> None:
        talk.send(CHUNKED)
        size = len(talk.read_body())
        talk.send(b"6\r\n%06d\r\n0\r\n\r\n" % size)

    body = keep(io.BytesIO(b"x" * 800_000), None, 1000, 0, "")
    with asked(serve, step, "POST", body, head=post(None)) as got:
        assert b"".join([*got.take(BOUND), *got.blocks]) == b"800000"
        assert got.reusable


def test_an_answer_is_read_though_the_appserver_hung_up_within_the_body(serve: Serve) -> None:
    def step(talk: Talk) -> None:
        talk.send(answer(b"too large", "413 Content Too Large"))
        talk.close()

    body = keep(io.BytesIO(b"x" * 8_000_000), 8_000_000, 1000, 1 << 24, "")
    with asked(serve, step, "POST", body, head=post(8_000_000)) as got:
        assert got.status == 413
        assert not got.reusable
    body.close()


def test_a_connection_that_broke_as_the_body_was_sent_carries_no_other_request(serve: Serve) -> None:
    """Its answer had come just before."""
    closed = threading.Event()

    def step(talk: Talk) -> None:
        talk.send(answer(b"too large", "413 Content Too Large"))
        talk.reset()
        closed.set()

    class Patient(Body):
        def pieces(self) -> Iterator[bytes]:
            assert closed.wait(PATIENCE)
            yield from super().pieces()

    body = Patient(io.BytesIO(b"x" * 200_000), 200_000)
    with asked(serve, step, "POST", body, head=post(200_000)) as got:
        assert (got.status, got.complete, got.reusable) == (413, False, False)
        assert b"".join(got.blocks) == b"too large"
        assert not got.reusable


def test_an_appserver_that_reads_no_more_of_a_body_is_silent(serve: Serve) -> None:
    done = threading.Event()

    def step(talk: Talk) -> None:
        done.wait(PATIENCE)
        talk.close()

    body = keep(io.BytesIO(b"x" * 30_000_000), 30_000_000, 1000, 1 << 25, "")
    with (
        pytest.raises(ExchangeFailed) as caught,
        asked(serve, step, "POST", body, timeout=0.1, head=post(30_000_000)),
    ):
        pass
    done.set()
    body.close()
    assert caught.value.failure is Failure.SILENT


def test_a_connection_closed_within_a_body_without_an_answer_is_lost(serve: Serve) -> None:
    body = keep(io.BytesIO(b"x" * 8_000_000), 8_000_000, 1000, 1 << 24, "")
    with (
        pytest.raises(ExchangeFailed) as caught,
        asked(serve, lambda talk: talk.reset(), "POST", body, head=post(8_000_000)),
    ):
        pass
    body.close()
    assert caught.value.failure is Failure.LOST


def test_a_connection_that_is_gone_before_a_byte_was_sent_is_unsent(serve: Serve) -> None:
    server = serve(lambda talk: talk.reset())
    with connect(server.address, "", 2, 5) as connection:
        connection.sendall(HEAD)
        with pytest.raises(ConnectionResetError):
            connection.recv(1)
        with pytest.raises(ExchangeFailed) as caught:
            exchange(connection, "POST", post(0), EMPTY)
    assert caught.value.failure is Failure.UNSENT
