from __future__ import annotations

import errno
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from scripted import ScriptedServer, hang_up

from lbadaptor.adaptor.pool import Connection, ConnectTimeout, Pool, connect
from lbadaptor.contract.address import Address
from lbadaptor.contract.errors import OurOwnFault

Pair = tuple[Connection, socket.socket]

LONG = 30.0
"""Seconds: a time that is not the one that a test is about."""
WAIT = 20.0


def made_pair() -> Pair:
    ours, theirs = socket.socketpair()
    return Connection(ours), theirs


@pytest.fixture
def pair() -> Iterator[Pair]:
    ours, theirs = made_pair()
    with ours, theirs:
        yield ours, theirs


@pytest.fixture
def pool() -> Iterator[Pool]:
    pool = Pool(2)
    yield pool
    pool.close()


def end(peer: socket.socket) -> None:
    """Close a socket so that its peer sees it at once.

    close() alone ends the connection only with the last reference to the socket. A child of another thread has one
    between fork and exec, and so has a program for a moment that reads /proc/PID/fd.
    """
    peer.shutdown(socket.SHUT_RDWR)
    peer.close()


def closed(connection: socket.socket) -> bool:
    return connection.fileno() == -1


def test_a_connection_knows_whether_there_is_something_to_read(pair: Pair) -> None:
    ours, theirs = pair
    assert not ours.ready(0)
    assert not ours.ready(0.01)
    theirs.send(b"x")
    assert ours.ready(0)
    assert ours.recv(1) == b"x"
    end(theirs)
    assert ours.ready(0)


def test_an_idle_connection_is_taken_again(pool: Pool, pair: Pair) -> None:
    assert pool.take() is None
    pool.give(pair[0])
    assert pool.take() is pair[0]
    assert pool.take() is None


def test_the_last_one_used_is_taken_first(pool: Pool) -> None:
    pairs = [made_pair() for _ in range(2)]
    for ours, _ in pairs:
        pool.give(ours)
    assert pool.take() is pairs[1][0]
    for ours, theirs in pairs:
        ours.close()
        theirs.close()


@pytest.mark.parametrize("act", [end, lambda peer: peer.send(b"unasked")])
def test_one_that_was_hung_up_on_or_says_something_is_thrown_away(
    act: Callable[[socket.socket], object], pool: Pool, pair: Pair
) -> None:
    pool.give(pair[0])
    act(pair[1])
    assert pool.take() is None
    assert closed(pair[0])


def test_one_that_was_reset_is_thrown_away(pool: Pool) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        ours = Connection(socket.create_connection(listener.getsockname()))
        theirs, _ = listener.accept()
        pool.give(ours)
        theirs.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        theirs.close()
        assert ours.ready(WAIT)
        assert pool.take() is None
        assert closed(ours)


def test_no_more_are_kept_than_asked_for_the_last_ones(pool: Pool) -> None:
    pairs = [made_pair() for _ in range(3)]
    for ours, _ in pairs:
        pool.give(ours)
    assert [closed(ours) for ours, _ in pairs] == [True, False, False]
    for _, theirs in pairs:
        theirs.close()


def test_none_is_kept_to_one_that_has_left(pool: Pool) -> None:
    pairs = [made_pair() for _ in range(2)]
    pool.give(pairs[0][0])
    pool.close()
    assert closed(pairs[0][0])
    pool.give(pairs[1][0])
    assert closed(pairs[1][0])
    assert pool.take() is None
    for _, theirs in pairs:
        theirs.close()


def test_no_connection_is_given_to_two_threads_or_lost() -> None:
    pool = Pool(100)
    pairs = [made_pair() for _ in range(20)]
    for ours, _ in pairs:
        pool.give(ours)
    in_use: set[socket.socket] = set()
    wrong: list[object] = []

    def work() -> None:
        for _ in range(300):
            connection = pool.take()
            if connection is not None:
                if connection in in_use:
                    wrong.append(connection)
                in_use.add(connection)
                in_use.discard(connection)
                pool.give(connection)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []
    pool.close()
    assert all(closed(ours) for ours, _ in pairs)
    for _, theirs in pairs:
        theirs.close()


def test_a_silent_peer_is_given_up_after_the_answers_time(serve: Callable[..., ScriptedServer]) -> None:
    with connect(serve().address, "", LONG, 0.1) as connection:
        before = time.monotonic()
        with pytest.raises(BlockingIOError):
            connection.recv(1)
        assert 0.09 <= time.monotonic() - before < LONG


