"""The application of the torture test with Flask: Flask-Session keeps the sessions, in a SimpleCache."""

from __future__ import annotations

import secrets

import flask
from cachelib import SimpleCache
from flask_session import Session

from .application import COOKIE, LARGE, WITH_SESSION, Request, padding

application = flask.Flask(__name__)
application.config.update(
    SESSION_TYPE="cachelib",
    SESSION_CACHELIB=SimpleCache(threshold=100_000),
    SESSION_COOKIE_NAME=COOKIE,
    PERMANENT_SESSION_LIFETIME=25,
)
Session(application)


@application.route("/<page>", methods=["GET", "POST"])
def _page(page: str) -> flask.Response:
    request = Request(flask.request.environ)
    if not request.name:
        flask.abort(404)
    request.begin()
    if page in WITH_SESSION:
        _with_session(request)
    return flask.Response(request.body(), headers=request.headers())


def _with_session(request: Request) -> None:
    """Flask reads a session before a request and writes it after: of two requests at once, one counts nothing."""
    session = flask.session
    request.told |= {"new": "name" not in session, "count": session.get("count", 0)}
    if request.page == "logout":
        session.clear()
    if request.page in ("login", "visit"):
        if request.page == "login":
            application.session_interface.regenerate(session)  # type: ignore[attr-defined]
        name = session.setdefault("name", (LARGE if request.large else "") + secrets.token_hex(8))
        count = request.told["count"] = session["count"] = request.told["count"] + request.is_post
        if request.is_post:
            session["padding"] = padding(name, count)
            request.counted(name, count)
    request.told["sid"] = session.sid  # type: ignore[attr-defined]
