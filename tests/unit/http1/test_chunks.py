"""Bodies in chunks."""

from __future__ import annotations

import random

import pytest

from lbadaptor.http1.chunks import LAST, MAX_LINE, MAX_TRAILERS, ChunkDecoder, encode
from lbadaptor.http1.lines import ProtocolError

BODY = b'5\r\nhello\r\n1;x=y\r\n \r\nA ;x="y"\r\n0123456789\r\n000\r\nTrailer: x\r\nOther: y\r\n\r\n'


def test_a_body_is_what_the_chunks_hold() -> None:
    chunks = ChunkDecoder()
    assert chunks.feed(BODY + b"rest") == [b"hello", b" ", b"0123456789"]
    assert chunks.complete
    assert chunks.rest == b"rest"


def test_it_is_over_at_the_end_of_its_trailers_and_no_sooner() -> None:
    for end in range(len(BODY)):
        chunks = ChunkDecoder()
        chunks.feed(BODY[:end])
        assert not chunks.complete
        chunks.feed(BODY[end:])
        assert chunks.complete
        assert chunks.rest == b""


@pytest.mark.parametrize("seed", range(20))
def test_however_it_is_cut_it_is_the_same(seed: int) -> None:
    chance = random.Random(seed)
    pieces = [bytes(chance.choices(b"ab\r\n0", k=chance.randrange(1, 40))) for _ in range(chance.randrange(20))]
    data = b"".join(map(encode, pieces)) + LAST
    chunks, got, place = ChunkDecoder(), b"", 0
    while place < len(data):
        step = chance.randrange(1, 20)
        got += b"".join(chunks.feed(data[place : place + step]))
        place += step
    assert got == b"".join(pieces)
    assert chunks.complete


@pytest.mark.parametrize(
    "data",
    [
        b"\r\n",
        b"x\r\n",
        b"-5\r\n",
        b"0x5\r\n",
        b"1_0\r\n",
        b" 5\r\n",
        b"5 5\r\n",
        b"5\n",
        b"f" * 16 + b"\r\n",
        b"3\r\nhello\r\n",
        b"3\r\nabc\n",
        b"3\r\nabc\rx\n",
        b"0\r\n\n",
        b"5" * (MAX_LINE + 1),
        b"5;" + b"x" * MAX_LINE + b"\r\n",
        b"3\r\nabc" + b"x" * (MAX_LINE + 1),
        b"0\r\n" + b"X: y\r\n" * MAX_TRAILERS,
    ],
    ids=lambda data: repr(data[:20]),
)
def test_what_is_malformed_is_refused(data: bytes) -> None:
    with pytest.raises(ProtocolError):
        ChunkDecoder().feed(data)
    chunks = ChunkDecoder()

    def feed_in_pieces() -> None:
        for place in range(0, len(data), 1000):
            chunks.feed(data[place : place + 1000])

    with pytest.raises(ProtocolError):
        feed_in_pieces()
