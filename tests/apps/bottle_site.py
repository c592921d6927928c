"""A visit counter in Bottle, with its sessions in the memory of its process (Beaker)."""

from __future__ import annotations

import os
from typing import Any

import bottle
from beaker.middleware import SessionMiddleware

_site = bottle.Bottle()


@_site.get("/count")
def count() -> dict[str, Any]:
    session = bottle.request.environ["beaker.session"]
    session["visits"] = session.get("visits", 0) + 1
    session.save()
    return {"pid": os.getpid(), "visits": session["visits"], "user": session.get("user")}


@_site.post("/login/<user>")
def login(user: str) -> dict[str, Any]:
    session = bottle.request.environ["beaker.session"]
    session["user"] = user
    session.regenerate_id()
    session.save()
    return {"pid": os.getpid()}


@_site.get("/logout")
def logout() -> dict[str, Any]:
    bottle.request.environ["beaker.session"].delete()
    return {"pid": os.getpid()}


@_site.get("/plain")
def plain() -> dict[str, Any]:
    return {"pid": os.getpid()}


application = SessionMiddleware(
    _site,
    {
        "session.type": "memory",
        "session.timeout": int(os.environ.get("SESSION_SECONDS", "3600")),
        "session.httponly": True,
    },
)
