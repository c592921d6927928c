"""Requests from bytes, without a socket."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from lbadaptor.http1.framing import CHUNKED
from lbadaptor.http1.lines import ProtocolError
from lbadaptor.http1.request import MAX_HEAD, MAX_LINES, RequestFields, RequestHead, RequestReader
from lbadaptor.http1.states import BODY, CLOSED, DISCARDING, HEAD, IDLE, LEAVING, REQUEST, IllegalTransition, State


def read_name(name: str) -> Callable[[str], tuple[str | None, str]]:
    cgi = name.upper().replace("-", "_")
    key = None if name == "X-Drop" else cgi if cgi.startswith("CONTENT_") else f"HTTP_{cgi}"
    if name == "X-Encoded":
        return lambda value: (key, value.replace("%20", " "))
    return lambda value: (key, value)


fields = RequestFields(read_name, 65536)


class Head(RequestHead):
    def __init__(self, text: str) -> None:
        super().__init__(text, fields)


def reader() -> RequestReader[Head]:
    return RequestReader(Head)


def feed_byte_by_byte(one: RequestReader[Head], data: bytes) -> None:
    for place in range(len(data)):
        one.feed(data[place : place + 1])


def head(*lines: str) -> Head:
    return Head("\r\n".join(("GET / HTTP/1.1", *lines)))


GET = b"GET /one HTTP/1.1\r\nHost: x\r\n\r\n"
POST = b"POST /two HTTP/1.1\r\nContent-Length: 10\r\nCookie: a=b\r\n\r\n"
CHUNKS = b"POST /three HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n"
BODIES = {GET: b"", POST: b"0123456789", CHUNKS: b"4\r\n0123\r\n6;x=y\r\n456789\r\n0\r\nTrailer: x\r\n\r\n"}


@pytest.mark.parametrize("request_", BODIES)
@pytest.mark.parametrize("size", [1, 2, 3, 7, 1000])
def test_however_a_request_is_cut_it_is_the_same(request_: bytes, size: int) -> None:
    data = request_ + BODIES[request_]
    whole, cut = reader(), reader()
    whole.feed(data)
    states: list[State] = []
    for place in range(0, len(data), size):
        cut.feed(data[place : place + size])
        states.append(cut.state)
    for one in (whole, cut):
        assert one.state is REQUEST
        assert one.keep_alive
        assert one.request is not None
        assert b"".join(one.pieces) == (b"" if request_ == GET else b"0123456789")
        assert one.request.target == request_.split()[1].decode()
        assert one.request.fields == whole.request.fields  # type: ignore[union-attr]
    if size == 1:
        assert states.count(HEAD) == len(request_) - 1
        assert states.count(BODY) == max(0, len(BODIES[request_]))
        assert states.index(REQUEST) == len(data) - 1
    assert cut.unfinished == 0


def test_a_request_a_head_and_a_body_go_through_the_states() -> None:
    one = reader()
    assert one.state is IDLE
    one.feed(POST[:10])
    assert (one.state, one.request, one.unfinished) == (HEAD, None, 10)
    one.feed(POST[10:] + b"0123")
    assert one.state is BODY
    one.feed(b"456789")
    assert one.state is REQUEST
    assert one.answered()
    assert (one.state, one.request, list(one.pieces)) == (IDLE, None, [])
    one.feed(GET)
    assert one.state is REQUEST


def test_the_rest_of_an_answered_requests_body_is_discarded() -> None:
    one = reader()
    one.feed(POST + b"012")
    assert not one.answered()
    assert one.state is DISCARDING
    one.feed(b"3456")
    assert one.state is DISCARDING
    one.feed(b"789")
    assert (one.state, one.request, list(one.pieces)) == (IDLE, None, [])


@pytest.mark.parametrize("next_", [GET, POST, GET[:5]])
def test_the_next_request_may_come_along_with_the_end_of_an_answered_ones_body(next_: bytes) -> None:
    one = reader()
    one.feed(CHUNKS + b"1\r\n")
    one.answered()
    one.feed(b"x\r\n0\r\n\r\n" + next_)
    assert one.state is {GET: REQUEST, POST: BODY, GET[:5]: HEAD}[next_]
    assert one.keep_alive
    assert list(one.pieces) == []


@pytest.mark.parametrize("request_", BODIES)
def test_a_pipelined_request_is_not_read_and_the_connection_ends_with_the_first_answer(request_: bytes) -> None:
    for data in (request_ + BODIES[request_] + GET,), (request_ + BODIES[request_], GET):
        one = reader()
        for piece in data:
            one.feed(piece)
        assert one.state is REQUEST
        assert not one.keep_alive
        assert one.request is not None
        assert one.request.target == request_.split()[1].decode()


@pytest.mark.parametrize("state", [LEAVING, CLOSED])
def test_after_the_last_answer_nothing_is_read(state: State) -> None:
    one = reader()
    one.state = state
    one.feed(b"no HTTP at all")
    assert (one.state, one.request, one.unfinished) == (state, None, 0)


def test_what_was_not_asked_is_not_answered() -> None:
    with pytest.raises(IllegalTransition):
        reader().answered()


def test_to_stop_forgets_what_is_here() -> None:
    one = reader()
    one.feed(GET[:10])
    one.stop()
    assert one.unfinished == 0
    two = reader()
    two.feed(POST + b"01")
    two.stop()
    assert not two.pieces


@pytest.mark.parametrize(
    "data",
    [
        b"\x16\x03\x01\x02\x00\x01",
        b"\r\nGET / HTTP/1.1\r\n\r\n",
        b"GET\r",
        b"G" * 65,
        b"GET / \r\n\r\n",
        b"GET  / HTTP/1.1\r\n\r\n",
        b"GET /\xe4 HTTP/1.1\r\n\r\n",
        b"GET / HTTP/2.0\r\n\r\n",
        b"G(T / HTTP/1.1\r\n\r\n",
        b"GET / HTTP/1.1\r\nno colon\r\n\r\n",
        b"GET / HTTP/1.1\r\nA : b\r\n\r\n",
        b"GET / HTTP/1.1\r\nCookie: a\x01\r\n\r\n",
        b"GET / HTTP/1.1\r\nCookie: a\rb\r\n\r\n",
        b"GET / HTTP/1.1\r\nContent-Length: 1\r\nContent-Length: 1\r\n\r\n",
        CHUNKS + b"no size\r\n",
    ],
)
def test_what_is_malformed_is_refused_with_400(data: bytes) -> None:
    with pytest.raises(ProtocolError) as caught:
        reader().feed(data)
    assert caught.value.status == 400
    with pytest.raises(ProtocolError) as caught:
        feed_byte_by_byte(reader(), data)
    assert caught.value.status == 400


@pytest.mark.parametrize(
    "data",
    [
        b"GET / HTTP/1.1\r\nX: " + b"x" * MAX_HEAD,
        b"GET / HTTP/1.1\r\nX: " + b"x" * MAX_HEAD + b"\r\n\r\n",
        b"GET / HTTP/1.1\r\n" + b"X: long\r\n" * MAX_LINES + b"\r\n",
    ],
    ids=["unfinished", "bytes", "lines"],
)
def test_a_head_that_is_too_large_is_refused_with_431(data: bytes) -> None:
    with pytest.raises(ProtocolError) as caught:
        reader().feed(data)
    assert caught.value.status == 431


def test_as_many_lines_as_may_be_are_read() -> None:
    one = reader()
    one.feed(b"GET / HTTP/1.1\r\n" + b"X: long\r\n" * (MAX_LINES - 1) + b"\r\n")
    assert one.state is REQUEST


@pytest.mark.parametrize(
    ("lines", "read"),
    [
        (["X-A: 1", "x-a: 2"], {"HTTP_X_A": "1, 2"}),
        (["Cookie: a=1", "Host: x", "Cookie: b=2"], {"HTTP_COOKIE": "a=1; b=2", "HTTP_HOST": "x"}),
        (["Content-Type: a", "Content-Type: b"], {"CONTENT_TYPE": "b"}),
        (["X-Drop: 1", "X-Drop: 2", "Host: x"], {"HTTP_HOST": "x"}),
        (["X-Encoded: a%20b", "Cookie: a%20b"], {"HTTP_X_ENCODED": "a b", "HTTP_COOKIE": "a%20b"}),
        (["Cookie:a", "Referer:  b  ", "X: \t c\t "], {"HTTP_COOKIE": "a", "HTTP_REFERER": "b", "HTTP_X": "c"}),
        (["X:a: b", "Cookie:a=b: c"], {"HTTP_X": "a: b", "HTTP_COOKIE": "a=b: c"}),
        (["Referer: \xe4\t\xff", "X-Empty:"], {"HTTP_REFERER": "\xe4\t\xff", "HTTP_X_EMPTY": ""}),
    ],
)
def test_fields_have_the_names_of_cgi(lines: list[str], read: dict[str, str]) -> None:
    for _ in range(2):
        assert head(*lines).fields == read


@pytest.mark.parametrize(
    ("version", "lines", "keep_alive"),
    [
        ("1.1", [], True),
        ("1.0", [], False),
        ("1.0", ["Connection: keep-alive"], False),
        ("1.1", ["Connection: Keep-Alive"], True),
        ("1.1", ["Connection: TE, Close"], False),
        ("1.1", ["Connection: TE", "Connection: close"], False),
    ],
)
def test_which_connections_are_kept(version: str, lines: list[str], keep_alive: bool) -> None:
    made = Head("\r\n".join((f"GET / HTTP/{version}", *lines)))
    assert made.keep_alive is keep_alive
    assert "HTTP_CONNECTION" not in made.fields


def test_a_head_says_how_its_body_is_framed() -> None:
    assert head().framing == 0
    assert head("Content-Length: 12").framing == 12
    assert head("Transfer-Encoding: chunked").framing == CHUNKED
