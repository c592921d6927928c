"""A visit counter in Flask, with the sessions of Flask-Session in the memory of its process (cachelib)."""

from __future__ import annotations

import os
from typing import Any

from cachelib import SimpleCache
from flask import Flask, session
from flask_session import Session

application = Flask(__name__)
application.config.update(
    SESSION_TYPE="cachelib",
    SESSION_CACHELIB=SimpleCache(threshold=100_000),
    PERMANENT_SESSION_LIFETIME=int(os.environ.get("SESSION_SECONDS", "3600")),
)
Session(application)


@application.get("/count")
def count() -> dict[str, Any]:
    session["visits"] = session.get("visits", 0) + 1
    return {"pid": os.getpid(), "visits": session["visits"], "user": session.get("user")}


@application.post("/login/<user>")
def login(user: str) -> dict[str, Any]:
    application.session_interface.regenerate(session)  # type: ignore[attr-defined]
    session["user"] = user
    return {"pid": os.getpid()}


@application.get("/logout")
def logout() -> dict[str, Any]:
    session.clear()
    return {"pid": os.getpid()}


@application.get("/plain")
def plain() -> dict[str, Any]:
    return {"pid": os.getpid()}
