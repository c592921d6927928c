"""A visit counter that knows its visitors by their passwords, without a cookie, and says itself who has a session."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterable
from typing import Any

_visits: dict[str, int] = {}
_visitors: dict[str, str] = {}
"""who has the session, by the value of its cookie"""


def save(value: str) -> bytes | None:
    """[sessions] save"""
    who = _visitors.get(value)
    return None if who is None else json.dumps([who, _visits[who]]).encode()


def load(value: str, data: bytes | None) -> None:
    """[sessions] load"""
    if data is None:
        _visits.pop(_visitors.pop(value))
    else:
        who, visits = json.loads(data)
        _visitors[value], _visits[who] = who, visits


def application(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
    sessions = environ["lbadaptor.sessions"]
    who = environ.get("HTTP_AUTHORIZATION", "")
    told: dict[str, Any] = {"pid": os.getpid(), "living": sessions.living}
    page = environ["PATH_INFO"].strip("/")
    if page == "count":
        _visits[who] = told["visits"] = _visits.get(who, 0) + 1
        sessions.begin()
        _visitors[sessions.value] = who
    elif page == "logout":
        _visits.pop(who, None)
        _visitors.pop(sessions.value, None)
        sessions.end()
    start_response("200 OK", [("Content-Type", "application/json")])
    return [json.dumps(told).encode()]
