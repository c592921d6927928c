"""Where frameworks keep their sessions: how many live in this process, and each one of them, to be saved.

A module for each framework; another one reads and loads its sessions one by one, where it is long.

`store.Framework` tells how another one is added.
"""

from __future__ import annotations

from lbadaptor.appserver.sessions.stores.access import Busy, Content, SessionAccess, Unloadable, Unsaveable
from lbadaptor.appserver.sessions.stores.known import notice, other_cookies, reader, session_access
from lbadaptor.appserver.sessions.stores.store import Unreadable

__all__ = [
    "Busy",
    "Content",
    "SessionAccess",
    "Unloadable",
    "Unreadable",
    "Unsaveable",
    "notice",
    "other_cookies",
    "reader",
    "session_access",
]
