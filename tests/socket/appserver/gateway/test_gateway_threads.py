"""The gateway: threads, probes and the end."""

from __future__ import annotations

import json
import os
import socket
import threading
import time
from typing import Any

import pytest
from gateway_stage import (
    ASSIGNMENT,
    PROBE,
    WAIT,
    Caller,
    Gate,
    Harness,
    Serve,
    echo,
    head,
    hello,
    never,
    queued,
    until,
)

from lbadaptor.appserver.http import schedule_fast


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
    queued(harness, 40)
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
