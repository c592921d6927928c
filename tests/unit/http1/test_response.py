"""Responses from bytes, without a socket."""

from __future__ import annotations

import pytest

from lbadaptor.http1.lines import ProtocolError
from lbadaptor.http1.response import MAX_HEAD, HeadTooLarge, MalformedHead, ResponseReader, read_whole

FIELDS = b"Set-Cookie: a=b\r\nX-Foo:  \xe4 b \r\nset-cookie: c\r\nLB-Status: OK\r\nlb-load: 1\r\nKeep-Alive: x\r\n"
COUNTED = b"HTTP/1.1 200 OK\r\n" + FIELDS + b"Content-Length: 5\r\n\r\nhello"
CHUNKS = b"HTTP/1.1 200 OK\r\n" + FIELDS + b"Transfer-Encoding: chunked\r\n\r\n2\r\nhe\r\n3\r\nllo\r\n0\r\n\r\n"
UNTIL_CLOSE = b"HTTP/1.1 200 OK\r\n" + FIELDS + b"\r\nhello"
INTERIM = b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\n"


def feed(reader: ResponseReader, data: bytes, size: int = 1 << 20) -> bytes:
    """All of a response in pieces of `size` bytes; its body."""
    got = b""
    here = False
    for place in range(0, len(data), size):
        piece = data[place : place + size]
        if not here:
            here = reader.feed_head(piece)
            piece = reader.rest
        if here and piece:
            got += b"".join(reader.feed(piece))
    return got


@pytest.mark.parametrize("size", [1, 2, 3, 7, 1000])
@pytest.mark.parametrize("interim", [b"", INTERIM])
@pytest.mark.parametrize("data", [COUNTED, CHUNKS, UNTIL_CLOSE])
def test_however_a_response_is_cut_it_is_the_same(data: bytes, interim: bytes, size: int) -> None:
    reader = ResponseReader("GET")
    assert feed(reader, interim + data, size) == b"hello"
    assert (reader.status, reader.status_line) == (200, "200 OK")
    headers = [("Set-Cookie", "a=b"), ("X-Foo", "\xe4 b"), ("set-cookie", "c")]
    assert reader.headers == headers + ([("Content-Length", "5")] if data == COUNTED else [])
    assert reader.own == {"lb-status": "OK", "lb-load": "1"}
    assert reader.complete is (data != UNTIL_CLOSE)
    if data == UNTIL_CLOSE:
        reader.end()
    assert reader.complete
    assert reader.keep_alive is (data != UNTIL_CLOSE)


def test_the_short_way_reads_a_whole_response_as_the_reader_does() -> None:
    reader = ResponseReader("GET")
    body = feed(reader, COUNTED.replace(b"Keep-Alive: x\r\n", b""))
    whole = read_whole("GET", COUNTED.replace(b"Keep-Alive: x\r\n", b""))
    assert whole == (reader.status, reader.status_line, reader.headers, reader.own, body)


