"""What is in a session's file: nothing but what was written comes out of it."""

from __future__ import annotations

import random
import struct
import zlib

import msgspec
import pytest

from lbadaptor.appserver.sessions.persistence.format import Damaged, Head, decode, encode, name_of

HEAD = Head("flask", "shop", "0123456789abcdef", ("Path=/", "HttpOnly", "SameSite=Lax"), 1e9 + 0.25, 2e9, 1)
HEADS = [HEAD, Head("django", "shop", ends=1e9), Head("own", "ü" * 300, attributes=("",) * 20, ends=1e-3)]
CONTENTS = [None, b"", b"\0", b"content", bytes(range(256)) * 40, b"\xff" * 100_000]


@pytest.mark.parametrize("content", CONTENTS, ids=lambda content: str(content and len(content)))
@pytest.mark.parametrize("head", HEADS, ids=lambda head: head.kind)
def test_what_was_written_comes_out(head: Head, content: bytes | None) -> None:
    assert decode(encode(head, content)) == (head, content)


def test_whatever_was_written_comes_out() -> None:
    chance = random.Random(1)
    for _ in range(500):
        head = Head(
            "".join(map(chr, chance.choices(range(1, 0xD000), k=chance.randrange(20)))),
            chance.randbytes(chance.randrange(10)).hex(),
            chance.choice(("", "f" * 16)),
            tuple(chance.randbytes(chance.randrange(30)).hex() for _ in range(chance.randrange(5))),
            chance.uniform(0, 1e10),
            chance.uniform(1, 1e10),
            chance.randrange(3),
        )
        content = chance.choice((None, chance.randbytes(chance.randrange(5000))))
        assert decode(encode(head, content)) == (head, content)


def test_no_content_is_not_an_empty_one() -> None:
    assert decode(encode(HEAD, None))[1] is None
    assert decode(encode(HEAD, b""))[1] == b""


@pytest.mark.parametrize("content", CONTENTS[:4])
def test_what_follows_is_ignored(content: bytes | None) -> None:
    """A shorter session was written over a longer one."""
    for rest in (b"\0", b"\0" * 4000, encode(HEAD, b"the session of before")):
        assert decode(encode(HEAD, content) + rest) == (HEAD, content)


@pytest.mark.parametrize("content", CONTENTS[:4])
def test_a_file_that_is_cut_off_anywhere_is_damaged(content: bytes | None) -> None:
    data = encode(HEAD, content)
    for length in range(len(data)):
        with pytest.raises(Damaged):
            decode(data[:length])


@pytest.mark.parametrize("content", CONTENTS[:4])
def test_every_single_bit_counts(content: bytes | None) -> None:
    data = encode(HEAD, content)
    for place in range(len(data)):
        for bit in range(8):
            wrong = bytearray(data)
            wrong[place] ^= 1 << bit
            with pytest.raises(Damaged):
                decode(bytes(wrong))
            with pytest.raises(Damaged):
                decode(bytes(wrong) + b"\0" * 300)  # lengths that are wrong end within what follows


def test_a_file_of_two_writes_is_damaged() -> None:
    one, other = encode(HEAD, b"a" * 500), encode(HEAD, b"b" * 500)
    for length in range(1, len(one)):
        mixed = other[:length] + one[length:]
        if mixed not in (one, other):
            with pytest.raises(Damaged):
                decode(mixed)


@pytest.mark.parametrize(
    "data",
    [
        *(b"", b"\0", b"\0" * 4096, b"LBS1", b"LBS2" + encode(HEAD, b"x")[4:], b"#!/bin/sh\nrm -r /\n" * 10),
        *(b"\x80\x04\x95" + b"." * 100, b"LBS1" + b"\xff" * 12, b"LBS1" + b"\xff" * 5000, b'{"session": 1}' * 30),
    ],
)
def test_a_file_of_another_program_is_damaged(data: bytes) -> None:
    with pytest.raises(Damaged):
        decode(data)


def with_head(packed: bytes) -> bytes:
    lengths = struct.pack("<4sII", b"LBS1", len(packed), 0)
    return lengths + struct.pack("<I", zlib.crc32(packed, zlib.crc32(lengths))) + packed


@pytest.mark.parametrize("head", [{}, {"kind": "flask"}, {"kind": 1, "application": "shop"}, [], "flask", None, 7])
def test_a_head_that_is_none_is_damaged(head: object) -> None:
    with pytest.raises(Damaged):
        decode(with_head(msgspec.msgpack.encode(head)))


@pytest.mark.parametrize("packed", [b"", b"\xc1", b"\xdf\xff\xff\xff\xff", b"\x82\xa4kind"])
def test_a_head_that_is_not_msgpack_is_damaged(packed: bytes) -> None:
    with pytest.raises(Damaged):
        decode(with_head(packed))


def test_a_head_with_more_in_it_can_be_read() -> None:
    """A later version wrote it, and this one goes on."""
    later = {"kind": "flask", "application": "shop", "ends": 5.0, "colour": "blue"}
    assert decode(with_head(msgspec.msgpack.encode(later))) == (Head("flask", "shop", ends=5.0), None)


def test_damaged_says_what_is_wrong() -> None:
    with pytest.raises(Damaged, match="cut off: 100 bytes of"):
        decode(encode(HEAD, b"x" * 500)[:100])


def test_names_are_40_hex_digits_and_differ() -> None:
    pairs = [("flask", "a"), ("flask", "b"), ("django", "a"), ("", "flaska"), ("fl", "aska"), ("flask", ""), ("", "")]
    names = [name_of(kind, ident) for kind, ident in pairs]
    assert len({*names}) == len(pairs)
    assert all(len(name) == 40 and {*name} <= {*"0123456789abcdef"} for name in names)
    assert name_of("flask", "a") == names[0]


def test_a_name_is_the_same_for_ever() -> None:
    """A session that was saved by this version is found by every later one."""
    assert name_of("flask", "abc") == "1a7ebe41498ba26d4edb5ade9869a71434601d9f"


@pytest.mark.parametrize("ident", ["\udcff\ud800", "\0", "../../etc/passwd", "x" * 100_000])
def test_any_id_has_a_name(ident: str) -> None:
    assert len(name_of("flask", ident)) == 40
