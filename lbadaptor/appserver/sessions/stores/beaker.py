"""Beaker. Its memory holds sessions encoded, ended ones too: it cannot be counted."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from lbadaptor.appserver.sessions.stores.objects import within
from lbadaptor.appserver.sessions.stores.store import Store

MODULE = "beaker.middleware"


def stores(application: Any) -> Iterator[Store]:
    from beaker.middleware import SessionMiddleware

    for middleware in within(application, SessionMiddleware):
        options = middleware.options
        kind = options.get("type") or ("file" if options.get("data_dir") else "memory")
        yield Store(options["key"], f"Beaker's {kind} store", shared=kind != "memory")
