"""Probes against scripted AppServers."""

from __future__ import annotations

import json
import queue
import resource
import socket
import time
from collections.abc import Callable, Generator
from contextlib import closing

import pytest
from scripted import PATIENCE, ScriptedServer, Talk, answer, hang_up

from lbadaptor.contract.address import Address
from lbadaptor.contract.headers import PROBE, PROBE_PATH
from monitor.contract.messages import ProbeAnswer, Probed, Target, Unanswered
from monitor.watcher.probe import Line, Prober

GENERATION = 1763805600123


def target(address: Address) -> Target:
    return Target(3, GENERATION, address.host, address.port, "the probe's key")


def probe_answer(**values: object) -> bytes:
    return answer(json.dumps({"status": "OK", "generation": GENERATION, **values}).encode(), kind="application/json")


def probe(target: Target, timeout: float) -> Probed | Unanswered | None:
    with closing(Line(target, timeout)) as line:
        return line.probe()


Serve = Callable[..., ScriptedServer]


def test_a_good_answer_is_what_it_says(serve: Serve) -> None:
    server = serve(probe_answer(sessions=4, past_limit="requests", empty=True, memory=1 << 30, cpu=1.5, news="more"))
    found = probe(target(server.address), 2.0)
    expected = ProbeAnswer(
        GENERATION, past_limit="requests", empty=True, sessions=4, memory=1 << 30, cpu=1.5, status="OK"
    )
    assert found == Probed(3, GENERATION, expected)
    (request,) = server.requests
    assert request.line == f"GET {PROBE_PATH} HTTP/1.1"
    assert request.get(PROBE) == "the probe's key"


@pytest.mark.parametrize(
    "reply",
    [
        probe_answer(generation=GENERATION - 1),
        answer(b"<h1>Not found</h1>", "404 Not Found"),
        answer(b"", "302 Found", "Location: http://127.0.0.1:9/"),
    ],
    ids=["old generation", "404", "redirect"],
)
def test_another_program_that_answers_is_no_appserver(serve: Serve, reply: bytes) -> None:
    server = serve(reply)
    found = probe(target(server.address), 2.0)
    assert isinstance(found, Unanswered)
    assert found.why.startswith("a stranger answers: status ")
    assert not found.refused
    assert len(server.requests) == 1


@pytest.mark.parametrize(
    "reply",
    [
        answer(b"<h1>It works!</h1>"),
        answer(b"[]"),
        answer(b"\xff\xfe"),
        answer(b"[" * 100_000),
        answer(b'{"generation": ' + b"9" * 400 + b"}"),
        answer(b'{"x": ' + b"[" * 100_000 + b"]" * 100_000 + b', "generation": 1}'),
        probe_answer(generation=str(GENERATION)),
        probe_answer(sessions=None),
        probe_answer(sessions="many"),
        probe_answer(memory=[1]),
        answer(b"{}"),
        answer(b" " * 100_000 + b"{}"),
        b"HTTP/1.1 200 OK\r\n\r\n",
    ],
)
def test_an_answer_that_is_none_is_a_failed_probe(serve: Serve, reply: bytes) -> None:
    found = probe(target(serve(reply).address), 2.0)
    assert isinstance(found, Unanswered)
    assert not found.refused


def test_a_port_without_listener(refusing_address: Address) -> None:
    assert probe(target(refusing_address), 2.0) == Unanswered(3, GENERATION, "connection refused", True)


def test_who_hangs_up_does_not_refuse(serve: Serve) -> None:
    found = probe(target(serve(hang_up).address), 2.0)
    assert found == Unanswered(3, GENERATION, "hung up", False)


def test_who_says_nothing_is_waited_for_as_long_as_asked() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:  # connects in the kernel, as with a stopped process
        begun = time.monotonic()
        found = probe(target(Address(*listener.getsockname())), 0.2)
        assert found == Unanswered(3, GENERATION, "no answer within 0.2 s", False)
        assert 0.2 <= time.monotonic() - begun < PATIENCE


def test_half_an_answer_is_none(serve: Serve) -> None:
    def half(talk: Talk) -> None:
        talk.send(probe_answer()[:-5])
        talk.close()

    found = probe(target(serve(half).address), 2.0)
    assert isinstance(found, Unanswered)
    assert not found.refused


def test_a_shortage_of_the_watcher_is_no_failure_of_an_appserver(refusing_address: Address) -> None:
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (3, limits[1]))  # what is open stays so; the next is one too many
    try:
        found = probe(target(refusing_address), 2.0)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)
    assert found is None
    assert isinstance(probe(target(refusing_address), 2.0), Unanswered)


def test_no_proxy_is_asked(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:9")
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")
    assert isinstance(next(told(serve(default=probe_answer()))), Probed)


def told(server: ScriptedServer) -> Generator[Probed | Unanswered, None, None]:
    """The reports of a prober."""
    reports: queue.Queue[Probed | Unanswered] = queue.Queue()
    prober = Prober(target(server.address), 0.01, 2.0, reports.put)
    try:
        while True:
            yield reports.get(timeout=PATIENCE)
    finally:
        prober.stop()
        prober._thread.join(PATIENCE)
        assert not prober._thread.is_alive()


def test_a_prober_goes_on_whatever_it_is_answered(serve: Serve) -> None:
    server = serve(
        probe_answer(), answer(b"["), hang_up, answer(b"", "500 Oh"), probe_answer(sessions=2), default=probe_answer()
    )
    news = told(server)
    kinds = [type(next(news)) for _ in range(5)]
    news.close()
    assert kinds == [Probed, Unanswered, Unanswered, Unanswered, Probed]


def test_a_prober_keeps_its_connection(serve: Serve) -> None:
    server = serve(default=probe_answer())
    news = told(server)
    for _ in range(5):
        assert isinstance(next(news), Probed)
    news.close()
    assert server.connections == 1
