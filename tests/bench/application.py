"""What every server of the benchmark serves: a WSGI application with its sessions in memory.

An answer begins with `SESSION PROCESS known|unknown RECEIVED `, so that whoever asked can tell that it is theirs,
that it comes from the process that holds their session, and that the whole body arrived. SESSION is `nobody` where
there is none.
"""

from __future__ import annotations

import os
import secrets
import time
from collections.abc import Callable, Iterable
from typing import Any

SMALL = 100
LARGE = 100 * 1024
COMPUTE = 0.002
WAIT = 0.02
LONG = 0.2
LOGIN = 0.05
"""Seconds; so that visitors who come at once are spread over all processes."""
PACE = 0.01
SLOWNESS = 10
"""How many times as long `/arrive` takes in a process that was told to be slow."""

sessions: set[str] = set()
pace = [PACE]
"""Seconds that `/arrive` takes in this process."""


def application(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
    page = environ["PATH_INFO"]
    session = environ.get("HTTP_COOKIE", "").partition("sid=")[2][:16]
    headers = [("Content-Type", "text/plain")]
    size, received = SMALL, 0
    if page == "/large":
        size = LARGE
    elif page == "/upload":
        received = len(environ["wsgi.input"].read(int(environ["CONTENT_LENGTH"])))
    elif page == "/compute":
        end = time.thread_time() + COMPUTE
        while time.thread_time() < end:
            pass
    elif page == "/wait":
        time.sleep(WAIT)
    elif page == "/long":
        time.sleep(LONG)
    elif page == "/slow":
        pace[0] = PACE * SLOWNESS
    elif page in ("/login", "/begin", "/arrive"):
        if page != "/begin":
            time.sleep(LOGIN if page == "/login" else pace[0])
        session = secrets.token_hex(8)
        sessions.add(session)
        headers.append(("Set-Cookie", f"sid={session}; Path=/"))
    known = "known" if session in sessions else "unknown"
    body = f"{session or 'nobody'} {os.getpid()} {known} {received} ".ljust(size).encode()
    headers.append(("Content-Length", str(len(body))))
    start_response("200 OK", headers)
    return [body]
