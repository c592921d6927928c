"""The agent over real sockets: one line for whom it knows, and nobody can hold it up."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import logging
import os
import socket
import struct
import termios
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from scripted import PATIENCE

from lbadaptor.contract.address import Address
from monitor.contract.messages import Availability, Word
from monitor.watcher import agent
from monitor.watcher.agent import MOST_LINGERING, MOST_STRANGERS, READ_BYTES, Agent, KeptAgent

UP = Availability(Word.UP, 75, "OK 3 of 4")
TCP_CLOSE = 7
"""The state of a connection that was reset (linux/tcp_states.h)."""
LINE = b"ready up 75% # OK 3 of 4\n"

Listen = Callable[..., Agent]


@pytest.fixture
def listen() -> Iterator[Listen]:
    """Starts agents, each at a port of its own."""
    with contextlib.ExitStack() as stack:

        def begin(*front: str, says: Availability | None = UP, host: str = "127.0.0.1") -> Agent:
            made = Agent(Address(host, 0), front, lambda: says)
            stack.callback(made.close)
            return made

        yield begin


def call(address: Address, source: str = "") -> socket.socket:
    connection = socket.create_connection(address, PATIENCE, (source, 0) if source else None)
    connection.settimeout(PATIENCE)
    return connection


def all_of(connection: socket.socket) -> bytes:
    """What comes until the other end closes. Raises ConnectionResetError."""
    with connection:
        return b"".join(iter(lambda: connection.recv(1000), b""))


def asked(address: Address, source: str = "") -> bytes:
    return all_of(call(address, source))


def send_for_ever(connection: socket.socket, data: bytes) -> None:
    while True:
        connection.sendall(data)


def test_it_says_its_line_and_closes(listen: Listen) -> None:
    here = listen("127.0.0.1", "127.0.0.7")
    assert asked(here.address) == asked(here.address) == asked(here.address, "127.0.0.7") == LINE


def test_by_ipv6_too(listen: Listen) -> None:
    assert asked(listen("0:0::1", host="::1").address) == LINE


def test_where_nothing_is_known_it_closes_without_a_word(listen: Listen) -> None:
    assert asked(listen(says=None).address) == b""


def test_where_no_front_is_named_this_machine_may_ask(listen: Listen) -> None:
    here = listen()
    assert asked(here.address, "127.0.0.9") == LINE
    assert len(here._lines._told) == 1, "there are 16 million loopback addresses"


def test_a_stranger_gets_no_word_and_is_told_of_once(listen: Listen, caplog: pytest.LogCaptureFixture) -> None:
    here = listen("127.0.0.1")
    for _ in range(3):
        assert asked(here.address, "127.0.0.2") == b""
    assert [record.getMessage() for record in caplog.records] == [
        "127.0.0.2 asks the agent, and is not in [machine] front: it gets no answer"
    ]
    for number in range(3, 3 + MOST_STRANGERS):
        assert asked(here.address, f"127.0.0.{number}") == b""
    assert len(caplog.records) == MOST_STRANGERS
    assert asked(here.address) == LINE


def test_who_sends_something_gets_the_line_all_the_same(listen: Listen) -> None:
    """HAProxy's `agent-send`. Closed with something unread, a connection is reset, and the line may be lost."""
    here = listen()
    connection = call(here.address)
    connection.sendall(b"web1\n" * 100)
    assert all_of(connection) == LINE
    with call(here.address) as slow:
        assert slow.recv(1000) == LINE
        slow.sendall(b"web1\n")
        unacknowledged = 1
        while unacknowledged:
            assert slow.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 1)[0] != TCP_CLOSE, "it was reset"
            [unacknowledged] = struct.unpack("i", fcntl.ioctl(slow, termios.TIOCOUTQ, bytes(4)))


def test_nobody_can_hold_it_up(listen: Listen, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(agent, "LINGER", PATIENCE)
    here = listen()
    with contextlib.ExitStack() as stack:
        silent = [stack.enter_context(call(here.address)) for _ in range(MOST_LINGERING + 20)]
        assert asked(here.address) == LINE
        assert len(here._lingering) <= MOST_LINGERING
        assert all(connection.recv(1000) == LINE for connection in silent)
        loud = stack.enter_context(call(here.address))
        with pytest.raises(ConnectionError):
            send_for_ever(loud, b"x" * READ_BYTES)


def test_who_does_not_close_is_closed(listen: Listen, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(agent, "LINGER", 0.05)
    monkeypatch.setattr(agent, "MOST_READS", 1 << 30)
    here = listen()
    with call(here.address) as connection:
        assert connection.recv(1000) == LINE
        with pytest.raises(ConnectionError):
            send_for_ever(connection, b"x")
    assert not here._lingering


def test_it_goes_on_after_a_shortage(listen: Listen, monkeypatch: pytest.MonkeyPatch) -> None:
    here = listen()
    accept, missed = socket.socket.accept, list[Any]()

    def short(listener: socket.socket) -> Any:
        if listener is here._listener and len(missed) < 2:
            missed.append(listener)
            raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))
        return accept(listener)

    monkeypatch.setattr(socket.socket, "accept", short)
    assert asked(here.address) == LINE
    assert len(missed) == 2


# Where the settings want it.


@pytest.fixture
def kept() -> Iterator[KeptAgent]:
    made = KeptAgent(lambda: UP)
    yield made
    made.keep("", ())


def test_it_is_tried_again_where_its_address_is_not_free_yet(
    kept: KeptAgent, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    with socket.create_server(("127.0.0.1", 0)) as other:
        where = f"127.0.0.1:{other.getsockname()[1]}"
        kept.keep(where, ())
        kept.keep(where, ())
    kept.keep(where, ())
    kept.keep(where, ())
    assert asked(Address.parse(where)) == LINE
    assert [record.getMessage() for record in caplog.records] == [
        f"the agent cannot answer HAProxy at {where}: Address already in use; tried again",
        f"the agent answers HAProxy at {where}",
    ]


@pytest.mark.parametrize(
    ("where", "why"), [("192.0.2.1:9900", "Cannot assign requested address"), ("9900", "'9900' is not host:port")]
)
def test_why_it_cannot_be_opened_is_said(
    kept: KeptAgent, caplog: pytest.LogCaptureFixture, where: str, why: str
) -> None:
    kept.keep(where, ())
    assert f"the agent cannot answer HAProxy at {where}: {why}; tried again" in caplog.text


def test_it_goes_by_new_settings(kept: KeptAgent) -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    where = Address("127.0.0.1", port)
    kept.keep(str(where), ())
    assert asked(where) == LINE
    kept.keep(str(where), ("127.0.0.2",))
    assert asked(where) == b""
    assert asked(where, "127.0.0.2") == LINE
    kept.keep("", ())
    with pytest.raises(ConnectionRefusedError):
        call(where)