@pytest.mark.parametrize(
    ("method", "data"),
    [
        ("GET", b""),
        ("GET", COUNTED),  # with a field that concerns the connection
        ("GET", CHUNKS),
        ("GET", UNTIL_CLOSE),
        ("HEAD", b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n"),
        ("GET", b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n"),
        ("GET", b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhell"),
        ("GET", b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello!"),
        ("GET", b"HTTP/1.1 200 OK\r\nContent-Length: 05\r\n\r\nhello"),
        ("GET", b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Length: 5\r\n\r\nhello"),
        ("GET", b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nConnection: close\r\n\r\nhello"),
        ("GET", b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nX Y: z\r\n\r\nhello"),
        ("GET", b"HTTP/1.1 200 OK\r\n Content-Length: 5\r\n\r\nhello"),
        ("GET", b"HTTP/1.0 200 OK\r\nContent-Length: 5\r\n\r\nhello"),
        ("GET", b"HTTP/1.1 204 No Content\r\nContent-Length: 0\r\n\r\n"),
        ("GET", b"HTTP/1.1 304 Not Modified\r\nContent-Length: 0\r\n\r\n"),
        ("GET", b"HTTP/1.1 100 Continue\r\n\r\n" + COUNTED),
        ("GET", b"HTTP/1.1 100 Continue\r\nContent-Length: 0\r\n\r\n"),
        ("GET", b"nonsense\r\n\r\n"),
    ],
)
def test_the_short_way_leaves_all_others_to_the_reader(method: str, data: bytes) -> None:
    assert read_whole(method, data) is None


@pytest.mark.parametrize(
    ("line", "status", "text", "keep_alive"),
    [
        (b"HTTP/1.1 404 Not Found", 404, "404 Not Found", True),
        (b"HTTP/1.1 200 ", 200, "200 ", True),
        (b"HTTP/1.1 200", 200, "200 ", True),
        (b"HTTP/1.0 500 \xe4\t", 500, "500 \xe4\t", False),
    ],
)
def test_a_status_line(line: bytes, status: int, text: str, keep_alive: bool) -> None:
    reader = ResponseReader("GET")
    assert reader.feed_head(line + b"\r\nContent-Length: 0\r\n\r\n")
    assert (reader.status, reader.status_line, reader.keep_alive) == (status, text, keep_alive)
    assert reader.complete


@pytest.mark.parametrize(("value", "keep_alive"), [(b"keep-alive", True), (b"Close", False), (b"te, close", False)])
def test_which_connections_are_kept(value: bytes, keep_alive: bool) -> None:
    reader = ResponseReader("GET")
    reader.feed_head(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: %b\r\n\r\n" % value)
    assert reader.keep_alive is keep_alive
    assert reader.headers == [("Content-Length", "0")]


@pytest.mark.parametrize(("method", "status"), [("HEAD", 200), ("GET", 204), ("GET", 304)])
@pytest.mark.parametrize("data", [COUNTED, CHUNKS, UNTIL_CLOSE])
def test_a_response_without_a_body_is_complete_with_its_head(method: str, status: int, data: bytes) -> None:
    reader = ResponseReader(method)
    head = data.partition(b"\r\n\r\n")[0] + b"\r\n\r\n"
    assert reader.feed_head(head.replace(b"200 OK", b"%d x" % status))
    assert reader.complete
    assert reader.keep_alive


@pytest.mark.parametrize(
    "data", [COUNTED, CHUNKS, b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", b"HTTP/1.1 304 x\r\n\r\n"]
)
def test_unrequested_bytes_make_the_connection_useless(data: bytes) -> None:
    reader = ResponseReader("GET")
    feed(reader, data + b"more")
    assert reader.complete
    assert not reader.keep_alive


@pytest.mark.parametrize("data", [COUNTED, CHUNKS])
def test_a_connection_that_ends_within_a_body_is_an_error(data: bytes) -> None:
    for cut in range(data.index(b"\r\n\r\n") + 4, len(data)):
        reader = ResponseReader("GET")
        feed(reader, data[:cut])
        with pytest.raises(ProtocolError, match="missing"):
            reader.end()
        assert not reader.complete


@pytest.mark.parametrize("own", [b"", b"lb-STATUS: OK\r\n"])
@pytest.mark.parametrize(
    "data",
    [
        b"SSH-2.0-OpenSSH\r\n",
        b"<html>",
        b"\r\n\r\n",
        b"HTTP/2 200 OK\r\n%b\r\n",
        b"HTTP/1.1 20 OK\r\n%b\r\n",
        b"HTTP/1.1 200 O\0K\r\n%b\r\n",
        b"HTTP/1.1 101 Switching Protocols\r\n%b\r\n",
        b"HTTP/1.1 200 OK\r\nno colon\r\n%b\r\n",
        b"HTTP/1.1 200 OK\r\nX: a\r\n folded\r\n%b\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Length: 6\r\n%b\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n%b\r\n",
    ],
)
def test_a_malformed_head_says_whether_it_is_an_appservers(data: bytes, own: bytes) -> None:
    filled = data % own if b"%b" in data else data
    for size in (1, 1000):
        with pytest.raises(MalformedHead) as caught:
            feed(ResponseReader("GET"), filled, size)
        assert caught.value.own is (b"%b" in data and own != b"")


def test_a_malformed_body_is_refused() -> None:
    reader = ResponseReader("GET")
    with pytest.raises(ProtocolError):
        feed(reader, CHUNKS.replace(b"2\r\nhe", b"x\r\nhe"))


@pytest.mark.parametrize("interim", [b"", b"HTTP/1.1 100 Continue\r\n\r\n"])
def test_a_head_without_end_is_refused(interim: bytes) -> None:
    reader = ResponseReader("GET")
    line = b"X: " + b"x" * 8000 + b"\r\n"
    assert not reader.feed_head(interim + b"HTTP/1.1 200 OK\r\n")
    assert reader.begun
    for _ in range(MAX_HEAD // len(line) - 1):
        assert not reader.feed_head(line)
    with pytest.raises(HeadTooLarge):
        reader.feed_head(line * 2)


def test_nothing_is_begun_between_heads() -> None:
    reader = ResponseReader("GET")
    assert not reader.begun
    assert not reader.feed_head(INTERIM)
    assert not reader.begun
