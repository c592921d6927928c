"""The gateway: requests that it refuses, and the queue."""

from __future__ import annotations

import contextlib
import socket
from typing import Any

import msgspec
import pytest
from gateway_stage import (
    ASSIGNMENT,
    LB,
    WAIT,
    Caller,
    Gate,
    Serve,
    head,
    hello,
    never,
    queued,
)

from lbadaptor.http1.request import MAX_HEAD

MANDATORY = sorted(LB.keys() - {"LB-Session"})
QUEUE_OF_2 = msgspec.structs.replace(ASSIGNMENT, queue=2)


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
        queued(harness, number)
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
        queued(harness, number)
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
