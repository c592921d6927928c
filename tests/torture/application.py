"""The application of the torture test: a visit counter in the memory of the process. Every byte of its answers can be
verified.

A request has a name (`n`) and says what it wants: `size` bytes of `content(n)`, after `wait` seconds, `chunked` or
not. The answer's header X-Told names the AppServer and describes the session. A POST adds the line "name pid" to a
file, in one write; one that a session has counted adds "name pid session count", too.

`save` and `load` are for [sessions]. `flask_application` does the same with another store.
"""

from __future__ import annotations

import json
import os
import secrets
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from hashlib import shake_128
from http.cookies import CookieError, SimpleCookie
from typing import Any
from urllib.parse import parse_qs

Environ = dict[str, Any]

COOKIE = "sid"
BLOCK = 32768
WITH_SESSION = ("visit", "peek", "login", "logout")
"""Pages that have to do with the session."""
LARGE = "large"
"""What is asked for with this is kept in a large session, and its name begins so."""
LARGE_SIZE = 100_000
"""Bytes."""


@dataclass
class Session:
    """What the application keeps of a visitor. Its name stays the same though the cookie's value changes."""

    name: str
    count: int = 0
    padding: bytes = b""
    """another one with each count, mostly of some hundred bytes"""

    def add(self) -> None:
        self.count += 1
        self.padding = padding(self.name, self.count)


_sessions: dict[str, Session] = {}
"""by the cookie's value"""
_lock = threading.Lock()


def content(name: str, size: int) -> bytes:
    """The body that belongs to a request's name."""
    return shake_128(name.encode()).digest(size)


def padding(name: str, count: int) -> bytes:
    """The bytes that belong to a session of this count: less than a block of the disk, about a block, or many."""
    if name.startswith(LARGE):
        return content(f"{name}.{count}", LARGE_SIZE)
    kind, size = content(f"{name} {count}", 2)
    return content(f"{name}.{count}", size * (500 if kind < 8 else 28 if kind < 64 else 4))


def save(sid: str) -> bytes | None:
    """A session as bytes."""
    with _lock:
        if (session := _sessions.get(sid)) is None:
            return None
        return f"{session.name} {session.count} ".encode() + session.padding


def load(sid: str, data: bytes | None) -> None:
    """Take a session over, or forget it. Raises ValueError for one that is damaged."""
    if data is None:
        with _lock:
            _sessions.pop(sid, None)
        return
    name, count, rest = data.split(b" ", 2)
    session = Session(name.decode(), int(count), rest)
    if session.count and rest != padding(session.name, session.count):
        raise ValueError(f"not what the session was with the count {session.count}")
    with _lock:
        _sessions[sid] = session


def born(pid: int) -> int:
    """When a process began, in clock ticks since boot. The pair of pid and this is never used twice."""
    with open(f"/proc/{pid}/stat", "rb") as file:
        return int(file.read().rpartition(b")")[2].split()[19])


def application(environ: Environ, start_response: Callable[..., Any]) -> Iterable[bytes]:
    """Pages: `visit` counts POSTs in the session, `peek` looks whether there is one, `login` gives it another cookie,
    `logout` ends it. `plain` and `file` have none.
    """
    request = Request(environ)
    if not request.name:
        start_response("404 Not Found", [("Content-Length", "0")])
        return []
    request.begin()
    cookies = _with_session(request) if request.page in WITH_SESSION else []
    start_response("200 OK", [*request.headers(), *(("Set-Cookie", cookie) for cookie in cookies)])
    return request.body()


class Request:
    """What a request asks for, and what is told in its answer."""

    def __init__(self, environ: Environ) -> None:
        self.environ = environ
        self.told: dict[str, Any] = {}
        self._query = {name: values[0] for name, values in parse_qs(environ["QUERY_STRING"]).items()}
        self.name = self._query.get("n", "")
        self.page = environ["PATH_INFO"].lstrip("/")
        self.large = LARGE in self._query
        self.is_post = environ["REQUEST_METHOD"] == "POST"

    def begin(self) -> None:
        """Read the body, record that it is executed, and wait."""
        environ, good = self.environ, True
        if self.is_post:
            body = environ["wsgi.input"].read()
            good = body == content(self.name, int(self._query.get("body", 0)))
            _record(f"{self.name} {os.getpid()}")
        if "wait" in self._query:
            time.sleep(float(self._query["wait"]))
        self.told |= {
            "name": self.name,
            "machine": os.environ.get("TORTURE_MACHINE", ""),
            "pid": os.getpid(),
            "born": born(os.getpid()),
            "slot": environ.get("lbadaptor.slot", 0),
            "generation": environ.get("lbadaptor.generation", 0),
            "lost": bool(environ.get("lbadaptor.session_lost")),
            "moved": bool(environ.get("lbadaptor.session_moved")),
            "good": good,
        }

    def counted(self, session: str, count: int) -> None:
        """Record that a session has counted this POST."""
        _record(f"{self.name} {os.getpid()} {session} {count}")

    def headers(self) -> list[tuple[str, str]]:
        """Of the answer, cookies excepted."""
        headers = [("Content-Type", "application/octet-stream"), ("X-Told", json.dumps(self.told))]
        if "chunked" not in self._query:
            headers.append(("Content-Length", self._query.get("size", "0")))
        return headers

    def body(self) -> Iterator[bytes]:
        body = content(self.name, int(self._query.get("size", 0)))
        for begin in range(0, len(body), BLOCK):
            yield body[begin : begin + BLOCK]


def _with_session(request: Request) -> list[str]:
    """Do what the page does with the session. Returns the cookies to set."""
    sid, page, told = _brought(request.environ), request.page, request.told
    with _lock:
        session = _sessions.get(sid)
        told |= {"sid": sid, "new": session is None, "count": session.count if session else 0}
        if page == "peek":
            return []
        if page in ("login", "logout"):
            _sessions.pop(sid, None)
        if page == "logout":
            return [f"{COOKIE}=; Path=/; Max-Age=0"]
        cookies = []
        if session is None or page == "login":
            sid = told["sid"] = (LARGE if request.large else "") + secrets.token_hex(8)
            session = _sessions[sid] = session or Session(sid)
            cookies.append(f"{COOKIE}={sid}; Path=/; HttpOnly")
        if request.is_post:
            session.add()
            request.counted(session.name, session.count)
        told["count"] = session.count
        return cookies


def _record(text: str) -> None:
    line = f"{text}\n".encode()
    file = os.open(os.environ["TORTURE_EXECUTED"], os.O_WRONLY | os.O_APPEND)
    try:
        assert os.write(file, line) == len(line)
    finally:
        os.close(file)


def _brought(environ: Environ) -> str:
    try:
        morsel = SimpleCookie(environ.get("HTTP_COOKIE", "")).get(COOKIE)
    except CookieError:
        return ""
    return morsel.value if morsel else ""
