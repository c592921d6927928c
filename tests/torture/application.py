"""The application of the torture test: a visit counter in the memory of the process. Every byte of its answers can be
verified.

A request has a name (`n`) and says what it wants: `size` bytes of `content(n)`, after `wait` seconds, `chunked` or
not. The answer's header X-Told names the AppServer and describes the session. A POST adds the line "name pid" to a
file, in one write.
"""

from __future__ import annotations

import json
import os
import secrets
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from hashlib import shake_128
from http.cookies import CookieError, SimpleCookie
from typing import Any
from urllib.parse import parse_qs

Environ = dict[str, Any]

COOKIE = "sid"
BLOCK = 32768

_counts: dict[str, int] = {}
_lock = threading.Lock()


def content(name: str, size: int) -> bytes:
    """The body that belongs to a request's name."""
    return shake_128(name.encode()).digest(size)


def born(pid: int) -> int:
    """When a process began, in clock ticks since boot. The pair of pid and this is never used twice."""
    with open(f"/proc/{pid}/stat", "rb") as file:
        return int(file.read().rpartition(b")")[2].split()[19])


BORN = born(os.getpid())


def application(environ: Environ, start_response: Callable[..., Any]) -> Iterable[bytes]:
    """Pages: `visit` counts POSTs in the session, `plain` has none, `logout` ends it."""
    query = {name: values[0] for name, values in parse_qs(environ["QUERY_STRING"]).items()}
    if "n" not in query:
        start_response("404 Not Found", [("Content-Length", "0")])
        return []
    name, page = query["n"], environ["PATH_INFO"].lstrip("/")
    good = True
    if environ["REQUEST_METHOD"] == "POST":
        body = environ["wsgi.input"].read()
        good = body == content(name, int(query.get("body", 0)))
        _record(name)
    if "wait" in query:
        time.sleep(float(query["wait"]))
    told: dict[str, Any] = {
        "name": name,
        "pid": os.getpid(),
        "born": BORN,
        "slot": environ.get("lbadaptor.slot", 0),
        "generation": environ.get("lbadaptor.generation", 0),
        "lost": bool(environ.get("lbadaptor.session_lost")),
        "good": good,
    }
    headers = [("Content-Type", "application/octet-stream")]
    if page == "logout":
        with _lock:
            told["sid"] = _brought(environ)
            told["new"] = _counts.pop(told["sid"], None) is None
        headers.append(("Set-Cookie", f"{COOKIE}=; Path=/; Max-Age=0"))
    elif page == "visit":
        told |= _visit(environ, headers)
    size = int(query.get("size", 0))
    headers.append(("X-Told", json.dumps(told)))
    if "chunked" not in query:
        headers.append(("Content-Length", str(size)))
    start_response("200 OK", headers)
    return _blocks(content(name, size))


def _visit(environ: Environ, headers: list[tuple[str, str]]) -> dict[str, Any]:
    sid = _brought(environ)
    with _lock:
        new = sid not in _counts
        if new:
            sid = secrets.token_hex(8)
            _counts[sid] = 0
            headers.append(("Set-Cookie", f"{COOKIE}={sid}; Path=/; HttpOnly"))
        _counts[sid] += environ["REQUEST_METHOD"] == "POST"
        return {"sid": sid, "new": new, "count": _counts[sid]}


def _record(name: str) -> None:
    line = f"{name} {os.getpid()}\n".encode()
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


def _blocks(body: bytes) -> Iterator[bytes]:
    for begin in range(0, len(body), BLOCK):
        yield body[begin : begin + BLOCK]
