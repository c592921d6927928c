"""Where a message's body ends (RFC 9112 §6.3), for requests and for responses.

A message that could be read in two ways is refused: a proxy and a server that understand it differently can be played
off against each other (request smuggling).

    Content-Length     Transfer-Encoding    request               response
    none               none                 no body               until the connection's end
    a number           none                 as many bytes         as many bytes
    not a number       any                  refused               refused
    repeated, equal    none                 refused               as many bytes
    repeated, unequal  any                  refused               refused
    none               chunked              chunks                chunks
    none               anything else        refused               refused
    a number           any                  refused               refused
    none               chunked, HTTP/1.0    refused               chunks

A response to HEAD, and one with status 204 or 304, has no body, whatever its fields say. They are checked all the
same.
"""

from __future__ import annotations

import re
from typing import Protocol

from lbadaptor.http1.chunks import ChunkDecoder
from lbadaptor.http1.lines import ProtocolError

Framing = int
"""A body's bytes, or one of the following."""
CHUNKED: Framing = -1
"""The body comes in chunks."""
UNTIL_CLOSE: Framing = -2
"""The body ends with the connection."""

BODILESS = frozenset((204, 304))
"""Statuses of responses that have no body."""

_LENGTH = re.compile(r"[0-9]{1,18}").fullmatch


def length(value: str) -> int:
    """The bytes that a Content-Length says (RFC 9110 §8.6). Raises ProtocolError."""
    if not _LENGTH(value):
        raise ProtocolError(f"Content-Length {value[:40]!r}")
    return int(value)


def of_request(stated: str | None, codings: str | None, version: str) -> Framing:
    """`stated`, `codings`: Content-Length and Transfer-Encoding, joined by commas where they are repeated.

    `version`: "1.0" or "1.1". Raises ProtocolError.
    """
    if codings is None:
        return 0 if stated is None else length(stated)
    if codings.lower() != "chunked" or stated is not None or version == "1.0":
        raise ProtocolError(f"Transfer-Encoding {codings[:40]!r}")
    return CHUNKED


def of_response(method: str, status: int, lengths: list[str], codings: str | None) -> Framing:
    """`method`: the request's. `lengths`: every Content-Length. `codings`: Transfer-Encoding, joined by commas.

    Raises ProtocolError.
    """
    framing = UNTIL_CLOSE
    for value in lengths:
        size = length(value)
        if framing not in (UNTIL_CLOSE, size):
            raise ProtocolError("two different lengths")
        framing = size
    if codings is not None:
        if codings.lower() != "chunked" or lengths:
            raise ProtocolError(f"Transfer-Encoding {codings[:40]!r}")
        framing = CHUNKED
    return 0 if method == "HEAD" or status in BODILESS else framing


class Decoder(Protocol):
    """Takes a body's bytes as they come, and gives pieces of the body."""

    complete: bool
    """all of the body was read"""
    rest: bytes
    """what came after its end"""

    @property
    def missing(self) -> str:
        """What is missing where the connection ends now; empty if nothing is."""

    def feed(self, data: bytes) -> list[bytes]:
        """Pieces of the body, none of them empty. Raises ProtocolError."""


class CountedDecoder:
    """A body whose length is known from its head."""

    def __init__(self, size: int) -> None:
        self.complete = not size
        self.rest = b""
        self._left = size

    @property
    def missing(self) -> str:
        return f"missing bytes: {self._left}" if self._left else ""

    def feed(self, data: bytes) -> list[bytes]:
        left = self._left
        if len(data) > left:
            self.rest = data[left:]
            data = data[:left]
        self._left = left = left - len(data)
        self.complete = not left
        return [data] if data else []


class UntilCloseDecoder:
    """A body that ends with the connection, and so is never complete before."""

    complete = False
    rest = b""
    missing = ""

    def feed(self, data: bytes) -> list[bytes]:
        return [data] if data else []


def decoder(framing: Framing) -> Decoder:
    """The decoder for a body."""
    if framing == CHUNKED:
        return ChunkDecoder()
    return UntilCloseDecoder() if framing == UNTIL_CLOSE else CountedDecoder(framing)
