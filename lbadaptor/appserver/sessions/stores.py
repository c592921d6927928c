"""Where frameworks keep their sessions, and how many of them live in this process.

`session_count = "flask"` names one of these; a framework is imported only then, or when the application has
imported it already. Counting takes no lock of the framework's: a dictionary's items are copied in one step.
"""

from __future__ import annotations

import datetime
import fcntl
import gc
import importlib
import os
import sys
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from types import CellType, FunctionType, ModuleType
from typing import Any

Count = Callable[[], int]

FEW = 10_000
"""A store that holds fewer sessions is warned about."""
DEEPEST = 20_000
"""How many objects of an application are looked at in search of its framework's."""


@dataclass
class Store:
    """What an application's sessions are kept in."""

    cookie: str
    """the name of the session cookie"""
    name: str
    count: Count | None = None
    """how many live in this process; None: it cannot tell"""
    shared: bool = False
    """other processes have the same sessions, or the visitors have"""
    most: int = 0
    """beyond so many entries it drops living sessions; 0: never"""
    setting: str = ""
    """where that number is set"""
    used: bool = True
    """whether the application can have sessions in it at all"""


class Unreadable(Exception):
    """No count of this process' own sessions is to be had; the text says why, and what to do."""


def reader(framework: str, application: Any, cookie: str) -> tuple[Count, str]:
    """A function that counts the sessions that live in this process, and a warning, empty when there is none.

    Raises Unreadable.
    """
    try:
        stores = list(FRAMEWORKS[framework](application))
    except Unreadable:
        raise
    except Exception as error:  # the framework is not there, or not the one that we know
        raise Unreadable(f'session_count = "{framework}": {type(error).__name__}: {error}') from error
    if not stores:
        raise Unreadable(f'session_count = "{framework}": the application has no sessions of that kind')
    mine = [store for store in stores if store.cookie == cookie]
    if not mine:
        raise Unreadable(
            f'session_count = "{framework}": its cookie is {stores[0].cookie}, not session_cookie = "{cookie}"'
        )
    counts = []
    for store in mine:
        if store.count is None:
            raise Unreadable(
                f'session_count = "{framework}": {store.name} cannot tell how many sessions live in this process; '
                "leave session_count away, and a drain ends by session_idle"
            )
        counts.append(store.count)
    warning = "; ".join(
        f"{store.name} holds {store.most} entries and then drops living sessions: raise {store.setting}"
        for store in mine
        if 0 < store.most < FEW
    )
    return counts[0] if len(counts) == 1 else lambda: sum(count() for count in counts), warning


def notice(application: Any, cookie: str) -> str:
    """What to say of sessions that are not counted; empty: nothing. Looks at frameworks that are in use only.

    Raises Unreadable where processes would damage each other's sessions.
    """
    for framework, module in IN_USE.items():
        try:
            stores = list(FRAMEWORKS[framework](application)) if module in sys.modules else []
        except Unreadable:
            raise
        except Exception as error:  # nobody asked for its count
            return f"what {framework} keeps its sessions in is not to be seen: {type(error).__name__}: {error}"
        for store in stores:
            if store.shared and store.cookie == cookie:
                return (
                    f"the sessions are in {store.name}, not in this process alone: stickiness only spares a "
                    "cache, and a drain ends when nobody has used a session for session_idle"
                )
    return ""


def other_cookies(application: Any, cookie: str) -> list[str]:
    """What frameworks in use call their session cookies; empty where one is `cookie`, or none tells.

    Never raises: what a framework does not tell says nothing against the name.
    """
    names: dict[str, None] = {}
    for framework, module in IN_USE.items():
        try:
            stores = list(FRAMEWORKS[framework](application)) if module in sys.modules else []
        except Exception:  # `notice` says what is wrong
            stores = []
        names.update(dict.fromkeys(store.cookie for store in stores if store.used))
    return [] if cookie in names else list(names)


# The frameworks.


def beaker(application: Any) -> Iterator[Store]:
    """Its memory holds sessions encoded, ended ones too: it cannot tell."""
    from beaker.middleware import SessionMiddleware

    for middleware in _within(application, SessionMiddleware):
        options = middleware.options
        kind = options.get("type") or ("file" if options.get("data_dir") else "memory")
        yield Store(options["key"], f"Beaker's {kind} store", shared=kind != "memory")


def cherrypy(application: Any) -> Iterator[Store]:
    import cherrypy as framework
    from cherrypy.lib import sessions

    applications = [*framework.tree.apps.values(), *_within(application, framework.Application)]
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
        ram = issubclass(kind, sessions.RamSession)
        cookies[cookie] = Store(cookie, _name(kind), _cherrypy_count(kind) if ram else None, shared=not ram)
    yield from cookies.values()


def _cherrypy_count(kind: Any) -> Count:
    cache: dict[str, tuple[Any, datetime.datetime]] = kind.cache

    def count() -> int:
        now = datetime.datetime.now()  # as RamSession itself has it
        return sum(expires > now for _, expires in list(cache.values()))

    return count


