"""A small WSGI application with its sessions in the memory of its process: a visit counter, and pages to look
through at what it was given.

A page named with `gate=NAME` waits until that FIFO in the folder VISITS_GATES was opened and closed by somebody.
"""

from __future__ import annotations

import json
import os
import secrets
import signal
import threading
from collections.abc import Callable, Iterable, Iterator
from http.cookies import CookieError, SimpleCookie
from typing import Any
from urllib.parse import parse_qs

Environ = dict[str, Any]
Start = Callable[..., Any]

COOKIE = "sid"

_visits: dict[str, int] = {}
_lock = threading.Lock()


def save(sid: str) -> bytes | None:
    """[sessions] save"""
    with _lock:
        visits = _visits.get(sid)
    return None if visits is None else str(visits).encode()


def load(sid: str, data: bytes | None) -> None:
    """[sessions] load"""
    with _lock:
        if data is None:
            _visits.pop(sid, None)
        else:
            _visits[sid] = int(data)


def application(environ: Environ, start_response: Start) -> Iterable[bytes]:
    """The first part of the path names the page."""
    page = environ["PATH_INFO"].lstrip("/").partition("/")[0]
    answer = PAGES.get(page)
    if answer is None:
        start_response("404 Not Found", [("Content-Type", "text/plain")])
        return [b"no such page"]
    query = {name: values[0] for name, values in parse_qs(environ["QUERY_STRING"]).items()}
    return answer(environ, start_response, query)


def _count(environ: Environ, start_response: Start, query: dict[str, str]) -> Iterable[bytes]:
    """Begin a session, or count another visit of it. A body is read, and its length told."""
    body = environ["wsgi.input"].read() if environ["REQUEST_METHOD"] == "POST" else b""
    _wait(query)
    sid = _brought(environ)
    headers = []
    with _lock:
        new = sid not in _visits
        if new:
            sid = secrets.token_hex(8)
            path = query.get("path") or environ["SCRIPT_NAME"] or "/"
            headers.append(("Set-Cookie", f"{COOKIE}={sid}; Path={path}; HttpOnly"))
        _visits[sid] = visits = _visits.get(sid, 0) + 1
    return _json(environ, start_response, headers, visits=visits, new=new, body=len(body))


def _logout(environ: Environ, start_response: Start, query: dict[str, str]) -> Iterable[bytes]:
    with _lock:
        known = _visits.pop(_brought(environ), None) is not None
    path = environ["SCRIPT_NAME"] or "/"
    cookie = f"{COOKIE}=; Path={path}; Max-Age=0; HttpOnly"
    return _json(environ, start_response, [("Set-Cookie", cookie)], known=known)


def _plain(environ: Environ, start_response: Start, query: dict[str, str]) -> Iterable[bytes]:
    """No session."""
    _wait(query)
    return _json(environ, start_response, [])


def _environ(environ: Environ, start_response: Start, query: dict[str, str]) -> Iterable[bytes]:
    told = {name: value for name, value in environ.items() if isinstance(value, (str, bool, int))}
    return _json(environ, start_response, [], seen=told)


def _echo(environ: Environ, start_response: Start, query: dict[str, str]) -> Iterable[bytes]:
    body = environ["wsgi.input"].read()
    start_response(
        "200 OK",
        [
            ("Content-Type", environ.get("CONTENT_TYPE", "application/octet-stream")),
            ("Content-Length", str(len(body))),
            ("X-Method", environ["REQUEST_METHOD"]),
        ],
    )
    return [] if environ["REQUEST_METHOD"] == "HEAD" else [body]


def _large(environ: Environ, start_response: Start, query: dict[str, str]) -> Iterable[bytes]:
    """As many bytes as asked for."""
    size = int(query["size"])
    start_response("200 OK", [("Content-Type", "text/plain"), ("Content-Length", str(size))])
    return [b"x" * size]


def _empty(environ: Environ, start_response: Start, query: dict[str, str]) -> Iterable[bytes]:
    start_response("204 No Content", [("X-Page", "empty")])
    return []


def _stream(environ: Environ, start_response: Start, query: dict[str, str]) -> Iterable[bytes]:
    """Two lines, the second when the gate is passed."""
    start_response("200 OK", [("Content-Type", "text/plain")])

    def lines() -> Iterator[bytes]:
        yield b"first\n"
        _wait(query)
        yield b"second\n"

    return lines()


def _break(environ: Environ, start_response: Start, query: dict[str, str]) -> Iterable[bytes]:
    """An answer that is never finished: the process dies within it."""
    start_response("200 OK", [("Content-Type", "text/plain")])

    def lines() -> Iterator[bytes]:
        yield b"first\n"
        _wait(query)
        os.kill(os.getpid(), signal.SIGKILL)

    return lines()


def _crash(environ: Environ, start_response: Start, query: dict[str, str]) -> Iterable[bytes]:
    os.kill(os.getpid(), signal.SIGKILL)
    return []


PAGES: dict[str, Callable[[Environ, Start, dict[str, str]], Iterable[bytes]]] = {
    "": _plain,
    "plain": _plain,
    "count": _count,
    "logout": _logout,
    "environ": _environ,
    "echo": _echo,
    "large": _large,
    "empty": _empty,
    "stream": _stream,
    "break": _break,
    "crash": _crash,
}


def _brought(environ: Environ) -> str:
    try:
        morsel = SimpleCookie(environ.get("HTTP_COOKIE", "")).get(COOKIE)
    except CookieError:
        return ""
    return morsel.value if morsel else ""


def _wait(query: dict[str, str]) -> None:
    if "gate" in query:
        with open(os.path.join(os.environ["VISITS_GATES"], query["gate"]), "rb") as gate:
            gate.read()


def _json(environ: Environ, start_response: Start, headers: list[tuple[str, str]], **told: Any) -> list[bytes]:
    """Who answers, and what else is told."""
    told |= {
        "pid": os.getpid(),
        "slot": environ.get("lbadaptor.slot"),
        "generation": environ.get("lbadaptor.generation"),
        "lost": environ.get("lbadaptor.session_lost"),
        "moved": environ.get("lbadaptor.session_moved"),
        "method": environ["REQUEST_METHOD"],
    }
    body = json.dumps(told).encode()
    start_response("200 OK", [("Content-Type", "application/json"), ("Content-Length", str(len(body))), *headers])
    return [] if environ["REQUEST_METHOD"] == "HEAD" else [body]
