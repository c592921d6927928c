"""An access log of the AppServers' own: a line for each request that the application was called for.

The lines have Apache's combined format, with `slot`, `verdict`, `id` and `us` (microseconds) at their end. All
AppServers of an application may write to one file: it is opened with O_APPEND, and each line is one write.
"""

from __future__ import annotations

import contextlib
import os
import re
import threading
from collections.abc import Callable
from time import localtime, monotonic, strftime
from time import time as wall_clock
from typing import Any

from lbadaptor.appserver.wsgi.answer import Answer
from lbadaptor.appserver.wsgi.environ import REQUEST_ID, Request
from lbadaptor.log import logs, texts

log = logs.logger("lbadaptor.appserver")

LOOK = 1.0
"""Seconds between two looks whether the file was moved away (logrotate), and between two attempts to open it."""
MODE = 0o640
LONGEST = 2000
"""Characters of a value that a visitor sends."""
_FLAGS = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NOCTTY | os.O_NONBLOCK
_MONTHS = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")
"""As the format has them. strftime's %b goes by the application's locale."""

_unsafe = re.compile(r"[^ !#-\[\]-~]").search
"""Matches what does not stand in a line as it is: a quote, a backslash, and all that is not printable ASCII."""
_escape = re.compile(r"[^ !#-\[\]-~]").sub


class CountedAnswer(Answer):
    """An answer that counts the bytes of its body, as the application gives them."""

    size = 0

    @property
    def code(self) -> int:
        """Of its status; 0: there is none."""
        return self._code

    @property
    def sent(self) -> int:
        """Bytes of the body that were sent."""
        if self._empty or self._method == "HEAD":
            return 0
        return self.size if self._length is None else min(self.size, self._length)

    def _head(self, length: int | None, first: bytes) -> None:
        super()._head(length, first)
        self.size = len(first)

    def _body(self, data: bytes) -> None:
        super()._body(data)
        self.size += len(data)


class AccessLog:
    """Writes lines to a file. Any thread may use it; nothing raises. A local disk does not block for long.

    A file that cannot be written is told once, and tried again each LOOK seconds. Lines are lost meanwhile.
    """

    def __init__(self, path: str, slot: int, now: Callable[[], float] = monotonic) -> None:
        self._path = path
        self._slot = slot
        self._now = now
        self._lock = threading.Lock()
        self._descriptor = -1
        self._identity: tuple[int, int] | None = None
        """of the open file: device and inode"""
        self._look_at = 0.0
        """when to look for the file again"""
        self._lost = 0
        self._torn = False
        """the last line was not written whole"""
        self._second = 0, ""
        """a second, and how the log writes it"""

    def record(self, request: Request, answer: CountedAnswer) -> None:
        """Write the line of a request that is over. Never raises."""
        with contextlib.suppress(Exception), self._lock:  # a MemoryError may come again where the first one is told
            try:
                self._write(self._line(request, answer).encode("ascii"))
            except Exception as error:
                self._failed(error)

    def _line(self, request: Request, answer: CountedAnswer) -> str:
        get: Callable[[str, str], Any] = request.fields.get
        verdict = "held" if request.held else "lost" if request.lost else "none"
        target = get("REQUEST_URI", request.target)
        method, protocol = get("REQUEST_METHOD", request.method), get("SERVER_PROTOCOL", f"HTTP/{request.version}")
        return (
            f"{get('REMOTE_ADDR', '-')} - {_safe(get('REMOTE_USER', '')).replace(' ', '%20')} [{self._time()}] "
            f'"{_safe(method)} {_safe(target)} {_safe(protocol)}" {answer.code or "-"} {answer.sent or "-"} '
            f'"{_safe(get("HTTP_REFERER", ""))}" "{_safe(get("HTTP_USER_AGENT", ""))}" slot={self._slot} '
            f"verdict={verdict} id={get(REQUEST_ID, '-')} us={(self._now() - request.since) * 1e6:.0f}\n"
        )

    def _time(self) -> str:
        second, text = self._second
        now = int(wall_clock())
        if now != second:
            there = localtime(now)
            text = strftime(f"%d/{_MONTHS[there.tm_mon - 1]}/%Y:%H:%M:%S %z", there)
            self._second = now, text
        return text

    def _write(self, line: bytes) -> None:
        """Raises OSError."""
        now = self._now()
        if now >= self._look_at:
            self._look_at = now + LOOK
            self._find()
        if self._descriptor < 0:
            self._lost += 1
            return
        found = os.fstat(self._descriptor)
        if (found.st_dev, found.st_ino) != self._identity:  # the application has closed it, and others use it
            self._descriptor = -1
            self._open()
        data = b"\n" + line if self._torn else line
        self._torn = os.write(self._descriptor, data) < len(data)
        if self._lost and not self._torn:
            log.warning("the access log %s is written again; lines lost: %d", self._path, self._lost)
            self._lost = 0

    def _find(self) -> None:
        """Open the file that the path names now, if it is another one. Raises OSError."""
        if self._descriptor >= 0:
            with contextlib.suppress(FileNotFoundError):
                there = os.stat(self._path)
                if (there.st_dev, there.st_ino) == self._identity:
                    return
            self._close()
        self._open()

    def _open(self) -> None:
        self._descriptor = os.open(self._path, _FLAGS, MODE)
        found = os.fstat(self._descriptor)
        self._identity = found.st_dev, found.st_ino

    def _close(self) -> None:
        """Close the file, unless the application has done so."""
        descriptor, self._descriptor = self._descriptor, -1
        with contextlib.suppress(OSError):
            found = os.fstat(descriptor)
            if (found.st_dev, found.st_ino) == self._identity:
                os.close(descriptor)

    def _failed(self, error: Exception) -> None:
        self._lost += 1
        if self._lost == 1:
            log.warning("the access log %s cannot be written: %s; lines are lost", self._path, texts.what(error))
        self._close()


def _safe(text: str) -> str:
    """A value as a line has it; `-` for an empty one."""
    if len(text) > LONGEST:
        text = f"{text[:LONGEST]}..."
    return _escape(_escaped, text) if _unsafe(text) else text or "-"


def _escaped(found: re.Match[str]) -> str:
    sign = found[0]
    return f"\\{sign}" if sign in '"\\' else f"\\x{ord(sign):02x}"
