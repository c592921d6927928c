"""The middleware: AppServers that are not there, refuse, are busy, or fail."""

from __future__ import annotations

import contextlib
import os
import socket
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest
from scripted import PATIENCE, ScriptedServer, Talk, answer, hang_up, refusal, total
from stage import Site, at_the_first_pause, cookies

from lbadaptor.adaptor.error_pages import RETRY_AFTER
from lbadaptor.contract.address import Address, Identity, State
from lbadaptor.contract.errors import OurOwnFault

Serve = Callable[..., ScriptedServer]
CHUNKED = "Transfer-Encoding: chunked"

# Nobody there, refused, busy.


@pytest.mark.parametrize("method", ["GET", "POST"])
def test_one_that_refuses_connections_is_passed_over(
    site: Site, serve: Serve, refusing_address: Address, method: str
) -> None:
    server = serve()
    site.publish_servers(refusing_address, server)
    for _ in range(10):
        assert site.ask(method, b"x" if method == "POST" else b"").status == 200
    assert total(server) == 10


def test_a_holder_that_refuses_connections_twice_is_lost(site: Site, serve: Serve, refusing_address: Address) -> None:
    server = serve()
    gone, _ = site.publish_servers(refusing_address, server)
    assert site.ask("POST", b"x", **cookies(gone.ticket)).status == 200
    assert server.requests[0].get("LB-Session") == "lost"


