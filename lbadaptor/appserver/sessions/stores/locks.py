"""A framework's own lock, taken for a moment only."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from lbadaptor.appserver.sessions.stores.access import Busy

PATIENCE = 1.0
"""Seconds that a session which is loaded waits for the lock of its store. The application waits for the same lock
next, without a limit, to find the session."""


@contextmanager
def held(lock: Any) -> Iterator[None]:
    """Hold a lock. Blocks for PATIENCE at most, then raises Busy."""
    if not lock.acquire(timeout=PATIENCE):
        raise Busy
    try:
        yield
    finally:
        lock.release()
