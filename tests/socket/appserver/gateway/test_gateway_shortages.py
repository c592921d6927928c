"""The gateway: what it runs short of."""

from __future__ import annotations

import contextlib
import http.client
import json
import logging
import os
import resource
import socket
import time
from collections.abc import Iterator
from typing import Any

import pytest
from gateway_stage import (
    PROBE,
    WAIT,
    Gate,
    Serve,
    head,
    hello,
    until,
)

from lbadaptor.appserver.http import accept, dispatch, own_errors

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
