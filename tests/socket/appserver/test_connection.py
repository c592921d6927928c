"""A caller's connection: bytes in, requests out, over a pair of sockets."""

from __future__ import annotations

import io
import socket
import struct
from collections.abc import Iterator

import pytest

from lbadaptor.appserver.http.connection import Connection
from lbadaptor.http1.lines import ProtocolError
from lbadaptor.http1.request import MAX_HEAD
from lbadaptor.http1.states import BODY, DISCARDING, IDLE

GET = b"GET /one HTTP/1.1\r\nHost: x\r\n\r\n"
POST = b"POST /two HTTP/1.1\r\nContent-Length: 10\r\n\r\n"
CHUNKED = b"POST /three HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n"


class Pair:
    """Both ends."""

    def __init__(self) -> None:
        self.caller, sock = socket.socketpair()
        self.caller.settimeout(10.0)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, struct.pack("@ll", 10, 0))
        self.connection = Connection(sock, None)

    def feed(self, data: bytes) -> Connection:
        """Send, and receive until all of it was read."""
        self.caller.sendall(data)
        while True:
            try:
                if not self.connection.receive(socket.MSG_DONTWAIT):
                    return self.connection
            except BlockingIOError:
                return self.connection


@pytest.fixture
def pair() -> Iterator[Pair]:
    made = Pair()
    with made.caller, made.connection.socket:
        yield made


def test_a_request_is_there_with_its_head(pair: Pair) -> None:
    connection = pair.feed(b"GET /a%20b?c HTTP/1.1\r\nHost: x\r\nX-Foo:  \xe4 b \r\nLB-Key: k\r\nA_B: c\r\n\r\n")
    request = connection.request
    assert request is not None
    assert (request.method, request.target, request.version) == ("GET", "/a%20b?c", "1.1")
    assert request.fields == {"HTTP_HOST": "x", "HTTP_X_FOO": "\xe4 b"}
    assert request.key == "k"
    assert connection.complete
    assert connection.keep_alive


def test_a_request_may_come_byte_by_byte(pair: Pair) -> None:
    for number in range(len(GET)):
        assert pair.connection.request is None
        pair.feed(GET[number : number + 1])
    assert pair.connection.request is not None
    assert pair.connection.request.target == "/one"


def test_the_callers_end_is_reported(pair: Pair) -> None:
    pair.caller.close()
    assert pair.connection.receive() is False


def test_nothing_to_read_is_reported(pair: Pair) -> None:
    with pytest.raises(BlockingIOError):
        pair.connection.receive(socket.MSG_DONTWAIT)


@pytest.mark.parametrize(
    "head",
    [
        b"\x16\x03\x01\x02\x00\x01",
        b"\r\nGET / HTTP/1.1\r\n\r\n",
        b"GET\r",
        b"GET / \r\n\r\n",
        b"GET  HTTP/1.1\r\n\r\n",
        b"GET  / HTTP/1.1\r\n\r\n",
        b"GET / x HTTP/1.1\r\n\r\n",
        b"GET /\t HTTP/1.1\r\n\r\n",
        b"GET /\xe4 HTTP/1.1\r\n\r\n",
        b"G\xc3T / HTTP/1.1\r\n\r\n",
        b"GET / HTTP/2.0\r\n\r\n",
        b"GET / HTTP/1.1\nHost: x\n\n GET / HTTP/1.1\r\n\r\n",
        b"GET / HTTP/1.1\r\nA : b\r\n\r\n",
        b"GET / HTTP/1.1\r\nA: b\nC: d\r\n\r\n",
        b"GET / HTTP/1.1\r\nA: b\rC: d\r\n\r\n",
        b"GET / HTTP/1.1\r\nA: b\0\r\n\r\n",
        b"GET / HTTP/1.1\r\n: b\r\n\r\n",
        b"hello\r\n\r\n",
        b"GET / HTTP/1.1\r\nA b: c\r\n\r\n",
        b"GET / HTTP/1.1\r\nA: b\x01\r\n\r\n",
        b"GET / HTTP/1.1\r\nA: b\r\n folded\r\n\r\n",
        b"POST / HTTP/1.1\r\nContent-Length: 3\r\nContent-Length: 4\r\n\r\n",
        b"POST / HTTP/1.1\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n",
        b"POST / HTTP/1.1\r\nTransfer-Encoding: gzip\r\n\r\n",
        b"POST / HTTP/1.1\r\nContent-Length: -3\r\n\r\n",
        b"POST / HTTP/1.1\r\nContent-Length: 3, 3\r\n\r\n",
        b"POST / HTTP/1.1\r\nContent-Length: 3\r\nContent-Length: 3\r\n\r\n",
        b"POST / HTTP/1.1\r\nContent-Length: \r\n\r\n",
        b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked, chunked\r\n\r\n",
        b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n",
        b"POST / HTTP/1.1\r\nTransfer-Encoding: \r\n\r\n",
        b"POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n",
        CHUNKED + b"xyz\r\n",
    ],
)
def test_what_is_not_http_is_a_400(pair: Pair, head: bytes) -> None:
    with pytest.raises(ProtocolError) as caught:
        pair.feed(head)
    assert caught.value.status == 400


