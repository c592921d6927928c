"""Affinity without session: a visitor stays with the process whose cache knows them. Pure.

All visitors of an AppServer carry one and the same ticket, so the table tells them apart by address and
browser. That is an estimate (one office behind one address), and right in what a drain depends on: whether
any holder came within the idle time.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from typing import Any

from lbadaptor.appserver.sessions.cookies import Headers, own_attributes, private
from lbadaptor.appserver.sessions.table import SessionTable
from lbadaptor.appserver.wsgi.environ import Request

MAX_VISITORS = 65536
"""Visitors that are told apart at once, of some 300 bytes each; beyond that those seen last count."""


def visitor(request: Request) -> str:
    """What tells a visitor apart, as well as anything does that needs no cookie of their own."""
    text = f"{request.fields.get('REMOTE_ADDR', '')} {request.fields.get('HTTP_USER_AGENT', '')}"
    return hashlib.blake2b(text.encode("latin-1"), digest_size=8).hexdigest()


class AffinityVisit:
    """One who comes, and stays with this process."""

    def __init__(self, affinity: Affinity, who: str, held: bool, fields: Mapping[str, str]) -> None:
        self.known = self.held = held
        """our ticket was brought"""
        self._affinity = affinity
        self._who = who
        self._fields = fields

    def tell(self, environ: dict[str, Any], lost: bool) -> None:
        """Tell the application. `lost`: by the adaptor's word the visitor's AppServer is gone."""
        environ["lbadaptor.session_lost"] = lost

    def answered(self, headers: Headers, cookies: bool = True) -> Headers:
        """The headers to send instead of the application's to one who brought no ticket of ours; else the same.

        `cookies`: some may be set.
        """
        ticket = self._affinity.note(self._who)
        if self.held:
            return headers
        return [*private(headers), ("Set-Cookie", f"{ticket}; {own_attributes(self._fields)}")]

    def undelivered(self) -> None:
        """Nobody has got the answer; but who asked was here."""


class Affinity:
    """Notes who came. `clock` is monotonic."""

    def __init__(self, ticket_cookie: str, ticket: str, table: SessionTable, clock: Callable[[], float]) -> None:
        self._ticket = f"{ticket_cookie}={ticket}"
        self._table = table
        self._clock = clock

    def of(self, request: Request) -> AffinityVisit:
        """Who comes with a request."""
        return AffinityVisit(self, visitor(request), request.held, request.fields)

    def note(self, who: str) -> str:
        """A visitor is here. Returns the ticket, as a cookie."""
        now = self._clock()
        if not self._table.use((who,), now):
            self._table.assign(who, (), now)
        return self._ticket
