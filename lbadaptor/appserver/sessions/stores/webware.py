"""Webware for Python. Sessions in memory and in files are counted; a folder of files belongs to one process. Those
of the stores Memory and Dynamic can be saved."""

from __future__ import annotations

import fcntl
import importlib
import os
import time
from collections.abc import Iterator
from typing import Any

from lbadaptor.appserver.sessions.stores.objects import within
from lbadaptor.appserver.sessions.stores.store import Count, Store, Unreadable
from lbadaptor.appserver.sessions.stores.webware_access import WebwareAccess, lives

MODULE = "SessionStore"

_locked: dict[str, int] = {}
"""the descriptor of each folder that this process has locked"""


def stores(application: Any) -> Iterator[Store]:
    """Raises Unreadable when another process has the same SessionStoreDir: they would steal each other's sessions."""
    application_class = importlib.import_module("Application").Application  # Webware's modules have bare names
    for app in within(application, application_class):
        store, cookie = app.sessions(), app.setting("SessionName")
        kind = type(store).__name__
        memory = {"SessionMemoryStore": store, "SessionDynamicStore": getattr(store, "_memoryStore", None)}.get(kind)
        files = kind in ("SessionDynamicStore", "SessionFileStore")
        if files:
            _lock(app._sessionDir)
        if memory is not None or files:
            access = WebwareAccess(store, memory) if memory is not None else None
            yield Store(cookie, kind, _count(app, memory, files), access=access)
        else:
            yield Store(cookie, kind, shared=True)


def _count(app: Any, memory: Any, files: bool) -> Count:
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


def _lock(folder: str) -> None:
    """Lock a folder for this process, until its end. Raises Unreadable when another process has locked it."""
    if folder in _locked:
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
    _locked[folder] = descriptor