def test_a_refused_connection_is_an_os_error(refusing_address: Address) -> None:
    with pytest.raises(ConnectionRefusedError):
        connect(refusing_address, "", 2, 1)


def test_a_full_backlog_is_a_connect_timeout() -> None:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        address = Address(*listener.getsockname())
        with connect(address, "", 2, 1), pytest.raises(ConnectTimeout, match="no connection within"):
            connect(address, "", 0.05, 1)


@pytest.mark.parametrize("number", ["EMFILE", "ENFILE", "EADDRNOTAVAIL", "ENOBUFS", "ENOMEM", "EACCES", "EPERM"])
def test_a_shortage_on_this_side_is_our_own_fault(number: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise OSError(getattr(errno, number), "out of luck")

    monkeypatch.setattr(socket, "create_connection", fail)
    with pytest.raises(OurOwnFault, match="out of luck"):
        connect(Address("127.0.0.1", 1), "", 1, 1)


@pytest.mark.parametrize("number", ["ECONNREFUSED", "EHOSTUNREACH", "ENETUNREACH", "ECONNRESET"])
def test_an_unreachable_peer_is_not(number: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise OSError(getattr(errno, number), "unreachable")

    monkeypatch.setattr(socket, "create_connection", fail)
    with pytest.raises(OSError, match="unreachable"):
        connect(Address("127.0.0.1", 1), "", 1, 1)


def test_a_peer_that_hangs_up_ends_a_blocking_read(serve: Callable[..., ScriptedServer]) -> None:
    with connect(serve(hang_up).address, "", 2, 5) as connection:
        connection.sendall(b"GET / HTTP/1.1\r\n\r\n")
        assert connection.recv(1) == b""


# Unix sockets.


@pytest.fixture
def listener(tmp_path: Path) -> Iterator[socket.socket]:
    with socket.socket(socket.AF_UNIX) as made:
        made.bind(str(tmp_path / "0"))
        made.listen(0)
        yield made


def test_where_there_is_a_unix_socket_the_port_is_not_asked(
    listener: socket.socket, refusing_address: Address
) -> None:
    with connect(refusing_address, listener.getsockname(), 2, 0.05) as connection:
        peer, _ = listener.accept()
        with peer:
            connection.sendall(b"x")
            assert peer.recv(1) == b"x"
            with pytest.raises(BlockingIOError):
                connection.recv(1)


@pytest.mark.parametrize("number", ["ENOENT", "ENOTDIR", "EACCES", "EPERM"])
def test_where_there_is_none_that_may_be_used_the_port_is(
    number: str, serve: Callable[..., ScriptedServer], monkeypatch: pytest.MonkeyPatch
) -> None:
    tcp = socket.create_connection

    def fail(self: socket.socket, path: object) -> None:
        assert path == "/run/0"
        raise OSError(getattr(errno, number), "not so")

    monkeypatch.setattr(socket, "create_connection", lambda *words: (monkeypatch.undo(), tcp(*words))[1])
    monkeypatch.setattr(socket.socket, "connect", fail)
    with connect(serve().address, "/run/0", 2, 1) as connection:
        assert connection.family == socket.AF_INET


def test_a_unix_socket_without_listener_decides_and_the_port_is_not_tried(
    listener: socket.socket, serve: Callable[..., ScriptedServer]
) -> None:
    path = listener.getsockname()
    listener.close()
    with pytest.raises(ConnectionRefusedError):
        connect(serve().address, path, 2, 1)  # somebody else's port, perhaps


def test_one_whose_backlog_is_full_is_a_connect_timeout(listener: socket.socket, refusing_address: Address) -> None:
    path = listener.getsockname()
    with connect(refusing_address, path, 2, 1):
        before = time.monotonic()
        with pytest.raises(ConnectTimeout, match="no connection within"):
            connect(refusing_address, path, 0.05, LONG)
        assert 0.04 <= time.monotonic() - before < LONG


def test_a_shortage_is_our_own_fault_here_too(monkeypatch: pytest.MonkeyPatch, refusing_address: Address) -> None:
    def fail(*_: object) -> None:
        raise OSError(errno.EMFILE, "out of luck")

    monkeypatch.setattr(socket, "socket", fail)
    with pytest.raises(OurOwnFault, match="out of luck"):
        connect(refusing_address, "/run/0", 1, 1)
