"""Flask, and Flask-Session on cachelib. Sessions in a `SimpleCache` are counted, and can be saved."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from typing import Any

from lbadaptor.appserver.sessions.stores.flask_access import FlaskAccess
from lbadaptor.appserver.sessions.stores.objects import name_of, within
from lbadaptor.appserver.sessions.stores.secret import fingerprint
from lbadaptor.appserver.sessions.stores.store import Count, Store

MODULE = "flask"


def stores(application: Any) -> Iterator[Store]:
    from flask import Flask
    from flask.sessions import SecureCookieSessionInterface

    for app in within(application, Flask):
        cookie, interface = app.config["SESSION_COOKIE_NAME"], app.session_interface
        cache = getattr(interface, "cache", None)  # Flask-Session's, on cachelib
        simple = sys.modules.get("cachelib.simple")
        if simple is None or not isinstance(cache, simple.SimpleCache):
            # Flask's own interface is always there, and opens no session without a key to sign it with.
            used = bool(app.secret_key) or not isinstance(interface, SecureCookieSessionInterface)
            yield Store(cookie, name_of(type(interface if cache is None else cache)), shared=True, used=used)
        else:
            yield Store(
                cookie,
                name_of(type(cache)),
                _count(interface, cache),
                most=cache._threshold,
                setting="threshold of SimpleCache",
                access=_access(app, cookie, interface, cache),
            )


def _count(interface: Any, cache: Any) -> Count:
    prefix: str = interface.key_prefix
    entries: dict[str, tuple[float, bytes]] = cache._cache

    def count() -> int:
        now = time.time()
        return sum(
            key.startswith(prefix) and (expires == 0 or expires > now) for key, (expires, _) in list(entries.items())
        )

    return count


def _access(app: Any, cookie: str, interface: Any, cache: Any) -> FlaskAccess:
    def unsign(value: str) -> str:
        text: str = interface._get_signer(app).unsign(value).decode()
        return text

    if not getattr(interface, "use_signer", False):  # Flask-Session is about to give it up
        return FlaskAccess(cache, cookie, interface.key_prefix, None, "")
    # Without a key the framework refuses every request.
    secret = fingerprint(interface._get_signer(app).secret_key) if app.secret_key else ""
    return FlaskAccess(cache, cookie, interface.key_prefix, unsign, secret)
