"""Django. Sessions in a cache in memory (`LocMemCache`) are counted, and can be saved."""

from __future__ import annotations

import importlib
import time
from collections.abc import Iterator
from typing import Any

from lbadaptor.appserver.sessions.stores.django_access import DjangoAccess
from lbadaptor.appserver.sessions.stores.objects import name_of
from lbadaptor.appserver.sessions.stores.store import Store

MODULE = "django.conf"


def stores(application: Any) -> Iterator[Store]:
    from django.conf import settings
    from django.contrib.sessions.backends import cache as on_cache
    from django.core.cache import caches
    from django.core.cache.backends.locmem import LocMemCache

    if not settings.configured or not any("SessionMiddleware" in name for name in settings.MIDDLEWARE):
        return
    cookie, engine = settings.SESSION_COOKIE_NAME, settings.SESSION_ENGINE
    kept = importlib.import_module(engine).SessionStore
    if not issubclass(kept, on_cache.SessionStore):
        yield Store(cookie, engine, shared=True)
        return
    backend = caches[settings.SESSION_CACHE_ALIAS]
    if not isinstance(backend, LocMemCache):
        yield Store(cookie, name_of(type(backend)), shared=True)
        return
    prefix = backend.make_key(kept.cache_key_prefix)
    whole = backend.make_key(f"{kept.cache_key_prefix}x")
    expiry: dict[str, float | None] = backend._expire_info

    def count() -> int:
        now = time.time()
        return sum(
            key.startswith(prefix) and (expires is None or expires > now) for key, expires in list(expiry.items())
        )

    yield Store(
        cookie,
        name_of(LocMemCache),
        count if whole == f"{prefix}x" else None,  # a KEY_FUNCTION of its own hides which keys are sessions
        most=backend._max_entries,
        setting="MAX_ENTRIES in the OPTIONS of CACHES",
        access=DjangoAccess(kept, backend),
    )
