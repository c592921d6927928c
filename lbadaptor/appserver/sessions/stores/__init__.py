"""Where frameworks keep their sessions, and how many of them live in this process: a module for each framework.

`store.Framework` tells how another one is added.
"""

from __future__ import annotations

from lbadaptor.appserver.sessions.stores.known import notice, other_cookies, reader
from lbadaptor.appserver.sessions.stores.store import Unreadable

__all__ = ["Unreadable", "notice", "other_cookies", "reader"]
