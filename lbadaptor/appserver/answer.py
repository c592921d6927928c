"""The application's answer → HTTP/1.1 (PEP 3333, RFC 9112)."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator
from types import TracebackType
from typing import IO, Any

from lbadaptor.headers import HOP_BY_HOP

Headers = list[tuple[str, str]]
ExcInfo = tuple[type[BaseException], BaseException, TracebackType]

_NAME = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+").fullmatch
_ILLEGAL = re.compile(r"[\r\n\0]|[^\0-\xff]").search
_STATUS = re.compile(r"[2-5][0-9]{2}( [\t\x20-\x7e\x80-\xff]*)?").fullmatch
_LENGTH = re.compile(r"[0-9]{1,18}").fullmatch


class Answer:
    """One answer: `start_response` and `write` for the application, bytes to `send` for the caller.

    `amend` gets the application's headers and gives those to be sent; `own` gives ours, as the text of a
    head's last lines. `chunks`: the caller knows chunks (HTTP/1.1); for others, the connection's end is the
    answer's. Sending blocks as long as the caller takes nothing.
    """

    def __init__(
        self,
        send: Callable[[bytes], object],
        method: str,
        keep_alive: bool,
        chunks: bool,
        amend: Callable[[Headers], Headers],
        own: Callable[[], str],
    ) -> None:
        self.begun = False
        """something was sent"""
        self.keep_alive = keep_alive
        self._send = send
        self._method = method
        self._chunks = chunks
        self._amend = amend
        self._own = own
        self._status = ""
        self._headers: Headers = []
        self._chunked = False
        self._left: int | None = None
        self._bodiless = method == "HEAD"

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
        if not _STATUS(status):
            raise ValueError(f"{status!r} is no status")
        kept = []
        lengths = set()
        for name, value in headers:
            if not _NAME(name) or _ILLEGAL(value):
                raise ValueError(f"{name!r}: {value!r} is no header")
            lower = name.lower()
            if lower == "content-length":
                lengths.add(value)
            if lower not in HOP_BY_HOP and not lower.startswith("lb-"):
                kept.append((name, value))
        if len(lengths) > 1 or not all(map(_LENGTH, lengths)):
            raise ValueError(f"Content-Length is {' and '.join(map(repr, sorted(lengths)))}")
        self._status = status
        self._headers = kept
        return self.write

    def run(self, application: Callable[..., Iterable[bytes]], environ: dict[str, Any]) -> None:
        """Call the application and send its whole answer. Raises what it raises."""
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
        else:
            self._body(data)

    def fail(self) -> None:
        """The application failed before anything was sent: say so to the visitor, as mod_wsgi does."""
        page = b"<!DOCTYPE html>\n<title>500 Internal Server Error</title><h1>Internal Server Error</h1>\n"
        self._status = "500 Internal Server Error"
        self._headers = [("Content-Type", "text/html"), ("Content-Length", str(len(page)))]
        self.write(page)

    def _end(self) -> None:
        if not self.begun:
            self._head(0, b"")
        if self._chunked:
            self._send(b"0\r\n\r\n")
        elif self._left and not self._bodiless:
            self.keep_alive = False  # shorter than it said: the caller has to see that
            raise ShortAnswer(f"the answer is {self._left} bytes shorter than its Content-Length")

    def _head(self, length: int | None, first: bytes) -> None:
        """Send the head along with the first block. `length`: the body's, where the application is not asked."""
        if not self._status:
            raise AssertionError("start_response was not called")
        headers = self._amend(self._headers)
        code = self._status[:3]
        empty = code in ("204", "304")
        self._bodiless = empty or self._method == "HEAD"
        self._left = None
        self._chunked = False
        lines = [f"HTTP/1.1 {self._status}{'' if len(self._status) > 3 else ' '}"]
        for name, value in headers:
            if len(name) == 14 and name.lower() == "content-length":
                if code == "204":
                    continue
                self._left = int(value)
            lines.append(f"{name}: {value}")
        if self._left is not None:
            pass
        elif length is not None and not empty and (length or not self._bodiless):
            self._left = length
            lines.append(f"Content-Length: {length}")
        elif self._bodiless:
            pass
        elif self._chunks:
            self._chunked = True
            lines.append("Transfer-Encoding: chunked")
        else:
            self.keep_alive = False
        if not self.keep_alive:
            lines.append("Connection: close")
        lines.append(self._own())
        data = "\r\n".join(lines).encode("latin-1") + b"\r\n" + self._framed(first)
        self.begun = True
        self._send(data)

    def _body(self, data: bytes) -> None:
        if framed := self._framed(data):
            self._send(framed)

    def _framed(self, data: bytes) -> bytes:
        if self._bodiless or not data:
            return b""
        if self._chunked:
            return b"%x\r\n%b\r\n" % (len(data), data)
        if self._left is not None:
            data = data[: self._left]  # never more than was said: it would be the next answer's beginning
            self._left -= len(data)
        return data


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
