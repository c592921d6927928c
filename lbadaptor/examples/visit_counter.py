"""A counter of each visitor's visits, in the memory of its process. Its page says where it was counted.

The machine has its name in the environment variable MACHINE. `/leave` ends the session.
"""

from __future__ import annotations

import os
import re
import secrets
import threading
import time
from collections.abc import Callable, Iterable
from typing import Any

COOKIE = "visitor"
IDLE = 300
"""Seconds after which a session that was not used has ended."""

_PAGE = """<!DOCTYPE html>
<html lang="en">
<title>Visit {visits}</title>
<style>body {{ font: 1.2em sans-serif; margin: 3em }} strong {{ font-size: 3em }}</style>
<p>Your visit <strong>{visits}</strong> {news}</p>
<p>machine {machine}, slot {slot}, process {process}</p>
<p><a href="./">Visit again</a> · <a href="leave">leave</a></p>
"""
_find_session = re.compile(rf"(?:^|; *){COOKIE}=(\w{{16}})(?:;|$)", re.ASCII).search
_sessions: dict[str, tuple[int, float]] = {}
"""By session: how many visits, and when the last one was, in monotonic seconds."""
_lock = threading.Lock()


def application(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
    found = _find_session(environ.get("HTTP_COOKIE", ""))
    session, visits = found[1] if found else "", 0
    leaves = environ["PATH_INFO"] == "/leave"
    headers = [("Content-Type", "text/html; charset=utf-8"), ("Cache-Control", "no-store")]
    with _lock:
        if leaves:
            _sessions.pop(session, None)
            headers.append(("Set-Cookie", f"{COOKIE}=; Path=/; Max-Age=0"))
        elif environ["PATH_INFO"] == "/":
            if session not in _sessions:
                _forget_idle()
                session = secrets.token_hex(8)
                headers.append(("Set-Cookie", f"{COOKIE}={session}; Path=/; HttpOnly; SameSite=Lax"))
            visits = _sessions.get(session, (0, 0.0))[0] + 1
            _sessions[session] = visits, time.monotonic()
        else:
            start_response("404 Not Found", [("Content-Type", "text/plain")])
            return [b"there is / and /leave\n"]
    news = "– your session is lost: the process that held it is gone" if environ.get("lbadaptor.session_lost") else ""
    page = _PAGE.format(
        visits=visits,
        news="– you have left" if leaves else news,
        machine=os.environ.get("MACHINE", "?"),
        slot=environ.get("lbadaptor.slot", "?"),
        process=os.getpid(),
    ).encode()
    start_response("200 OK", [*headers, ("Content-Length", str(len(page)))])
    return [page]


def _forget_idle() -> None:
    last = time.monotonic() - IDLE
    for session in [session for session, (_, used) in _sessions.items() if used < last]:
        del _sessions[session]