def test_a_head_without_end_is_a_431(pair: Pair) -> None:
    pair.feed(b"GET / HTTP/1.1\r\n")
    line = b"X: " + b"x" * 4091 + b"\r\n"
    for _ in range(MAX_HEAD // len(line) - 1):
        pair.feed(line)
    with pytest.raises(ProtocolError) as caught:
        pair.feed(line)
    assert caught.value.status == 431


def test_a_large_body_is_no_large_head(pair: Pair) -> None:
    connection = pair.feed(b"POST / HTTP/1.1\r\nContent-Length: 150000\r\n\r\n")
    for _ in range(150):
        pair.feed(b"x" * 1000)
    assert connection.complete


def test_many_requests_do_not_add_up_to_a_large_head(pair: Pair) -> None:
    for _ in range(40):
        connection = pair.feed(b"GET / HTTP/1.1\r\nX: " + b"x" * 8000 + b"\r\n\r\n")
        assert connection.finish()


@pytest.mark.parametrize(
    ("head", "keep_alive"),
    [
        (b"GET / HTTP/1.1\r\n\r\n", True),
        (b"GET / HTTP/1.1\r\nConnection: close\r\n\r\n", False),
        (b"GET / HTTP/1.0\r\n\r\n", False),
        (b"GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n", False),
        (b"GET / HTTP/1.1\r\nConnection: Keep-Alive\r\n\r\n", True),
        (b"GET / HTTP/1.1\r\nConnection: TE, Close\r\n\r\n", False),
        (b"GET / HTTP/1.1\r\nConnection: TE\r\nConnection: close\r\n\r\n", False),
        (b"GET / HTTP/1.1\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n", True),
        (b"GET / HTTP/1.1\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\nnot for us", False),
        (b"CONNECT a:80 HTTP/1.1\r\n\r\nnot for us", False),
    ],
)
def test_which_connections_are_kept(pair: Pair, head: bytes, keep_alive: bool) -> None:
    connection = pair.feed(head)
    assert connection.request is not None
    assert connection.complete
    assert connection.keep_alive is keep_alive


def test_a_body_that_is_here_is_read_at_once(pair: Pair) -> None:
    connection = pair.feed(POST + b"0123456789")
    assert connection.complete
    assert connection.body().read() == b"0123456789"


@pytest.mark.parametrize(
    ("head", "pieces"),
    [
        (POST, [b"0123", b"456", b"789"]),
        (CHUNKED, [b"4\r\n0123\r\n", b"3;ext=1\r\n456\r\n3\r", b"\n789\r\n0\r\nTrailer: x\r\n\r\n"]),
    ],
)
def test_a_body_is_read_while_it_comes(pair: Pair, head: bytes, pieces: list[bytes]) -> None:
    connection = pair.feed(head)
    body = connection.body()
    for piece in pieces:
        pair.caller.sendall(piece)
    assert body.read(2) == b"01"
    assert body.read() == b"23456789"
    assert body.read() == b""
    assert connection.complete
    assert connection.finish()


def test_a_body_can_be_read_by_lines(pair: Pair) -> None:
    connection = pair.feed(POST)
    body = connection.body()
    pair.caller.sendall(b"ab\ncd\nefgh")
    assert body.readline() == b"ab\n"
    assert list(body) == [b"cd\n", b"efgh"]


def test_trailers_are_not_kept(pair: Pair) -> None:
    connection = pair.feed(CHUNKED + b"0\r\nLB-Key: x\r\nX: y\r\n\r\n")
    assert connection.complete
    assert connection.request is not None
    assert connection.request.key is None
    assert connection.request.fields == {"HTTP_TRANSFER_ENCODING": "chunked"}


def test_the_application_gets_an_error_when_the_caller_leaves_within_the_body(pair: Pair) -> None:
    connection = pair.feed(POST + b"012")
    pair.caller.close()
    body = connection.body()
    assert body.read(3) == b"012"
    with pytest.raises(ConnectionResetError):
        body.read(1)
    assert connection.broken


def test_the_application_gets_an_error_at_a_reset_within_the_body() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        caller = socket.create_connection(listener.getsockname())
        sock, peer = listener.accept()
    with sock:
        connection = Connection(sock, peer)
        caller.sendall(POST)
        connection.receive()
        caller.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        caller.close()
        with pytest.raises(ConnectionResetError):
            connection.body().read()
        assert connection.broken


def test_the_application_gets_an_error_for_a_malformed_body(pair: Pair) -> None:
    connection = pair.feed(CHUNKED)
    pair.caller.sendall(b"no size\r\n")
    with pytest.raises(OSError, match="the request's body"):
        connection.body().read()
    assert not connection.keep_alive
    assert not connection.broken


def test_the_rest_of_an_answered_requests_body_is_thrown_away(pair: Pair) -> None:
    connection = pair.feed(POST + b"012")
    assert not connection.finish()
    pair.feed(b"3456")
    assert connection.state is DISCARDING
    assert not connection.pieces
    pair.feed(b"789")
    assert connection.state is IDLE
    assert connection.request is None
    pair.feed(GET)
    assert connection.request is not None
    assert connection.request.target == "/one"
    assert connection.body().read() == b""


@pytest.mark.parametrize("rest", [b"3456789", b"789"])
def test_the_next_request_may_come_in_one_piece_with_the_rest_of_an_answered_ones_body(
    pair: Pair, rest: bytes
) -> None:
    connection = pair.feed(POST + b"0123456"[: 10 - len(rest)])
    connection.finish()
    pair.feed(rest + POST + b"abc")
    assert connection.request is not None
    assert connection.state is BODY
    assert connection.keep_alive
    assert not connection.complete
    pair.caller.sendall(b"defghij")
    assert connection.body().read() == b"abcdefghij"


def test_a_pipelined_request_ends_the_connection_after_the_first_answer(pair: Pair) -> None:
    connection = pair.feed(GET + POST)
    assert connection.request is not None
    assert connection.request.target == "/one"
    assert connection.complete
    assert not connection.keep_alive


def test_input_that_an_application_kept_does_not_read_into_the_next_request(pair: Pair) -> None:
    connection = pair.feed(POST + b"0123")
    body = connection.body()
    assert body.read(1) == b"0"
    connection.finish()
    pair.feed(b"456789")
    pair.feed(POST)
    with pytest.raises(ValueError, match="over"):
        body.read()
    pair.caller.sendall(b"abcdefghij")
    assert connection.body().read() == b"abcdefghij"


def test_send_raises_when_the_caller_is_gone(pair: Pair) -> None:
    pair.connection.send(b"x")
    assert pair.caller.recv(1) == b"x"
    pair.caller.close()
    with pytest.raises(BrokenPipeError):
        pair.connection.send(b"x")
    assert pair.connection.broken


def test_hanging_up_reads_on_until_the_caller_ends(pair: Pair) -> None:
    connection = pair.feed(POST)
    assert connection.hang_up()
    assert pair.caller.recv(1) == b""
    pair.feed(b"no HTTP " * 1000)
    assert not connection.pieces
    pair.caller.close()
    assert connection.receive() is False


def test_hanging_up_on_a_caller_that_is_gone_returns_false() -> None:
    with socket.socket() as never_connected:
        assert not Connection(never_connected, None).hang_up()


def test_the_input_is_what_pep_3333_asks_for(pair: Pair) -> None:
    body = pair.feed(POST).body()
    assert isinstance(body, io.BufferedIOBase)
    assert body.readable()
    assert not body.writable()


def test_an_unread_body_is_not_the_beginning_of_the_next_one() -> None:
    """A refused request's body is complete, and its connection is used again."""
    ours, theirs = socket.socketpair()
    with ours, theirs:
        connection = Connection(ours, None)
        for body in (b"refused", b"served"):
            theirs.sendall(b"POST / HTTP/1.1\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body))
            assert connection.receive()
            assert connection.complete
            if body == b"refused":
                assert connection.finish()
        assert connection.body().read() == b"served"
