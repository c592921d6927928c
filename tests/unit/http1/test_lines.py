"""The lines of a head, and bodies in chunks."""

from __future__ import annotations

import contextlib
import random
import re
import tracemalloc

import pytest

from lbadaptor.http1.lines import (
    LONGEST,
    MAX_LINE,
    MAX_TRAILERS,
    TEXT,
    Chunks,
    Lines,
    Memory,
    NotHttp,
    illegal,
    is_name,
    length,
)

BOUND = 65536


def mean(name: str, value: str) -> tuple[str, str]:
    asked.append(name)
    return name.lower(), value


asked: list[str] = []


def test_what_comes_again_is_read_but_once() -> None:
    read: list[str] = []
    memory = Memory(lambda text: read.append(text) or text.upper(), BOUND)  # type: ignore[func-returns-value]
    assert [memory[text] for text in ("a", "b", "a")] == ["A", "B", "A"]
    assert read == ["a", "b"]


def test_an_error_is_not_remembered() -> None:
    memory = Memory(int, BOUND)
    for _ in range(2):
        with pytest.raises(ValueError, match="invalid"):
            memory["x"]
    assert not memory


@pytest.fixture
def lines() -> Lines[tuple[str, str]]:
    asked.clear()
    return Lines(mean, BOUND)


@pytest.mark.parametrize(
    ("line", "meaning"),
    [
        ("Host: a", ("host", "a")),
        ("Host:a", ("host", "a")),
        ("Host: \t a b\t ", ("host", "a b")),
        ("Host:", ("host", "")),
        ("Host: a: b", ("host", "a: b")),
        ("Host: \xe4\x80\t\xff", ("host", "\xe4\x80\t\xff")),
    ],
)
def test_a_line_is_a_name_and_a_value(lines: Lines[tuple[str, str]], line: str, meaning: tuple[str, str]) -> None:
    assert lines[line] == meaning


@pytest.mark.parametrize("line", ["", "Host", " folded", "A: b\rc", "A: b\nc", "A: b\0c", "A: b\x01c", "A: \x7f"])
def test_what_is_no_line_is_refused_every_time(lines: Lines[tuple[str, str]], line: str) -> None:
    for _ in range(2):
        with pytest.raises(NotHttp):
            lines[line]


def test_a_line_that_comes_again_is_read_but_once(lines: Lines[tuple[str, str]]) -> None:
    assert lines["Host: a"] is lines["Host: a"]
    assert asked == ["Host"]


SECRETS = [
    *(
        "Cookie",
        "set-cookie",
        "AUTHORIZATION",
        "Proxy-Authorization",
        "X-Api-Key",
        "LB-Key",
        "LB-Path",
        "LB-Request-Uri",
    ),
    *(
        "LB-Query",
        "LB-Remote-User",
        "LB-Var-SSL-CLIENT-CERT",
        "Location",
        "ETag",
        "Referer",
        "X-Made-Up",
    ),
]


@pytest.mark.parametrize("name", SECRETS)
def test_what_may_be_a_secret_is_not_kept(lines: Lines[tuple[str, str]], name: str) -> None:
    assert [lines[f"{name}: a"] for _ in range(2)] == [(name.lower(), "a")] * 2
    assert asked == [name, name]
    assert not lines


def test_a_long_one_is_not_remembered(lines: Lines[tuple[str, str]]) -> None:
    assert lines["Host: " + "a" * LONGEST][1] == "a" * LONGEST
    assert not lines


@pytest.mark.parametrize("length", [1, 200])
def test_what_is_made_up_takes_no_memory_without_bound(length: int) -> None:
    for kept in (Lines(lambda name, value: (name.lower(), value), BOUND), Memory(str.upper, BOUND)):
        tracemalloc.start()
        for number in range(2000):
            text = f"Host: {number}{'a' * length}"
            assert kept[text] == (("host", text[6:]) if isinstance(kept, Lines) else text.upper())
        taken, _ = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        assert 0 < len(kept) < 200
        assert taken < BOUND + 20_000


@pytest.mark.parametrize("code", range(0x120))
def test_what_a_header_may_hold_is_one_definition(lines: Lines[tuple[str, str]], code: int) -> None:
    """RFC 9110 §5.5: a tab, what is visible, and bytes of other character sets."""
    legal = code == 9 or 0x20 <= code <= 0x7E or 0x80 <= code <= 0xFF
    text = f"a{chr(code)}b"
    assert (illegal(text) is None) is legal
    assert (re.fullmatch(TEXT, text) is not None) is legal
    with contextlib.nullcontext() if legal else pytest.raises(NotHttp):
        assert lines[f"X: {text}"] == ("x", text)


@pytest.mark.parametrize(
    ("text", "verdict"), [("X-Foo", True), ("a!#$%&'*+.^_`|~-", True), ("", False), ("a b", False), ("\xe4", False)]
)
def test_names_are_tokens(text: str, verdict: bool) -> None:
    assert is_name(text) is verdict


@pytest.mark.parametrize("value", ["", "-1", "+1", "1_0", " 1", "0x1", "1, 1", "\xb2", "9" * 19, "9" * 5000])
def test_a_length_is_a_number_of_bytes(value: str) -> None:
    assert length("0") == 0
    assert length("012") == 12
    with pytest.raises(NotHttp):
        length(value)


BODY = b'5\r\nhello\r\n1;x=y\r\n \r\nA ;x="y"\r\n0123456789\r\n000\r\nTrailer: x\r\nOther: y\r\n\r\n'


def test_a_body_is_what_the_chunks_hold() -> None:
    chunks = Chunks()
    assert chunks.feed(BODY + b"rest") == [b"hello", b" ", b"0123456789"]
    assert chunks.over
    assert chunks.rest == b"rest"


def test_it_is_over_at_the_end_of_its_trailers_and_no_sooner() -> None:
    for end in range(len(BODY)):
        chunks = Chunks()
        chunks.feed(BODY[:end])
        assert not chunks.over
        chunks.feed(BODY[end:])
        assert chunks.over
        assert chunks.rest == b""


@pytest.mark.parametrize("seed", range(20))
def test_however_it_is_cut_it_is_the_same(seed: int) -> None:
    chance = random.Random(seed)
    pieces = [bytes(chance.choices(b"ab\r\n0", k=chance.randrange(1, 40))) for _ in range(chance.randrange(20))]
    data = b"".join(b"%x\r\n%b\r\n" % (len(piece), piece) for piece in pieces) + b"0\r\n\r\n"
    chunks, got, place = Chunks(), b"", 0
    while place < len(data):
        step = chance.randrange(1, 20)
        got += b"".join(chunks.feed(data[place : place + step]))
        place += step
    assert got == b"".join(pieces)
    assert chunks.over


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
    with pytest.raises(NotHttp):
        Chunks().feed(data)
    chunks = Chunks()

    def feed_in_pieces() -> None:
        for place in range(0, len(data), 1000):
            chunks.feed(data[place : place + 1000])

    with pytest.raises(NotHttp):
        feed_in_pieces()
