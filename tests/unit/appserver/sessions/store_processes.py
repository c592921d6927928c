"""Applications with each framework, each in a process of its own as far as its sessions go."""

from __future__ import annotations

import itertools
import pickle
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from typing import Any
from wsgiref.util import setup_testing_defaults

import flask
import flask_session
import pytest
from beaker.container import MemoryNamespaceManager
from beaker.middleware import SessionMiddleware
from beaker.util import SyncDict
from cachelib import SimpleCache

from lbadaptor.appserver.sessions.stores import SessionAccess, session_access
from lbadaptor.contract.cookies import SetCookie

LIFETIME = 600
_numbers = itertools.count()


class Thing:
    """What a session may hold: a class of the application."""


class Stubborn:
    """What a session may not hold."""

    def __reduce__(self) -> str:
        raise pickle.PicklingError("no")


def act(session: Any, path: str) -> str:
    """What the application does with the session of a visitor."""
    _, verb, word = path.split("/")
    if verb == "set":
        session["items"] = [word]
    elif verb == "append":
        session["items"].append(word)
    elif verb == "thing":
        session["thing"] = Thing()
    elif verb == "stubborn":
        session["thing"] = Stubborn()
    return ",".join(session.get("items", []))


@dataclass
class Process:
    """An application in a process of its own, as far as its store goes."""

    framework: str
    cookie: str
    application: Any
    entries: Callable[[], list[str]]
    """the keys of all that is in the store, in its order"""
    end: Callable[[str], None]
    """let the session of an id end"""
    switch: Callable[[], None] = lambda: None
    """make this process' store the one that the framework uses"""

    @property
    def access(self) -> SessionAccess:
        self.switch()
        found, _ = session_access(self.framework, self.application, self.cookie, "", "")
        assert found is not None
        return found

    def visit(self, path: str, *values: str) -> str:
        """The text of the answer to a visitor with these values of the session cookie."""
        return self._answer(path, values)[1]

    def begin(self, word: str) -> str:
        """A new session with one item; returns the value of its cookie."""
        return self._answer(f"/set/{word}", ())[0]

    def _answer(self, path: str, values: tuple[str, ...]) -> tuple[str, str]:
        self.switch()
        environ: dict[str, Any] = {}
        setup_testing_defaults(environ)
        environ["PATH_INFO"] = path
        if values:
            environ["HTTP_COOKIE"] = "; ".join(f"{self.cookie}={value}" for value in values)
        headers: list[tuple[str, str]] = []
        body = b"".join(self.application(environ, lambda status, fields, exc_info=None: headers.extend(fields)))
        cookies = [SetCookie.parse(value) for name, value in headers if name.lower() == "set-cookie"]
        return "".join(cookie.value for cookie in cookies if cookie is not None), body.decode()


Make = Callable[..., Process]
"""Makes processes; each has a store of its own."""


def flask_process(signed: bool = False, threshold: int = 500, key: str = "secret", **config: Any) -> Process:
    application, cache = flask.Flask("shop"), SimpleCache(threshold)
    application.secret_key = key
    application.config.update(
        SESSION_TYPE="cachelib",
        SESSION_CACHELIB=cache,
        SESSION_USE_SIGNER=signed,
        PERMANENT_SESSION_LIFETIME=timedelta(seconds=LIFETIME),
        **config,
    )
    flask_session.Session(application)

    def view(path: str) -> str:
        if path.startswith("out"):
            flask.session.clear()
        return act(flask.session, f"/{path}")

    application.add_url_rule("/<path:path>", "view", view)

    def end(ident: str) -> None:
        key = f"{application.session_interface.key_prefix}{ident}"  # type: ignore[attr-defined]
        cache._cache[key] = (time.time() - 1, cache._cache[key][1])

    return Process("flask", "session", application, lambda: list(cache._cache), end)


def django_application(environ: dict[str, Any], start_response: Callable[..., Any]) -> list[bytes]:
    from django.contrib.sessions.middleware import SessionMiddleware as Middleware
    from django.core.handlers.wsgi import WSGIRequest
    from django.http import HttpRequest, HttpResponse

    def view(request: HttpRequest) -> HttpResponse:
        if request.path.startswith("/out"):
            request.session.flush()
        return HttpResponse(act(request.session, request.path))

    response = Middleware(view)(WSGIRequest(environ))
    cookies = [("Set-Cookie", morsel.OutputString()) for morsel in response.cookies.values()]
    start_response("200 OK", [*response.items(), *cookies])
    return [response.content]


def django_process(django_settings: Callable[..., Any], most: int = 300, **changes: Any) -> Process:
    location = f"process {next(_numbers)}"
    cache = {"BACKEND": "django.core.cache.backends.locmem.LocMemCache", "LOCATION": location}
    caches = {"default": {**cache, "OPTIONS": {"MAX_ENTRIES": most}, **changes.pop("CACHE", {})}}
    settings = {"SESSION_COOKIE_AGE": LIFETIME, "SESSION_SAVE_EVERY_REQUEST": True, **changes}

    def switch() -> None:
        django_settings(CACHES=caches, **settings)

    def stored() -> dict[str, Any]:
        from django.core.cache.backends import locmem

        return locmem._caches.get(location, {})  # type: ignore[no-any-return]

    def end(ident: str) -> None:
        from django.core.cache.backends import locmem

        (key,) = (key for key in stored() if key.endswith(ident))
        locmem._expire_info[location][key] = time.time() - 1

    return Process("django", "sessionid", django_application, lambda: list(stored()), end, switch)


def beaker_process(monkeypatch: pytest.MonkeyPatch, **options: Any) -> Process:
    namespaces = SyncDict()

    def switch() -> None:
        monkeypatch.setattr(MemoryNamespaceManager, "namespaces", namespaces)

    def application(environ: dict[str, Any], start_response: Callable[..., Any]) -> list[bytes]:
        session, path = environ["beaker.session"], environ["PATH_INFO"]
        text = act(session, path)
        if path.startswith(("/set", "/append", "/thing", "/stubborn")):
            session.save()
        elif path.startswith("/out"):
            session.delete()
        start_response("200 OK", [])
        return [text.encode()]

    config = {f"session.{key}": value for key, value in {"timeout": LIFETIME, **options}.items()}
    outer = SessionMiddleware(application, config)

    def end(ident: str) -> None:
        codec = outer._get_session()
        session = codec._decrypt_data(namespaces[ident]["session"])
        session["_accessed_time"] -= LIFETIME + 1
        namespaces[ident]["session"] = codec._encrypt_data(session)

    return Process("beaker", "beaker.session.id", outer, lambda: list(namespaces.dict), end, switch)


def keys_of_its_own(key: str, prefix: str, version: int) -> str:
    """A KEY_FUNCTION of Django's."""
    return f"of-its-own-{key}"


def ident_of(process: Process, value: str) -> str:
    ident = process.access.ident([value])
    assert ident
    return ident
