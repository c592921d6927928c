"""The application's side of an answer (PEP 3333). `http1.writer` writes its head and frames its body."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Iterator
from enum import Enum
from types import TracebackType
from typing import IO, Any, Protocol

from lbadaptor.contract.headers import HOP_BY_HOP, is_ours
from lbadaptor.http1 import chunks, writer
from lbadaptor.http1.framing import CHUNKED, UNTIL_CLOSE, Framing
from lbadaptor.http1.lines import Memo, is_name
from lbadaptor.http1.states import REQUEST, State
from lbadaptor.http1.writer import CHUNKED_FIELD, CLOSE_FIELD, encode, field_lines, refuse_illegal, status_lines
from lbadaptor.log import texts

Headers = list[tuple[str, str]]
ExcInfo = tuple[type[BaseException], BaseException, TracebackType]


class _Kind(Enum):
    """What becomes of a header of the application's."""

    SENT = "sent"
    COOKIE = "sent; it may be a session's cookie"
    LENGTH = "sent; the body has to fit it"
    DROPPED = "not sent: such headers are the gateway's"


_SENT, _COOKIE, _LENGTH, _DROPPED = _Kind  # an enum's own look-up takes longer


class Caller(Protocol):
    """The connection that an answer is sent on."""

    keep_alive: bool
    """the connection may carry another request"""

    state: State
    """REQUEST: all of the request's body is here"""

    def send(self, data: bytes) -> None:
        """Blocks."""


