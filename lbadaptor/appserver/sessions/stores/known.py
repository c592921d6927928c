"""The frameworks that are known, and what the AppServer asks about the sessions of an application.

`session_count = "flask"` names one of them. A framework is imported only then, or when the application has imported
it already.
"""

from __future__ import annotations

import importlib
import sys
from typing import Any

from lbadaptor.appserver.sessions.stores import beaker, cherrypy, django, flask, webware
from lbadaptor.appserver.sessions.stores.access import SessionAccess
from lbadaptor.appserver.sessions.stores.store import Count, Framework, Store, Unreadable

KNOWN: dict[str, Framework] = {
    "beaker": beaker,
    "cherrypy": cherrypy,
    "django": django,
    "flask": flask,
    "webware": webware,
}
"""By the name that `session_count` has for it."""

SMALL_STORE = 10_000
"""Entries. A store that holds fewer is warned about."""


def reader(framework: str, application: Any, cookie: str) -> tuple[Count, str]:
    """A function that counts the sessions that live in this process, and a warning, empty when there is none.

    Raises Unreadable.
    """
    try:
        stores = list(KNOWN[framework].stores(application))
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
        if 0 < store.most < SMALL_STORE
    )
    return counts[0] if len(counts) == 1 else lambda: sum(count() for count in counts), warning


def notice(application: Any, cookie: str) -> str:
    """What to say of sessions that are not counted; empty: nothing. Looks at frameworks that are in use only.

    Raises Unreadable where processes would damage each other's sessions.
    """
    for framework, module in KNOWN.items():
        try:
            stores = list(module.stores(application)) if module.MODULE in sys.modules else []
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
    for module in KNOWN.values():
        try:
            stores = list(module.stores(application)) if module.MODULE in sys.modules else []
        except Exception:  # `notice` says what is wrong
            stores = []
        names.update(dict.fromkeys(store.cookie for store in stores if store.used))
    return [] if cookie in names else list(names)


def session_access(
    framework: str, application: Any, cookie: str, save: str, load: str
) -> tuple[SessionAccess | None, str]:
    """What reads and loads the sessions whose cookie is `cookie`, one by one, and a sentence for the log: which store
    they are in, or why they cannot be saved.

    `framework`: what `session_count` says; where that is no known framework, those in use are looked at. `save` and
    `load` name the application's own functions (`module:function`), and go before all others. Raises Unreadable when
    these are not there.
    """
    if save or load:
        from lbadaptor.appserver.sessions.stores.own import Functions

        own = Functions(_function("save", save), _function("load", load))
        return own, f"the application's own {save} and {load} save and load sessions"
    names = [framework] if framework in KNOWN else [name for name in KNOWN if KNOWN[name].MODULE in sys.modules]
    found: list[Store] = []
    unseen: list[str] = []
    for name in names:
        try:
            found += KNOWN[name].stores(application)
        except Unreadable as error:
            unseen.append(str(error))
        except Exception as error:  # the framework is not there, or not the one that we know
            unseen.append(f"what {name} keeps its sessions in is not to be seen: {type(error).__name__}: {error}")
    mine = [store for store in found if store.cookie == cookie and store.used]
    usable = [store for store in mine if store.access is not None]
    if usable:
        if any(store.access != usable[0].access for store in usable):
            return None, f"several stores in this process have the cookie {cookie}: sessions cannot be saved"
        return usable[0].access, f"the sessions in {usable[0].name} can be saved"
    return None, f"sessions cannot be saved: {'; '.join([*_reasons(mine, found, cookie), *unseen])}"


def _reasons(mine: list[Store], found: list[Store], cookie: str) -> list[str]:
    """Why none of the stores that were found can save sessions. `mine`: those with the cookie."""
    if mine:
        return [
            f"{store.name} has them, not this process alone"
            if store.shared
            else f"{store.name} does not hand them out one by one"
            for store in mine
        ]
    others = dict.fromkeys(store.cookie for store in found if store.used)
    text = f"no known store has the cookie {cookie}" if cookie else "session_cookie is not set"
    return [f"{text}; the frameworks' own: {', '.join(others)}" if others else text]


def _function(setting: str, name: str) -> Any:
    """Import `module:function`. The current folder is in sys.path, as for the application."""
    module, _, attribute = name.partition(":")
    try:
        function = importlib.import_module(module)
        for part in attribute.split("."):
            function = getattr(function, part)
    except Exception as error:
        raise Unreadable(f'[sessions] {setting} = "{name}": {type(error).__name__}: {error}') from error
    if not callable(function):
        raise Unreadable(f'[sessions] {setting} = "{name}" is not callable')
    return function
