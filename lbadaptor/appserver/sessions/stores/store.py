"""What a framework keeps an application's sessions in, and what a module for a framework has to offer."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, Protocol

from lbadaptor.appserver.sessions.stores.access import SessionAccess

Count = Callable[[], int]
"""How many sessions live. Takes no lock of the framework's: a dictionary's items are copied in one step."""


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
    access: SessionAccess | None = None
    """reads and loads one session; None: they cannot be saved"""


class Unreadable(Exception):
    """No count of this process' own sessions is to be had; the text says why, and what to do."""


class Framework(Protocol):
    """A module for a framework. To support another framework:

    1. Add a module to this folder. It has the two names below. Import the framework within functions only: it may be
       missing, and an application that does not use it must not pay for it.
    2. Enter the module into `KNOWN` in known.py, under the name that `session_count` will have.
    3. If its sessions can be counted, add that name to `COUNTED` in
       lbadaptor/contract/settings/sections/application.py, and run `make docs`.
    4. If its sessions can be saved, give its stores an `access` (access.py).
    5. Add tests to tests/unit/appserver/sessions/test_stores.py and beside it, with the framework itself.
    """

    MODULE: str
    """the module that is in `sys.modules` when an application uses the framework"""

    def stores(self, application: Any, /) -> Iterable[Store]:
        """The stores of an application: none when it does not use the framework's sessions.

        Called after the application was imported, and more than once. May raise anything: the framework
        may be another release. Raises Unreadable when processes would damage each other's sessions.
        """
        ...
