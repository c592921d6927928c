"""What is in a session's file. Pure.

A fixed prefix, a head, and the content, as the reader of the framework's store gave it. A bare head has no content.
The head is read before the content is loaded: it says whether this process may load it at all.

    magic "LBS1" | length of the head | 0, or 1 + length of the content | CRC-32 of all else | head | content

Numbers are unsigned, of 4 bytes, little endian. The head is msgpack.
"""

from __future__ import annotations

import hashlib
from struct import Struct as Layout
from zlib import crc32

import msgspec
from msgspec import Struct

MAX_SESSION = 64 * 1024 * 1024
"""Bytes of a file. A larger one is neither written nor read."""

_MAGIC = b"LBS1"
_LENGTHS = Layout("<4sII")
_CRC = Layout("<I")
_PREFIX = _LENGTHS.size + _CRC.size


class Damaged(Exception):
    """The file is not a whole session: the text says why."""


class Head(Struct, frozen=True, omit_defaults=True):
    """What is known of a session beside its content."""

    kind: str
    """of the reader that gave the content"""
    application: str
    secret: str = ""
    """fingerprint of the key that signs the session cookie; empty: it is not signed"""
    attributes: tuple[str, ...] = ()
    """of the session cookie as it was set, without Expires and Max-Age"""
    cookie_ends: float = 0.0
    """unix time; 0: with the browser"""
    ends: float = 0.0
    """unix time when the session ends; never 0 in a file that was written"""
    deaths: int = 0
    """owners that have died since it answered last"""


_to_msgpack = msgspec.msgpack.Encoder().encode
_to_head = msgspec.msgpack.Decoder(Head).decode


def name_of(kind: str, ident: str) -> str:
    """The name of a session's file: 40 hex digits. Whoever reads it cannot tell the session's id.

    Never raises, whatever characters the id has.
    """
    return hashlib.blake2b(f"{kind}\0{ident}".encode("utf-8", "surrogatepass"), digest_size=20).hexdigest()


def encode(head: Head, content: bytes | None) -> bytes:
    """The bytes of a file. `content` None: a bare head."""
    packed = _to_msgpack(head)
    lengths = _LENGTHS.pack(_MAGIC, len(packed), 0 if content is None else len(content) + 1)
    rest = packed if content is None else packed + content
    return b"".join((lengths, _CRC.pack(crc32(rest, crc32(lengths))), rest))


def decode(data: bytes) -> tuple[Head, bytes | None]:
    """The head, and the content; None: a bare head. What follows the length that the prefix says is ignored.

    Raises Damaged for a file that is cut off, mixed from two writes, or another program's.
    """
    if len(data) < _PREFIX:
        raise Damaged(f"it has only {len(data)} bytes")
    magic, of_head, of_content = _LENGTHS.unpack_from(data)
    if magic != _MAGIC:
        raise Damaged("it does not begin as a session's file of this version does")
    end = _PREFIX + of_head + max(of_content - 1, 0)
    if len(data) < end:
        raise Damaged(f"it is cut off: {len(data)} bytes of {end}")
    view = memoryview(data)
    if crc32(view[_PREFIX:end], crc32(view[: _LENGTHS.size])) != _CRC.unpack_from(data, _LENGTHS.size)[0]:
        raise Damaged("its checksum is wrong")
    try:
        head = _to_head(view[_PREFIX : _PREFIX + of_head])
    except msgspec.DecodeError as error:
        raise Damaged(f"its head cannot be read: {error}") from None
    return head, data[_PREFIX + of_head : end] if of_content else None
