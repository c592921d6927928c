"""A response's head and body as bytes."""

from __future__ import annotations

import pytest

from lbadaptor.http1 import writer
from lbadaptor.http1.framing import CHUNKED, UNTIL_CLOSE
from lbadaptor.http1.writer import encode, field_lines, refuse_illegal, status_lines


@pytest.mark.parametrize(
    ("status", "line", "code", "empty"),
    [
        ("200 OK", b"HTTP/1.1 200 OK\r\n", 200, False),
        ("404", b"HTTP/1.1 404 \r\n", 404, False),
        ("500 ", b"HTTP/1.1 500 \r\n", 500, False),
        ("299 \xe4\t", b"HTTP/1.1 299 \xe4\t\r\n", 299, False),
        ("204 No Content", b"HTTP/1.1 204 No Content\r\n", 204, True),
        ("304 Not Modified", b"HTTP/1.1 304 Not Modified\r\n", 304, True),
    ],
)
def test_a_status_line(status: str, line: bytes, code: int, empty: bool) -> None:
    assert status_lines[status] == (line, code, empty)


@pytest.mark.parametrize("status", ["", "OK", "20 OK", "100 Continue", "600 x", "200OK", "200 a\r\nb", "200 \u20ac"])
def test_what_is_no_status_is_refused(status: str) -> None:
    with pytest.raises(ValueError, match="is no status"):
        status_lines[status]


def test_headers_are_lines() -> None:
    assert field_lines([("A", "1"), ("B", "\xe4")]) == b"A: 1\r\nB: \xe4\r\n"
    assert field_lines([]) == b""


def test_an_illegal_value_is_refused_and_not_logged() -> None:
    refuse_illegal([("A", "\t\xe4 x")])
    with pytest.raises(ValueError, match="the header B holds") as caught:
        refuse_illegal([("A", "1"), ("B", "secret\n"), ("C", "\0")])
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize("bodiless", [False, True])
@pytest.mark.parametrize("said", [None, 0, 5])
@pytest.mark.parametrize("whole", [None, 0, 7])
@pytest.mark.parametrize("chunked", [False, True])
def test_a_responses_framing(bodiless: bool, said: int | None, whole: int | None, chunked: bool) -> None:
    known = next((size for size in (said, whole) if size is not None), None)
    expected = 0 if bodiless else known if known is not None else CHUNKED if chunked else UNTIL_CLOSE
    assert writer.framing(bodiless, said, whole, chunked) == expected


@pytest.mark.parametrize(
    ("data", "framing", "encoded"),
    [
        (b"hello", CHUNKED, b"5\r\nhello\r\n"),
        (b"", CHUNKED, b""),
        (b"hello", UNTIL_CLOSE, b"hello"),
        (b"hello", 5, b"hello"),
        (b"hello", 9, b"hello"),
        (b"hello", 2, b"he"),
        (b"hello", 0, b""),
    ],
)
def test_a_piece_of_a_body(data: bytes, framing: int, encoded: bytes) -> None:
    assert encode(data, framing) == encoded