def test_a_holder_that_refuses_a_connection_once_keeps_its_visitor(
    site: Site, serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    from lbadaptor.adaptor import backends

    holder, other = serve(), serve()
    entry, _ = site.publish_servers(holder, other)
    connect, refusals = backends.connect, [ConnectionRefusedError(111, "Connection refused")]

    def connect_later(*args: object) -> socket.socket:
        if refusals:
            raise refusals.pop()
        return connect(*args)  # type: ignore[arg-type]

    monkeypatch.setattr(backends, "connect", connect_later)
    assert site.ask("POST", b"x", **cookies(entry.ticket)).status == 200
    assert (total(holder), total(other)) == (1, 0)
    assert holder.requests[0].get("LB-Session") == "held"


def test_being_busy_before_does_not_count_as_having_refused_a_connection(
    site: Site, serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    from lbadaptor.adaptor import backends

    def busy(talk: Talk) -> None:
        talk.send(refusal("BUSY").replace(b"LB-Refused", b"Connection: close\r\nLB-Refused"))
        talk.close()

    holder, other = serve(busy), serve()
    entry, _ = site.publish_servers(holder, other)
    connect, calls = backends.connect, []

    def connect_the_second_time_in_vain(*args: object) -> socket.socket:
        calls.append(args)
        if len(calls) == 2:
            raise ConnectionRefusedError(111, "Connection refused")
        return connect(*args)  # type: ignore[arg-type]

    monkeypatch.setattr(backends, "connect", connect_the_second_time_in_vain)
    assert site.ask(**cookies(entry.ticket)).status == 200
    assert (total(holder), total(other)) == (2, 0)


@pytest.mark.parametrize("kind", ["STALE", "DYING", "BUSY", "INCOMPLETE", "KEY"])
@pytest.mark.parametrize("body", [b"", b"x", b"x" * 300_000])
def test_what_is_refused_is_served_elsewhere_whatever_the_method(
    site: Site, serve: Serve, kind: str, body: bytes
) -> None:
    refusing, server = serve(default=refusal(kind)), serve()
    site.publish_servers(refusing, server)
    for _ in range(8):
        got = site.ask("POST", body)
        assert (got.status, got.body) == (200, b"hello")
    assert {request.body for request in server.requests} == {body}
    assert total(server) == 8
    assert total(refusing) > 0


@pytest.mark.parametrize("kind", ["STALE", "DYING", "INCOMPLETE", "KEY"])
def test_what_its_holder_refuses_is_served_elsewhere_as_lost(site: Site, serve: Serve, kind: str) -> None:
    holder, other = serve(default=refusal(kind)), serve()
    entry, _ = site.publish_servers(holder, other)
    assert site.ask("POST", b"x", **cookies(entry.ticket)).status == 200
    assert [request.get("LB-Session") for request in holder.requests] == ["held"]
    assert [request.get("LB-Session") for request in other.requests] == ["lost"]


def test_a_busy_holder_is_asked_again_until_it_has_time(site: Site, serve: Serve) -> None:
    site.configure(wait=PATIENCE)
    holder, other = serve(refusal("BUSY"), refusal("BUSY"), answer()), serve()
    entry, _ = site.publish_servers(holder, other)
    assert site.ask("POST", b"x", **cookies(entry.ticket)).status == 200
    assert [request.get("LB-Session") for request in holder.requests] == ["held"] * 3
    assert total(other) == 0


def test_a_holder_that_stays_busy_is_a_503_and_the_session_is_not_moved(site: Site, serve: Serve) -> None:
    site.configure(wait=0.12)
    holder, other = serve(default=refusal("BUSY")), serve()
    entry, _ = site.publish_servers(holder, other)
    got = site.ask(**cookies(entry.ticket))
    assert (got.status, got.get("Retry-After")) == (503, str(RETRY_AFTER))
    assert total(holder) > 1
    assert total(other) == 0


def test_a_busy_holder_that_leaves_the_table_is_lost(
    site: Site, serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    site.configure(wait=PATIENCE)
    holder, other = serve(default=refusal("BUSY")), serve()
    entry, left = site.publish_servers(holder, other)
    at_the_first_pause(monkeypatch, lambda: site.publish(left))
    assert site.ask("POST", b"x", **cookies(entry.ticket)).status == 200
    assert other.requests[0].get("LB-Session") == "lost"


def test_when_all_refuse_each_is_asked_once_and_then_it_is_a_503(site: Site, serve: Serve) -> None:
    site.configure(wait=0.3)
    servers = [serve(default=refusal("DYING")) for _ in range(3)]
    site.publish_servers(*servers)
    got = site.ask("POST", b"x")
    assert (got.status, got.get("Retry-After")) == (503, str(RETRY_AFTER))
    assert [len(server.requests) for server in servers] == [1, 1, 1]


@pytest.mark.parametrize("ticket", ["none", "lost"])
def test_when_all_are_busy_they_are_asked_again(site: Site, serve: Serve, ticket: str) -> None:
    site.configure(wait=PATIENCE)
    busy = refusal("BUSY")
    servers = [serve(busy, busy, default=answer()) for _ in range(3)]
    site.publish_servers(*servers)
    lost = {} if ticket == "none" else cookies(site.keys.ticket(Identity(7, 1)))
    got = site.ask("POST", b"x", **lost)
    assert (got.status, got.body) == (200, b"hello")
    assert sorted(len(server.requests) for server in servers) in ([2, 2, 3], [2, 2, 2])


def test_who_stays_busy_is_asked_until_the_time_is_over_and_is_a_503(site: Site, serve: Serve) -> None:
    site.configure(wait=0.3)
    servers = [serve(default=refusal("BUSY")) for _ in range(2)]
    site.publish_servers(*servers)
    began = time.monotonic()
    assert site.ask().status == 503
    assert time.monotonic() - began >= 0.3  # the setting `wait`
    assert min(len(server.requests) for server in servers) > 1


def test_the_one_repetition_is_not_for_another_that_was_killed_along_with_the_first(
    site: Site, serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    killed, too, left = serve(default=hang_up), serve(default=hang_up), serve()
    *_, entry = site.publish_servers(killed, too, left)
    site.publish_servers(killed, too)
    at_the_first_pause(monkeypatch, lambda: site.publish(entry))
    assert site.ask().status == 200
    assert total(killed, too) == 1


@pytest.mark.parametrize("held", [True, False], ids=["held", "new"])
@pytest.mark.parametrize("method", ["GET", "POST"])
def test_a_killed_process_that_still_accepts_connections_costs_no_request(
    site: Site, serve: Serve, method: str, held: bool
) -> None:
    """However long it takes to end: what it has not read never began."""
    site.configure(connect_timeout=PATIENCE)
    path = site.settings.unix_socket(0)
    os.mkdir(os.path.dirname(path))
    asked = 0
    with socket.socket(socket.AF_UNIX) as listener, ThreadPoolExecutor(1) as pool:
        listener.bind(path)
        listener.listen()

        def end_slowly() -> None:
            nonlocal asked
            with contextlib.suppress(OSError):  # the test is over
                while True:
                    with listener.accept()[0] as connection:
                        asked += bool(connection.recv(1, socket.MSG_PEEK))

        pool.submit(end_slowly)
        left = serve()
        dying = site.entry(Address("127.0.0.1", 1))
        site.publish(dying, site.entry(left, 1, weight=0))  # a standby: the other is asked first
        assert site.ask(method, **cookies(dying.ticket) if held else {}).status == 200
        listener.shutdown(socket.SHUT_RDWR)
    assert total(left) == 1
    assert asked == (2 if held else 1)


def test_a_refusal_that_comes_while_all_that_was_sent_is_kept_is_repeated_elsewhere(site: Site, serve: Serve) -> None:
    site.configure(body_memory=1000, body_spool=16_000_000)  # more than the buffers of a connection

    def refuse(talk: Talk) -> None:
        talk.send(refusal("DYING"))
        talk.read_body()

    refusing, server = serve(refuse), serve()
    entry, _ = site.publish_servers(refusing, server)
    data = bytes(range(256)) * 66_000
    assert site.ask("POST", data, **cookies(entry.ticket)).status == 200
    assert [request.body == data for request in server.requests] == [True]


def test_a_refusal_that_comes_later_is_a_503(site: Site, serve: Serve) -> None:
    site.configure(body_memory=1000, body_spool=0)

    def refuse(talk: Talk) -> None:
        talk.read_body()
        talk.send(refusal("DYING"))

    refusing, server = serve(refuse), serve()
    entry, _ = site.publish_servers(refusing, server)
    assert site.ask("POST", b"x" * 300_000, **cookies(entry.ticket)).status == 503
    assert total(server) == 0


@pytest.mark.parametrize("error", [MemoryError(), OSError(12, "Cannot allocate memory")])
@pytest.mark.parametrize(
    "place", ["lbadaptor.adaptor.pool.Connection.recv", "lbadaptor.adaptor.pool.Connection.ready"]
)
def test_when_memory_runs_out_it_is_a_503_and_goes_on_afterwards(
    site: Site, serve: Serve, caplog: pytest.LogCaptureFixture, error: BaseException, place: str
) -> None:
    server = serve(default=answer(b"5\r\nhello\r\n0\r\n\r\n", framing=CHUNKED))
    (entry,) = site.publish_servers(server)
    assert site.ask().status == 200

    def fail(*_: object) -> None:
        raise error

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(place, fail, raising=False)
        got = site.ask("POST", b"x")
    assert (got.status, got.get("Retry-After")) == (503, str(RETRY_AFTER))
    assert "503 POST /cart" in caplog.text
    assert site.adaptor.backends.load(entry).in_flight == 0
    assert site.ask().body == b"hello"


def test_a_shortage_of_the_adaptor_is_a_503_and_no_failure_of_an_appserver(
    site: Site, serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[object] = []

    def connect(*args: object) -> None:
        calls.append(args)
        raise OurOwnFault("connecting: Too many open files")

    servers = serve(), serve()
    entry, _ = site.publish_servers(*servers)
    with monkeypatch.context() as patch:
        patch.setattr("lbadaptor.adaptor.backends.connect", connect)
        for changes in ({}, cookies(entry.ticket)):
            got = site.ask(**changes)
            assert (got.status, got.get("Retry-After")) == (503, str(RETRY_AFTER))
    assert len(calls) == 2
    assert site.ask(**cookies(entry.ticket)).status == 200


# No connection in time.


@pytest.fixture
def silent_address() -> Iterator[Address]:
    """An address where connections are neither taken nor refused: the queue is full."""
    with contextlib.ExitStack() as stack:
        listener = stack.enter_context(socket.create_server(("127.0.0.1", 0), backlog=0))
        for _ in range(4):
            filling = stack.enter_context(socket.socket())
            filling.setblocking(False)
            filling.connect_ex(listener.getsockname())
        yield Address(*listener.getsockname())


@pytest.mark.parametrize("method", ["GET", "POST"])
def test_a_connection_that_is_not_taken_in_time_is_tried_elsewhere(
    site: Site, serve: Serve, silent_address: Address, method: str
) -> None:
    site.configure(connect_timeout=0.1)
    server = serve()
    lost = site.keys.ticket(Identity(7, 7))
    site.publish_servers(silent_address, server)
    for changes in ({}, cookies("forged"), cookies(lost)):
        assert site.ask(method, b"x" if method == "POST" else b"", **changes).status == 200
    assert total(server) == 3


def test_a_holder_that_takes_no_connection_is_a_503_and_the_session_is_not_moved(
    site: Site, serve: Serve, silent_address: Address
) -> None:
    site.configure(connect_timeout=0.1, wait=0.25)
    other = serve()
    entry, _ = site.publish_servers(silent_address, other)
    began = time.monotonic()
    got = site.ask(**cookies(entry.ticket))
    assert (got.status, got.get("Retry-After")) == (503, str(RETRY_AFTER))
    assert time.monotonic() - began >= 0.25
    assert total(other) == 0


def test_a_holder_that_takes_connections_again_keeps_its_visitor(
    site: Site, serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    from lbadaptor.adaptor import backends
    from lbadaptor.adaptor.pool import ConnectTimeout

    site.configure(wait=PATIENCE)
    holder, other = serve(), serve()
    entry, _ = site.publish_servers(holder, other)
    connect, timeouts = backends.connect, [ConnectTimeout("no connection")] * 2

    def connect_later(*args: object) -> socket.socket:
        if timeouts:
            raise timeouts.pop()
        return connect(*args)  # type: ignore[arg-type]

    monkeypatch.setattr(backends, "connect", connect_later)
    assert site.ask("POST", b"x", **cookies(entry.ticket)).status == 200
    assert (holder.requests[0].get("LB-Session"), total(other)) == ("held", 0)


# FAILING.


def test_a_failing_appserver_gets_no_new_visitors(site: Site, serve: Serve) -> None:
    failing, ok = serve(), serve()
    site.publish(site.entry(failing, 0, State.FAILING), site.entry(ok, 1))
    for _ in range(10):
        site.ask()
    assert (total(failing), total(ok)) == (0, 10)


class Hanging:
    """What an AppServer does that answers no request before it may."""

    def __init__(self) -> None:
        self.go = threading.Event()
        self.arrived = threading.Semaphore(0)
        """released for each request"""

    def __call__(self, talk: Talk) -> None:
        self.arrived.release()
        assert self.go.wait(PATIENCE)
        talk.send(answer())


def test_only_a_few_wait_for_a_failing_holder_the_rest_get_a_503_at_once(site: Site, serve: Serve) -> None:
    site.configure(wait=PATIENCE)
    hanging = Hanging()
    failing, other = serve(default=hanging), serve()
    entry = site.entry(failing, 0, State.FAILING)
    site.publish(entry, site.entry(other, 1))
    statuses: list[int] = []
    threads = [
        threading.Thread(target=lambda: statuses.append(site.ask(**cookies(entry.ticket)).status)) for _ in range(2)
    ]
    for thread in threads:
        thread.start()
        assert hanging.arrived.acquire(timeout=PATIENCE)
    for _ in range(5):
        got = site.ask(**cookies(entry.ticket))
        assert (got.status, got.get("Retry-After")) == (503, str(RETRY_AFTER))
    assert site.ask().status == 200
    hanging.go.set()
    for thread in threads:
        thread.join()
    assert statuses == [200, 200]
    assert total(failing) == 2
    assert site.ask(**cookies(entry.ticket)).status == 200


def test_a_holder_that_is_failing_when_the_table_names_it_again_gets_only_a_few(
    site: Site, serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    site.configure(wait=PATIENCE)
    hanging = Hanging()
    failing = serve(default=hanging)
    entry = site.entry(failing, 0, State.FAILING)
    threads = [threading.Thread(target=lambda: site.ask(**cookies(entry.ticket))) for _ in range(2)]

    def meanwhile() -> None:
        site.publish(entry)
        for thread in threads:
            thread.start()
            assert hanging.arrived.acquire(timeout=PATIENCE)

    site.publish()
    at_the_first_pause(monkeypatch, meanwhile)
    assert site.ask(**cookies(entry.ticket)).status == 503
    hanging.go.set()
    for thread in threads:
        thread.join()
    assert total(failing) == 2