class Answer:
    """One answer: `start_response` and `write` for the application, bytes for the caller.

    `chunks`: the caller can read chunks (HTTP/1.1); for others the answer ends with the connection. `amend` gets the
    application's headers, and whether cookies are set among them, and returns those that are sent. `own` returns the
    AppServer's headers, the last lines of the head. Sending blocks until the caller has taken the bytes.

    `release` is called once, with the caller, as soon as the last byte was sent. That is before the iterable is
    closed. It is even before the iterable is exhausted if the head says how much is sent. From then on the caller may
    send its next request, and nothing here uses the caller again.

    If not all of the request's body is here when the head is sent, the caller is released when the iterable is
    exhausted, because the application may read the body until then. If the caller could see the end of such an answer
    before that, the head says that the connection ends with it.
    """

    begun = False
    """something was sent"""
    undelivered = False
    """its head could not be sent: if the caller had hung up, nobody has any of it"""
    released = False
    """the last byte was sent"""
    _status = b""
    _headers: Headers
    _lines = b""
    """the headers as they are sent, until they are amended"""
    _cookies = False
    """a cookie is set among them"""
    _empty = False
    """a response with this status has no body"""
    _code = 0
    """of the status"""
    _length: int | None = None
    """the application's Content-Length"""
    _framing: Framing = 0
    """of the body, or of what is still to come of it"""
    longest_line = sys.maxsize
    """bytes of a header's line that the caller takes; of the status line, one less"""
    before_end: Callable[[], object] | None = None
    """called before the last byte of an answer that is sent in several blocks"""
    ran_on = True
    """The application's code may have run since `amend` and `before_end`: it has given no list, or a `close`."""
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
        line, code, empty = status_lines[status]
        kept = []
        text = ""
        length: str | None = None
        cookies = False
        for header in headers:
            name, value = header
            kind = _kinds[name]
            if kind is not _SENT:
                if kind is _DROPPED:
                    continue
                if kind is _COOKIE:
                    cookies = True
                elif not (value.isascii() and value.isdigit() and len(value) < 19 and length in (None, value)):
                    raise ValueError(f"Content-Length is {value!r}{f' and {length!r}' if length else ''}")
                else:
                    length = value
            kept.append(header)
            text += name + ": " + value + "\r\n"
        # If there are no line breaks but ours and the rest is printable ASCII, all values are legal. Otherwise each
        # is checked.
        values = text.replace("\r\n", "")
        if len(text) - len(values) != 2 * len(kept) or not (values.isascii() and values.isprintable()):
            refuse_illegal(kept)
        self._lines = text.encode("latin-1")
        self._status = line
        self._code = code
        self._empty = empty
        self._headers = kept
        self._cookies = cookies
        self._length = None if length is None else int(length)
        return self.write

    def run(self, application: Callable[..., Iterable[bytes]], environ: dict[str, Any]) -> None:
        """Call the application and send its whole answer. Raises what it raises, ShortAnswer and LongLine."""
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
            self.ran_on = close is not None or not isinstance(blocks, (list, tuple))

    def write(self, data: bytes) -> None:
        """PEP 3333's: the head first, if it is not out yet."""
        if not self.begun:
            self._head(None, data)
        elif not self.released:
            self._body(data)

    def fail(self, status: str = "500 Internal Server Error") -> None:
        """The application failed before anything was sent: say so to the visitor, as mod_wsgi does."""
        page = f"<!DOCTYPE html>\n<title>{status}</title><h1>{status[4:]}</h1>\n".encode()
        self._status = b""
        self.start_response(status, [("Content-Type", "text/html")])
        self._head(len(page), page)
        self._over()

    def _end(self) -> None:
        """The iterable is exhausted."""
        if self.released:
            return
        if not self.begun:
            if self._length and not (self._empty or self._method == "HEAD"):
                raise ShortAnswer(f"not one byte of {self._length} that Content-Length says")  # it can be a 500 still
            self._head(0, b"")
        if self.before_end is not None:
            self.before_end()
        if self._framing == CHUNKED:
            self._caller.send(chunks.LAST)
        elif self._framing > 0:
            raise ShortAnswer(f"the answer is {texts.count(self._framing, 'byte')} shorter than its Content-Length")
        self._over()

    def _over(self) -> None:
        """The last byte was sent."""
        if not self.released:
            self.released = True
            self._release(self._caller)

    def _head(self, length: int | None, first: bytes) -> None:
        """Send the head along with the first block. `length`: the body's, where the application is not asked."""
        if not self._status:
            raise AssertionError("start_response was not called")
        if len(self._status) + len(self._lines) > self.longest_line:
            self._refuse_long_line(self._lines)
        headers = self._amend(self._headers, self._cookies)
        lines = self._lines
        if headers is not self._headers:
            lines = field_lines(headers)
            if len(lines) > self.longest_line:  # a ticket takes over the Path and Domain of the session cookie
                self._refuse_long_line(lines)
        empty, said, caller = self._empty, self._length, self._caller
        bodiless = empty or self._method == "HEAD"
        framing = writer.framing(bodiless, said, length, self._chunks)
        added = b""
        if said is not None:
            if self._code == 204:  # has no Content-Length (RFC 9110 §8.6)
                lines = field_lines([header for header in headers if header[0].lower() != "content-length"])
        elif framing == CHUNKED:
            added = CHUNKED_FIELD
        elif framing == UNTIL_CLOSE:
            caller.keep_alive = False
        elif length is not None and not empty and (length or not bodiless):
            added = b"Content-Length: %d\r\n" % length
        if caller.state is not REQUEST:
            self._early = False
            if length is None and framing >= 0:
                caller.keep_alive = False  # it knows the answer's end before the application has come to it
        if not caller.keep_alive:
            added += CLOSE_FIELD
        body = first if framing == len(first) else encode(first, framing)
        if framing > 0:
            framing -= len(body)
        self._framing = framing
        data = b"".join((self._status, lines, added, self._own(), b"\r\n", body))
        self.begun = True
        self.undelivered = len(data) <= _AT_ONCE
        caller.send(data)
        self.undelivered = False
        if framing == 0 and self._early:
            self.released = True
            self._release(caller)

    def _refuse_long_line(self, lines: bytes) -> None:
        """Raise LongLine if the caller would not take one of the lines."""
        most = self.longest_line
        status = len(self._status) - len(b"\r\n")
        if status > most - 1:
            raise LongLine("status line", status, most - 1)
        for line in lines.split(b"\r\n"):
            if len(line) > most:
                raise LongLine(f"header {line.partition(b':')[0].decode()}", len(line), most)

    def _body(self, data: bytes) -> None:
        if body := encode(data, self._framing):
            if self._framing > 0:
                self._framing -= len(body)
            if self._framing == 0 and self.before_end is not None:
                self.before_end()
            self._caller.send(body)
            if self._framing == 0 and self._early:
                self._over()


_AT_ONCE = 65536
"""Bytes that a connection without anything unread takes whole or, where the caller has hung up, not at all."""


def _kind(name: str) -> _Kind:
    if not is_name(name):
        raise ValueError(f"{name!r} is no header's name")
    lower = name.lower()
    if lower == "content-length":
        return _LENGTH
    if lower == "set-cookie":
        return _COOKIE
    return _DROPPED if lower in HOP_BY_HOP or is_ours(lower) else _SENT


_kinds = Memo(_kind, 65536)


class ShortAnswer(Exception):
    """The application's body is shorter than its Content-Length."""


class LongLine(Exception):
    """A line of the answer's head is longer than its caller takes. Nothing of the answer was sent."""

    def __init__(self, line: str, length: int, most: int) -> None:
        super().__init__(line, length, most)
        self.line = line
        """which one"""
        self.length = length
        """bytes, without its end"""
        self.most = most
        """bytes that the caller takes"""


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
