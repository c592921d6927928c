from __future__ import annotations

import errno
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator

import pytest
from scripted import ScriptedServer, hang_up

from lbadaptor.address import Address, Identity
from lbadaptor.errors import OurOwnFault
from lbadaptor.pool import ConnectTimeout, Pool, connect

ONE, TWO = Identity(0, 17), Identity(0, 18)


@pytest.fixture
def pair() -> Iterator[tuple[socket.socket, socket.socket]]:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        yield ours, theirs


@pytest.fixture
def pool() -> Iterator[Pool]:
    pool = Pool(2)
    pool.keep_only([ONE])
    yield pool
    pool.keep_only([])


def closed(connection: socket.socket) -> bool:
    return connection.fileno() == -1


def test_an_idle_connection_is_taken_again(pool: Pool, pair: tuple[socket.socket, socket.socket]) -> None:
    assert pool.take(ONE) is None
    pool.give(ONE, pair[0])
    assert pool.take(ONE) is pair[0]
    assert pool.take(ONE) is None


def test_the_last_one_used_is_taken_first(pool: Pool) -> None:
    pairs = [socket.socketpair() for _ in range(2)]
    for ours, _ in pairs:
        pool.give(ONE, ours)
    assert pool.take(ONE) is pairs[1][0]
    for ours, theirs in pairs:
        ours.close()
        theirs.close()


def test_another_generation_in_the_same_slot_gets_its_own(
    pool: Pool, pair: tuple[socket.socket, socket.socket]
) -> None:
    pool.keep_only([ONE, TWO])
    pool.give(ONE, pair[0])
    assert pool.take(TWO) is None
    assert pool.take(ONE) is pair[0]


@pytest.mark.parametrize("act", [lambda peer: peer.close(), lambda peer: peer.send(b"unasked")])
def test_one_that_was_hung_up_on_or_says_something_is_thrown_away(
    act: Callable[[socket.socket], object], pool: Pool, pair: tuple[socket.socket, socket.socket]
) -> None:
    pool.give(ONE, pair[0])
    act(pair[1])
    assert pool.take(ONE) is None
    assert closed(pair[0])


def test_one_that_was_reset_is_thrown_away(pool: Pool) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        ours = socket.create_connection(listener.getsockname())
        theirs, _ = listener.accept()
        pool.give(ONE, ours)
        theirs.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        theirs.close()
        assert pool.take(ONE) is None
        assert closed(ours)


def test_no_more_are_kept_than_asked_for(pool: Pool) -> None:
    pairs = [socket.socketpair() for _ in range(3)]
    for ours, _ in pairs:
        pool.give(ONE, ours)
    assert [closed(ours) for ours, _ in pairs] == [False, False, True]
    for _, theirs in pairs:
        theirs.close()


def test_none_is_kept_to_one_that_is_not_in_the_table(pool: Pool, pair: tuple[socket.socket, socket.socket]) -> None:
    pool.give(TWO, pair[0])
    assert closed(pair[0])


def test_those_to_who_left_the_table_are_closed(pool: Pool, pair: tuple[socket.socket, socket.socket]) -> None:
    pool.give(ONE, pair[0])
    pool.keep_only([ONE])
    assert not closed(pair[0])
    pool.keep_only([TWO])
    assert closed(pair[0])
    assert pool.take(ONE) is None


def test_no_connection_is_given_to_two_threads(pool: Pool) -> None:
    pool = Pool(100)
    pool.keep_only([ONE])
    pairs = [socket.socketpair() for _ in range(20)]
    for ours, _ in pairs:
        pool.give(ONE, ours)
    in_use: set[socket.socket] = set()
    wrong: list[object] = []

    def work() -> None:
        for _ in range(300):
            connection = pool.take(ONE)
            if connection is not None:
                if connection in in_use:
                    wrong.append(connection)
                in_use.add(connection)
                in_use.discard(connection)
                pool.give(ONE, connection)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []
    pool.keep_only([])
    assert all(closed(ours) for ours, _ in pairs)
    for _, theirs in pairs:
        theirs.close()


def test_a_silent_peer_is_given_up_after_the_answers_time(serve: Callable[..., ScriptedServer]) -> None:
    with connect(serve().address, 2, 0.1) as connection:
        before = time.monotonic()
        with pytest.raises(BlockingIOError):
            connection.recv(1)
        assert 0.09 <= time.monotonic() - before < 1


def test_a_refused_connection_is_an_os_error_that_blames_nobody_else(nobody: Address) -> None:
    with pytest.raises(ConnectionRefusedError):
        connect(nobody, 2, 1)


def test_a_full_backlog_is_a_connect_timeout() -> None:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        address = Address(*listener.getsockname())
        with connect(address, 2, 1), pytest.raises(ConnectTimeout, match="no connection within"):
            connect(address, 0.05, 1)


@pytest.mark.parametrize("number", ["EMFILE", "ENFILE", "EADDRNOTAVAIL", "ENOBUFS", "ENOMEM", "EACCES", "EPERM"])
def test_a_shortage_on_this_side_is_our_own_fault(number: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise OSError(getattr(errno, number), "out of luck")

    monkeypatch.setattr(socket, "create_connection", fail)
    with pytest.raises(OurOwnFault, match="out of luck"):
        connect(Address("127.0.0.1", 1), 1, 1)


@pytest.mark.parametrize("number", ["ECONNREFUSED", "EHOSTUNREACH", "ENETUNREACH", "ECONNRESET"])
def test_an_unreachable_peer_is_not(number: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise OSError(getattr(errno, number), "unreachable")

    monkeypatch.setattr(socket, "create_connection", fail)
    with pytest.raises(OSError, match="unreachable"):
        connect(Address("127.0.0.1", 1), 1, 1)


def test_a_peer_that_hangs_up_ends_a_blocking_read(serve: Callable[..., ScriptedServer]) -> None:
    with connect(serve(hang_up).address, 2, 5) as connection:
        connection.sendall(b"GET / HTTP/1.1\r\n\r\n")
        assert connection.recv(1) == b""
