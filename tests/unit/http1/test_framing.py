"""Where a body ends: every cell of the table of framing, and the decoders."""

from __future__ import annotations

import contextlib

import pytest

from lbadaptor.http1.framing import (
    CHUNKED,
    UNTIL_CLOSE,
    CountedDecoder,
    UntilCloseDecoder,
    decoder,
    length,
    of_request,
    of_response,
)
from lbadaptor.http1.lines import ProtocolError

REFUSED = None

REQUESTS: list[tuple[str | None, str | None, str, int | None]] = [
    (None, None, "1.1", 0),
    (None, None, "1.0", 0),
    ("0", None, "1.1", 0),
    ("012", None, "1.1", 12),
    ("12", None, "1.0", 12),
    ("x", None, "1.1", REFUSED),
    ("5, 5", None, "1.1", REFUSED),
    ("5, 6", None, "1.1", REFUSED),
    (None, "chunked", "1.1", CHUNKED),
    (None, "Chunked", "1.1", CHUNKED),
    (None, "chunked", "1.0", REFUSED),
    (None, "", "1.1", REFUSED),
    (None, "gzip", "1.1", REFUSED),
    (None, "gzip, chunked", "1.1", REFUSED),
    (None, "chunked, chunked", "1.1", REFUSED),
    ("5", "chunked", "1.1", REFUSED),
    ("x", "chunked", "1.1", REFUSED),
    ("5", "gzip", "1.1", REFUSED),
]


@pytest.mark.parametrize(("said", "codings", "version", "framing"), REQUESTS)
def test_a_requests_framing(said: str | None, codings: str | None, version: str, framing: int | None) -> None:
    with pytest.raises(ProtocolError) if framing is REFUSED else contextlib.nullcontext():
        assert of_request(said, codings, version) == framing


RESPONSES: list[tuple[list[str], str | None, int | None]] = [
    ([], None, UNTIL_CLOSE),
    (["0"], None, 0),
    (["12"], None, 12),
    (["12", "12"], None, 12),
    (["12", "012"], None, 12),
    (["0", "12"], None, REFUSED),
    (["12", "0"], None, REFUSED),
    (["12", "13"], None, REFUSED),
    (["x"], None, REFUSED),
    (["5", "x"], None, REFUSED),
    (["5, 5"], None, REFUSED),
    ([], "chunked", CHUNKED),
    ([], "CHUNKED", CHUNKED),
    ([], "", REFUSED),
    ([], "gzip", REFUSED),
    ([], "gzip, chunked", REFUSED),
    ([], "chunked, chunked", REFUSED),
    (["5"], "chunked", REFUSED),
    (["0"], "chunked", REFUSED),
    (["x"], "chunked", REFUSED),
    (["5", "6"], "chunked", REFUSED),
]


@pytest.mark.parametrize(
    ("method", "status", "bodiless"),
    [("GET", 200, False), ("POST", 404, False), ("HEAD", 200, True), ("GET", 204, True), ("GET", 304, True)],
)
@pytest.mark.parametrize(("said", "codings", "framing"), RESPONSES)
def test_a_responses_framing(
    said: list[str], codings: str | None, framing: int | None, method: str, status: int, bodiless: bool
) -> None:
    """One without a body is checked all the same."""
    with pytest.raises(ProtocolError) if framing is REFUSED else contextlib.nullcontext():
        assert of_response(method, status, said, codings) == (0 if bodiless else framing)


@pytest.mark.parametrize("value", ["", "-1", "+1", "1_0", " 1", "0x1", "1, 1", "\xb2", "9" * 19, "9" * 5000])
def test_a_length_is_a_number_of_bytes(value: str) -> None:
    assert length("0") == 0
    assert length("012") == 12
    with pytest.raises(ProtocolError):
        length(value)


@pytest.mark.parametrize(
    ("framing", "data", "missing"),
    [
        (5, b"hello", "missing bytes"),
        (CHUNKED, b"2\r\nhe\r\n3\r\nllo\r\n0\r\n\r\n", "the last chunk is missing"),
    ],
)
def test_a_body_ends_where_its_framing_says(framing: int, data: bytes, missing: str) -> None:
    for cut in range(len(data)):
        made = decoder(framing)
        pieces = made.feed(data[:cut])
        assert not made.complete
        assert missing in made.missing
        pieces += made.feed(data[cut:] + b"rest")
        assert made.complete
        assert made.missing == ""
        assert (b"".join(pieces), made.rest) == (b"hello", b"rest")
        assert all(pieces)


def test_a_body_without_bytes_is_complete_at_once() -> None:
    assert CountedDecoder(0).complete


def test_a_body_until_the_connections_end_is_complete_only_then() -> None:
    made = decoder(UNTIL_CLOSE)
    assert isinstance(made, UntilCloseDecoder)
    assert made.feed(b"a") + made.feed(b"") + made.feed(b"b") == [b"a", b"b"]
    assert not made.complete
    assert made.missing == made.rest.decode() == ""
