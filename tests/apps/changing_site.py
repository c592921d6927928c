"""Flask with its own sessions: their cookie is another one in each answer. Something in the process goes along."""

from __future__ import annotations

import os
import secrets
from typing import Any

from flask import Flask, Response, jsonify, session

application = Flask(__name__)
application.secret_key = "the same in all processes"
_visits: dict[str, int] = {}


@application.get("/count")
def count() -> dict[str, Any]:
    who = session.setdefault("who", secrets.token_hex(8))
    session["nonce"] = secrets.token_hex(8)
    _visits[who] = _visits.get(who, 0) + 1
    return {"pid": os.getpid(), "visits": _visits[who]}


@application.get("/clear")
def clear() -> Response:
    """Takes away the cookie that a former release has set under another path."""
    answer = jsonify(pid=os.getpid())
    answer.delete_cookie("session", path="/old")
    return answer


@application.get("/logout")
def logout() -> dict[str, Any]:
    known = _visits.pop(session.get("who", ""), None) is not None
    session.clear()
    return {"pid": os.getpid(), "known": known}


@application.get("/plain")
def plain() -> dict[str, Any]:
    return {"pid": os.getpid()}
