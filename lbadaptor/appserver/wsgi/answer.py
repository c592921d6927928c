"""The application's answer → HTTP/1.1 (PEP 3333, RFC 9112)."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator
from enum import Enum
from types import TracebackType
from typing import IO, Any, Protocol

from lbadaptor.contract.headers import HOP_BY_HOP, is_ours
from lbadaptor.http1.lines import TEXT, Memo, illegal, is_name

Headers = list[tuple[str, str]]
ExcInfo = tuple[type[BaseException], BaseException, TracebackType]

_STATUS = re.compile(rf"[2-5][0-9]{{2}}( {TEXT})?").fullmatch


class _Kind(Enum):
    """What becomes of a header of the application's."""

    SENT = "it is sent"
    COOKIE = "it is sent, and may tell of a session"
    LENGTH = "it is sent, and the body has to fit it"
    DROPPED = "it is the gateway's to say"


_SENT = _Kind.SENT  # an enum's own look-up takes longer


class Caller(Protocol):
    """Whom an answer is for, and what is known of the request."""

    keep_alive: bool
    """the connection may carry another request"""

    @property
    def complete(self) -> bool:
        """All of the request's body is here."""

    def send(self, data: bytes) -> None:
        """Blocks."""


class Answer:
    """One answer: `start_response` and `write` for the application, bytes for the caller.

    `chunks`: the caller knows chunks (HTTP/1.1); for others, the connection's end is the answer's. `amend` gets the
    application's headers, and whether cookies are set among them, and gives those to be sent; `own` gives ours, the
    last lines of the head. Sending blocks as long as the caller takes nothing.

    `release` is called once, with the caller, as soon as the last byte is out: before the iterable is closed, and
    even before it is exhausted where the head says how much comes. From then on the caller may send its next request,
    and nothing here uses it again. Only where not all of the request's body is here when the head is sent, the
    application may read it until the iterable is exhausted; and where the caller could see the answer's end before,
    the head says that the connection ends with it.
    """

    begun = False
    """something was sent"""
    undelivered = False
    """its head could not be sent: if the caller had hung up, nobody has any of it"""
    released = False
    """the last byte is out"""
    _status = b""
    _headers: Headers
    _lines = b""
    """the headers as they are sent, until they are amended"""
    _cookies = False
    """a cookie is set among them"""
    _length: int | None = None
    """what the application says that it is"""
    _left: int | None = None
    """bytes of a counted body that are still to come"""
    _chunked = False
    _bodiless = False
    _early = True
    """the caller may be released before the iterable is exhausted"""

    def __init__(
        self,
        caller: Caller,
        method: str,
        chunks: bool,
        amend: Callable[[Headers, bool], Headers],
        own: Callable[[], bytes],
        release: Callable[[Any], object],
    ) -> None:
        self._caller = caller
        self._method = method
        self._chunks = chunks
        self._amend = amend
        self._own = own
        self._release = release

    def start_response(
        self, status: str, headers: Headers, exc_info: ExcInfo | None = None
    ) -> Callable[[bytes], None]:
        """PEP 3333's. Raises what the application did wrong, so that its log says where."""
        if exc_info:
            try:
                if self.begun:
                    raise exc_info[1].with_traceback(exc_info[2])
            finally:
                exc_info = None  # no cycle through the traceback
        elif self._status:
            raise AssertionError("start_response was called twice, without exc_info")
        line = _status_lines[status]
        kept = []
        text = ""
        length: str | None = None
        cookies = False
        for header in headers:
            name, value = header
            kind = _kinds[name]
            if kind is not _SENT:
                if kind is _Kind.DROPPED:
                    continue
                if kind is _Kind.COOKIE:
                    cookies = True
                elif not (value.isascii() and value.isdigit() and len(value) < 19 and length in (None, value)):
                    raise ValueError(f"Content-Length is {value!r}{f' and {length!r}' if length else ''}")
                else:
                    length = value
            kept.append(header)
            text += name + ": " + value + "\r\n"
        # The line breaks being ours, and the rest printable ASCII, all are legal; else each is looked at.
        values = text.replace("\r\n", "")
        if len(text) - len(values) != 2 * len(kept) or not (values.isascii() and values.isprintable()):
            _refuse_illegal(kept)
        self._lines = text.encode("latin-1")
        self._status = line
        self._headers = kept
        self._cookies = cookies
        self._length = None if length is None else int(length)
        return self.write

    def run(self, application: Callable[..., Iterable[bytes]], environ: dict[str, Any]) -> None:
        """Call the application and send its whole answer. Raises what it raises, and ShortAnswer."""
        blocks = application(environ, self.start_response)
        try:
            whole = not self.begun and isinstance(blocks, (list, tuple)) and len(blocks) == 1
            for block in blocks:
                if whole:
                    self._head(len(block), block)
                elif block:
                    self.write(block)
            self._end()
        finally:
            close = getattr(blocks, "close", None)
            if close is not None:
                close()

    def write(self, data: bytes) -> None:
        """PEP 3333's: the head first, if it is not out yet."""
        if not self.begun:
            self._head(None, data)
        elif not self.released:
            self._body(data)

    def fail(self) -> None:
        """The application failed before anything was sent: say so to the visitor, as mod_wsgi does."""
        page = b"<!DOCTYPE html>\n<title>500 Internal Server Error</title><h1>Internal Server Error</h1>\n"
        self._status = b""
        self.start_response("500 Internal Server Error", [("Content-Type", "text/html")])
        self._head(len(page), page)
        self._over()

    def _end(self) -> None:
        """The iterable is exhausted."""
        if self.released:
            return
        if not self.begun:
            if self._length and not self._is_bodiless():
                raise ShortAnswer(f"not one byte of {self._length} that Content-Length says")  # it can be a 500 still
            self._head(0, b"")
        if self._chunked:
            self._caller.send(b"0\r\n\r\n")
        elif self._left and not self._bodiless:
            raise ShortAnswer(f"the answer is {self._left} bytes shorter than its Content-Length")
        self._over()

    def _over(self) -> None:
        """The last byte is out."""
        if not self.released:
            self.released = True
            self._release(self._caller)

    def _is_bodiless(self) -> bool:
        return self._method == "HEAD" or self._status.startswith(_EMPTY)

    def _head(self, length: int | None, first: bytes) -> None:
        """Send the head along with the first block. `length`: the body's, where the application is not asked."""
        if not self._status:
            raise AssertionError("start_response was not called")
        headers = self._amend(self._headers, self._cookies)
        lines = self._lines if headers is self._headers else _written(headers)
        empty = self._status.startswith(_EMPTY)
        self._bodiless = empty or self._method == "HEAD"
        self._chunked = False
        self._left = self._length
        caller = self._caller
        framing = b""
        if self._left is not None:
            if empty and self._status.startswith(b"HTTP/1.1 204"):  # has none (RFC 9110 §8.6)
                lines = _written([header for header in headers if header[0].lower() != "content-length"])
        elif length is not None and not empty and (length or not self._bodiless):
            self._left = length
            framing = b"Content-Length: %d\r\n" % length
        elif self._bodiless:
            pass
        elif self._chunks:
            self._chunked = True
            framing = b"Transfer-Encoding: chunked\r\n"
        else:
            caller.keep_alive = False
        if not caller.complete:
            self._early = False
            if length is None and (self._left is not None or self._bodiless):
                caller.keep_alive = False  # it knows the answer's end before the application has come to it
        if not caller.keep_alive:
            framing += b"Connection: close\r\n"
        data = b"".join((self._status, lines, framing, self._own(), b"\r\n", self._framed(first)))
        self.begun = True
        self.undelivered = len(data) <= _AT_ONCE
        caller.send(data)
        self.undelivered = False
        if self._early and (self._left == 0 or self._bodiless):
            self.released = True
            self._release(self._caller)

    def _body(self, data: bytes) -> None:
        if framed := self._framed(data):
            self._caller.send(framed)
            if self._left == 0 and self._early:
                self._over()

    def _framed(self, data: bytes) -> bytes:
        if self._bodiless or not data:
            return b""
        if self._chunked:
            return b"%x\r\n%b\r\n" % (len(data), data)
        if self._left is not None:
            data = data[: self._left]  # never more than was said: it would be the next answer's beginning
            self._left -= len(data)
        return data


