"""The server's side: a response's head and body as bytes."""

from __future__ import annotations

import re
from collections.abc import Iterable

from lbadaptor.http1 import chunks
from lbadaptor.http1.framing import BODILESS, CHUNKED, UNTIL_CLOSE, Framing
from lbadaptor.http1.lines import TEXT, Memo, illegal

CHUNKED_FIELD = b"Transfer-Encoding: chunked\r\n"
CLOSE_FIELD = b"Connection: close\r\n"

_STATUS = re.compile(rf"[2-5][0-9]{{2}}( {TEXT})?").fullmatch


def _status_line(status: str) -> tuple[bytes, int, bool]:
    if not _STATUS(status):
        raise ValueError(f"{status!r} is no status")
    code = int(status[:3])
    return f"HTTP/1.1 {status}{'' if len(status) > 3 else ' '}\r\n".encode("latin-1"), code, code in BODILESS


status_lines = Memo(_status_line, 65536)
"""By a status as PEP 3333 writes it ("200 OK"): the line, the code, and whether the response has no body whatever its
method. Raises ValueError."""


def field_lines(headers: Iterable[tuple[str, str]]) -> bytes:
    """Lines of headers that were checked."""
    return "".join([f"{name}: {value}\r\n" for name, value in headers]).encode("latin-1")


def refuse_illegal(headers: Iterable[tuple[str, str]]) -> None:
    """Raise ValueError if a value holds a character that none may hold.

    The message does not show the value, which may be a secret.
    """
    for name, value in headers:
        if found := illegal(value):
            raise ValueError(f"the header {name} holds {found[0]!r}, which no header may hold")


def framing(bodiless: bool, stated: int | None, whole: int | None, chunked: bool) -> Framing:
    """How a response's body is framed (RFC 9112 §6.3).

    `stated`: by a Content-Length. `whole`: the body's length where all of it is known. `chunked`: the client can read
    chunks (HTTP/1.1).
    """
    if bodiless:
        return 0
    if stated is not None:
        return stated
    if whole is not None:
        return whole
    return CHUNKED if chunked else UNTIL_CLOSE


def encode(data: bytes, framing: Framing) -> bytes:
    """A piece of a body. If the length is known, never more than that: the rest would begin the next response."""
    if framing >= 0:
        return data[:framing]
    return chunks.encode(data) if data and framing == CHUNKED else data