def django(application: Any) -> Iterator[Store]:
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
        yield Store(cookie, _name(type(backend)), shared=True)
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
        _name(LocMemCache),
        count if whole == f"{prefix}x" else None,  # a KEY_FUNCTION of its own hides which keys are sessions
        most=backend._max_entries,
        setting="MAX_ENTRIES in the OPTIONS of CACHES",
    )


def flask(application: Any) -> Iterator[Store]:
    from flask import Flask
    from flask.sessions import SecureCookieSessionInterface

    for app in _within(application, Flask):
        cookie, interface = app.config["SESSION_COOKIE_NAME"], app.session_interface
        cache = getattr(interface, "cache", None)  # Flask-Session's, on cachelib
        simple = sys.modules.get("cachelib.simple")
        if simple is None or not isinstance(cache, simple.SimpleCache):
            # Flask's own interface is always there, and opens no session without a key to sign it with.
            used = bool(app.secret_key) or not isinstance(interface, SecureCookieSessionInterface)
            yield Store(cookie, _name(type(interface if cache is None else cache)), shared=True, used=used)
        else:
            threshold = "threshold of SimpleCache"
            yield Store(
                cookie, _name(type(cache)), _flask_count(interface, cache), most=cache._threshold, setting=threshold
            )


def _flask_count(interface: Any, cache: Any) -> Count:
    prefix: str = interface.key_prefix
    entries: dict[str, tuple[float, bytes]] = cache._cache

    def count() -> int:
        now = time.time()
        return sum(
            key.startswith(prefix) and (expires == 0 or expires > now) for key, (expires, _) in list(entries.items())
        )

    return count


def webware(application: Any) -> Iterator[Store]:
    """Raises Unreadable when another process has the same SessionStoreDir: they would steal each other's sessions."""
    application_class = importlib.import_module("Application").Application  # Webware's modules have bare names
    for app in _within(application, application_class):
        store, cookie = app.sessions(), app.setting("SessionName")
        kind = type(store).__name__
        memory = {"SessionMemoryStore": store, "SessionDynamicStore": getattr(store, "_memoryStore", None)}.get(kind)
        files = kind in ("SessionDynamicStore", "SessionFileStore")
        if files:
            _take(app._sessionDir)
        if memory is not None or files:
            yield Store(cookie, kind, _webware_count(app, memory, files))
        else:
            yield Store(cookie, kind, shared=True)


def _webware_count(app: Any, memory: Any, files: bool) -> Count:
    def lives(session: Any, now: float) -> bool:
        timeout = session.timeout()
        return timeout is None or now < session.lastAccessTime() + timeout

    def count() -> int:
        now = time.time()
        in_memory = sum(lives(session, now) for session in memory.values()) if memory is not None else 0
        return in_memory + (_files(app._sessionDir, now - app._sessionTimeout) if files else 0)

    return count


def _files(folder: str, since: float) -> int:
    """How many sessions were written since then (unix time): the last use at the earliest."""
    number = 0
    with os.scandir(folder) as entries:
        for entry in entries:
            try:
                number += entry.name.endswith(".ses") and entry.stat().st_mtime > since
            except FileNotFoundError:  # it has just ended, or is in memory again
                continue
    return number


_taken: dict[str, int] = {}


def _take(folder: str) -> None:
    """Keep a folder for this process for as long as it lives. Raises Unreadable when another one has it."""
    if folder in _taken:
        return
    descriptor = os.open(folder, os.O_RDONLY | os.O_CLOEXEC)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        raise Unreadable(
            f"SessionStoreDir {folder} is another AppServer's too, and they would steal each other's sessions: give "
            "each one of its own (own_folder)"
        ) from None
    _taken[folder] = descriptor


FRAMEWORKS: dict[str, Callable[[Any], Iterable[Store]]] = {
    "beaker": beaker,
    "cherrypy": cherrypy,
    "django": django,
    "flask": flask,
    "webware": webware,
}
IN_USE = {
    "beaker": "beaker.middleware",
    "cherrypy": "cherrypy",
    "django": "django.conf",
    "flask": "flask",
    "webware": "SessionStore",
}
"""The module that is there when an application uses the framework."""


def _name(kind: type) -> str:
    return f"{kind.__module__}.{kind.__qualname__}"


def _within(application: Any, kind: type) -> list[Any]:
    """The objects of a class that an application is or wraps, in whatever middleware; the nearest first."""
    found = []
    seen: set[int] = set()
    waiting = deque([application])
    while waiting and len(seen) < DEEPEST:
        thing = waiting.popleft()
        if id(thing) not in seen:
            seen.add(id(thing))
            if issubclass(type(thing), kind):  # isinstance() would ask a proxy for its class, and run its code
                found.append(thing)
            waiting.extend(_parts(thing))
    return found


def _parts(thing: Any) -> Iterable[Any]:
    """What an object refers to: a function, to what it encloses and the globals that it names."""
    kind = type(thing)
    if issubclass(kind, (type, ModuleType)):
        return ()
    if kind is not FunctionType:
        return gc.get_referents(thing)
    filled = [cell for cell in thing.__closure__ or () if cell != CellType()]
    scope = thing.__globals__
    return [
        *(cell.cell_contents for cell in filled),
        *(scope[name] for name in thing.__code__.co_names if name in scope),
    ]
