"""Flask, and Flask-Session on cachelib. Sessions in a `SimpleCache` are counted."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from typing import Any

from lbadaptor.appserver.sessions.stores.objects import name_of, within
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
            threshold = "threshold of SimpleCache"
            yield Store(
                cookie, name_of(type(cache)), _count(interface, cache), most=cache._threshold, setting=threshold
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
