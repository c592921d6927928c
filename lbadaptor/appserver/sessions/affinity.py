"""Affinity without session: a visitor stays with the process whose cache has their data. Pure.

All visitors of an AppServer carry one and the same ticket, so the table tells them apart by address and
browser. That is an estimate (one office behind one address), and right in what a drain depends on: whether
any visitor with the ticket came within the idle time.
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
    """The visitor of one request. Has the methods of `cookies.Visit`."""

    def __init__(self, affinity: Affinity, visitor: str, held: bool, fields: Mapping[str, str]) -> None:
        self.known = self.held = held
        """the request brought a ticket of this AppServer"""
        self._affinity = affinity
        self._visitor = visitor
        self._fields = fields

    def tell(self, environ: dict[str, Any], lost: bool) -> None:
        """Add to the application's environ. `lost`: the adaptor says that the visitor's AppServer is gone."""
        environ["lbadaptor.session_lost"] = lost

    def answered(self, headers: Headers, cookies: bool = True) -> Headers:
        """Return the headers to send: the application's, and the ticket for a visitor without one.

        `cookies`: whether the headers may hold a Set-Cookie.
        """
        ticket = self._affinity.note(self._visitor)
        if self.held:
            return headers
        return [*private(headers), ("Set-Cookie", f"{ticket}; {own_attributes(self._fields)}")]

    def over(self) -> None:
        """The request is over, or was refused."""

    def undelivered(self) -> None:
        """The answer reached nobody. The visit counts all the same."""


class Affinity:
    """Notes which visitors came. `clock` is monotonic."""

    def __init__(self, ticket_cookie: str, ticket: str, table: SessionTable, clock: Callable[[], float]) -> None:
        self._ticket = f"{ticket_cookie}={ticket}"
        self._table = table
        self._clock = clock

    def of(self, request: Request) -> AffinityVisit:
        """The visit of a request."""
        return AffinityVisit(self, visitor(request), request.held, request.fields)

    def note(self, visitor: str) -> str:
        """Note a visit. Returns the ticket, as a cookie."""
        now = self._clock()
        if not self._table.use((visitor,), now):
            self._table.assign(visitor, (), now)
        return self._ticket
