"""Beaker. Its memory holds sessions encoded, ended ones too: they cannot be counted, but they can be saved."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from lbadaptor.appserver.sessions.stores.beaker_access import BeakerAccess
from lbadaptor.appserver.sessions.stores.objects import within
from lbadaptor.appserver.sessions.stores.secret import fingerprint
from lbadaptor.appserver.sessions.stores.store import Store

MODULE = "beaker.middleware"

_OTHERWISE = ("id", "session_class", "namespace_class")
"""options with which an application takes over where its sessions are, or which one a visitor has"""


def stores(application: Any) -> Iterator[Store]:
    from beaker.middleware import SessionMiddleware

    for middleware in within(application, SessionMiddleware):
        options = middleware.options
        kind = options.get("type") or ("file" if options.get("data_dir") else "memory")
        access = _access(options) if kind == "memory" else None
        yield Store(options["key"], f"Beaker's {kind} store", shared=kind != "memory", access=access)


def _access(options: dict[str, Any]) -> BeakerAccess | None:
    if any(options.get(name) for name in _OTHERWISE) or not options.get("use_cookies", True):
        return None
    secret = options.get("secret")
    return BeakerAccess(options, fingerprint(secret) if secret else "")
