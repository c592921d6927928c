"""CherryPy. Sessions in memory are counted, and can be saved (`RamSession`)."""

from __future__ import annotations

import datetime
from collections.abc import Iterator
from typing import Any

from lbadaptor.appserver.sessions.stores.cherrypy_access import CherryPyAccess
from lbadaptor.appserver.sessions.stores.objects import name_of, within
from lbadaptor.appserver.sessions.stores.store import Count, Store

MODULE = "cherrypy"


def stores(application: Any) -> Iterator[Store]:
    import cherrypy as framework
    from cherrypy.lib import sessions

    applications = [*framework.tree.apps.values(), *within(application, framework.Application)]
    sections = [framework.config, *(section for app in applications for section in app.config.values())]
    pages = [page for app in applications for page in (app.root, *vars(type(app.root)).values())]
    sections += [getattr(page, "_cp_config", {}) for page in pages]  # what decorators say
    cookies: dict[str, Store] = {}
    for section in sections:
        if not section.get("tools.sessions.on"):
            continue
        kind = section.get("tools.sessions.storage_class")
        old_name = section.get("tools.sessions.storage_type", "ram")
        kind = kind or getattr(sessions, f"{old_name.title()}Session")
        cookie = section.get("tools.sessions.name", "session_id")
        cookies[cookie] = (
            Store(cookie, name_of(kind), _count(kind), access=CherryPyAccess(kind))
            if issubclass(kind, sessions.RamSession)
            else Store(cookie, name_of(kind), shared=True)
        )
    yield from cookies.values()


def _count(kind: Any) -> Count:
    cache: dict[str, tuple[Any, datetime.datetime]] = kind.cache

    def count() -> int:
        now = datetime.datetime.now()  # as RamSession itself has it
        return sum(expires > now for _, expires in list(cache.values()))

    return count
