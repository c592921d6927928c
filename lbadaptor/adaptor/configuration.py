"""What an adaptor makes of one set of settings."""

from __future__ import annotations

import threading

from lbadaptor.adaptor.error_pages import ErrorPage
from lbadaptor.adaptor.forward import Environ, Heads
from lbadaptor.contract.address import canonical
from lbadaptor.contract.cookies import finder
from lbadaptor.contract.settings import NO_NUMBER
from lbadaptor.contract.settings.snapshot import Snapshot


class Configuration:
    """Never changed: a request goes by one configuration from its beginning to its end.

    `before` is the configuration that this one replaces. Requests that wait by that one still count.
    """

    def __init__(self, snapshot: Snapshot, before: Configuration | None = None) -> None:
        self.settings = snapshot.settings
        adaptor = self.settings.adaptor
        self.ticket_cookies = snapshot.ticket_cookies
        """The name that new AppServers use comes first."""
        self._find = [finder(name) for name in self.ticket_cookies]
        self.heads = Heads(adaptor.pass_variables)
        self.keep = adaptor.body_memory, adaptor.body_spool, adaptor.spool_folder
        """for `spool.keep`"""
        self.error_page = ErrorPage(self.settings.sorry_page) if self.settings.sorry_page else None
        """the administrator's own page for a 503"""
        self.waiters = threading.Semaphore(adaptor.waiters)
        """as many requests may wait for an AppServer"""
        self.waiters_for_moves = threading.Semaphore(adaptor.waiters)
        """as many besides may wait for a session that moves"""
        machine = self.settings.machine
        self.front = frozenset(map(canonical, machine.front)) if machine.number != NO_NUMBER else frozenset()
        """the addresses that see the health page"""
        self.leaving = snapshot.leaving
        if before is not None and before.settings.adaptor.waiters == adaptor.waiters:
            self.waiters, self.waiters_for_moves = before.waiters, before.waiters_for_moves

    def tickets(self, environ: Environ) -> list[str]:
        """All tickets that a request brings."""
        header = environ.get("HTTP_COOKIE")
        if not header:
            return []
        found = self._find[0](header)
        for find in self._find[1:]:
            found += find(header)
        return found