_EMPTY = (b"HTTP/1.1 204", b"HTTP/1.1 304")
_AT_ONCE = 65536
"""Bytes that a connection without anything unread takes whole or, where the caller has hung up, not at all."""


def _status_line(status: str) -> bytes:
    if not _STATUS(status):
        raise ValueError(f"{status!r} is no status")
    return f"HTTP/1.1 {status}{'' if len(status) > 3 else ' '}\r\n".encode("latin-1")


def _kind(name: str) -> _Kind:
    if not is_name(name):
        raise ValueError(f"{name!r} is no header's name")
    lower = name.lower()
    if lower == "content-length":
        return _Kind.LENGTH
    if lower == "set-cookie":
        return _Kind.COOKIE
    return _Kind.DROPPED if lower in HOP_BY_HOP or is_ours(lower) else _Kind.SENT


_status_lines = Memo(_status_line, 65536)
_kinds = Memo(_kind, 65536)


def _refuse_illegal(headers: Headers) -> None:
    """Raise ValueError for the first value that holds what none may. It may be a secret, and goes unsaid."""
    for name, value in headers:
        if found := illegal(value):
            raise ValueError(f"the header {name} holds {found[0]!r}, which no header may hold")


def _written(headers: Headers) -> bytes:
    return "".join([f"{name}: {value}\r\n" for name, value in headers]).encode("latin-1")


class ShortAnswer(Exception):
    """The application's body is shorter than its Content-Length."""


class FileWrapper:
    """wsgi.file_wrapper: a file in blocks."""

    def __init__(self, file: IO[bytes], block_size: int = 65536) -> None:
        self._file = file
        self._block_size = block_size

    def __iter__(self) -> Iterator[bytes]:
        while block := self._file.read(self._block_size):
            yield block

    def close(self) -> None:
        if hasattr(self._file, "close"):
            self._file.close()
