"""A visit counter that knows its visitors by their passwords, without a cookie, and says itself who has a session."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterable
from typing import Any

_visits: dict[str, int] = {}


def application(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
    sessions = environ["lbadaptor.sessions"]
    who = environ.get("HTTP_AUTHORIZATION", "")
    told: dict[str, Any] = {"pid": os.getpid(), "living": sessions.living}
    page = environ["PATH_INFO"].strip("/")
    if page == "count":
        _visits[who] = told["visits"] = _visits.get(who, 0) + 1
        sessions.begin()
    elif page == "logout":
        _visits.pop(who, None)
        sessions.end()
    start_response("200 OK", [("Content-Type", "application/json")])
    return [json.dumps(told).encode()]
