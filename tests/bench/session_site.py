"""The same small site in several frameworks, with a session of about 2 KB in the memory of its process.

    /enter     begins a session
    /change    changes it: counts on
    /read      looks at it, and changes nothing

An answer is JSON: `pid`, and `count`, which is 0 where there is no session. The environment variable
SESSION_FRAMEWORK names the framework.
"""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Callable, MutableMapping
from typing import Any

COOKIES = {
    "flask": "session",
    "django": "sessionid",
    "cherrypy": "session_id",
    "webware": "_SID_",
    "beaker": "beaker.session.id",
}
"""Each framework's session cookie, with the framework's name for `session_count`."""
ENTRIES = 100_000
"""That a cache holds before it drops sessions."""
LIFETIME = 14 * 86400
"""Seconds that a session lives."""


def cart() -> list[dict[str, Any]]:
    """About 2 KB, as JSON, msgpack or a pickle."""
    return [
        {"number": number, "what": f"the thing {number} that somebody has put there", "price": 9.5}
        for number in range(31)
    ]


def page(name: str, session: MutableMapping[str, Any]) -> dict[str, Any]:
    """What a page does with the session, whatever the framework."""
    if name == "enter":
        session["cart"] = cart()
    if name != "read":
        session["count"] = session.get("count", 0) + 1
    return {"pid": os.getpid(), "count": session.get("count", 0)}


def flask() -> Any:
    from cachelib import SimpleCache
    from flask import Flask, session
    from flask_session import Session

    site = Flask(__name__)
    site.config.update(
        SESSION_TYPE="cachelib", SESSION_CACHELIB=SimpleCache(ENTRIES), PERMANENT_SESSION_LIFETIME=LIFETIME
    )
    Session(site)
    site.add_url_rule("/<name>", "page", lambda name: page(name, session), methods=["GET", "POST"])
    return site


def django() -> Any:
    from django.conf import settings
    from django.core.wsgi import get_wsgi_application
    from django.http import JsonResponse
    from django.urls import path

    views = path("<str:name>", lambda request, name: JsonResponse(page(name, request.session)))
    settings.configure(
        SECRET_KEY="a benchmark's",
        ALLOWED_HOSTS=["*"],
        ROOT_URLCONF=(views,),
        MIDDLEWARE=["django.contrib.sessions.middleware.SessionMiddleware"],
        SESSION_ENGINE="django.contrib.sessions.backends.cache",
        SESSION_COOKIE_AGE=LIFETIME,
        CACHES={
            "default": {
                "BACKEND": "django.core.cache.backends.locmem.LocMemCache",
                "OPTIONS": {"MAX_ENTRIES": ENTRIES},
            }
        },
    )
    return get_wsgi_application()


def cherrypy() -> Any:
    import cherrypy

    class Site:
        @cherrypy.expose
        def default(self, name: str) -> bytes:
            cherrypy.response.headers["Content-Type"] = "application/json"
            return json.dumps(page(name, cherrypy.session)).encode()

    cherrypy.config.update({"environment": "embedded", "log.screen": False})
    sessions = {"tools.sessions.on": True, "tools.sessions.timeout": LIFETIME / 60}
    return cherrypy.Application(Site(), "", {"/": sessions})


WEBWARE_PAGE = """
import json
from HTTPServlet import HTTPServlet
from session_site import page


class {name}(HTTPServlet):
    def respondToGet(self, transaction):
        session = transaction.session()
        session.get = session.value
        told = page("{name}", session)
        del session.get
        transaction.response().setHeader("Content-Type", "application/json")
        transaction.response().write(json.dumps(told))

    respondToPost = respondToGet
"""


def webware() -> Any:
    import webware

    webware.addToSearchPath()
    from Application import Application

    pages = os.path.join(os.path.dirname(os.path.abspath(__file__)), f"webware.{os.getpid()}")
    os.mkdir(pages)
    for name in ("__init__", "enter", "change", "read"):
        with open(os.path.join(pages, f"{name}.py"), "w") as file:
            file.write("" if name == "__init__" else WEBWARE_PAGE.format(name=name))
    settings = {
        "ApplicationConfigFilename": os.path.join(webware.__path__[0], "Configs/Application.config"),
        "Contexts": {"default": pages},
        "PlugIns": [],
        "SessionStore": "Memory",
        "SessionTimeout": LIFETIME / 60,
        "RetainSessions": False,
        "AppLogFilename": None,
        "LogErrors": False,
        "SaveErrorMessages": False,
        "PrintConfigAtStartUp": False,
        "Verbose": False,
        "WSGIWrite": False,
        "SecureSessionCookie": False,
    }
    with tempfile.TemporaryDirectory(prefix="webware-") as work:  # for logs and caches, which are off
        return Application(work, settings=settings, development=False)


def beaker() -> Any:
    from beaker.middleware import SessionMiddleware

    def site(environ: dict[str, Any], start_response: Callable[..., Any]) -> list[bytes]:
        session, name = environ["beaker.session"], environ["PATH_INFO"].lstrip("/")
        body = json.dumps(page(name, session)).encode()
        if name != "read":
            session.save()
        start_response("200 OK", [("Content-Type", "application/json"), ("Content-Length", str(len(body)))])
        return [body]

    return SessionMiddleware(site, {"session.type": "memory", "session.timeout": LIFETIME})


BUILD: dict[str, Callable[[], Any]] = {
    "flask": flask,
    "django": django,
    "cherrypy": cherrypy,
    "webware": webware,
    "beaker": beaker,
}

if "SESSION_FRAMEWORK" in os.environ:
    application = BUILD[os.environ["SESSION_FRAMEWORK"]]()
