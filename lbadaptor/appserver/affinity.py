"""Affinity without session: a visitor stays with the process whose cache knows them. Pure.

All visitors of an AppServer carry one and the same ticket, so the ledger tells them apart by address and
browser. That is an estimate (one office behind one address), and right in what a drain depends on: whether
any holder came within the idle time.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable

from lbadaptor.appserver.environ import Request
from lbadaptor.appserver.ledger import Ledger
from lbadaptor.appserver.sessions import Headers, own_attributes, private

MOST = 65536
"""Visitors that are told apart at once, of some 300 bytes each; beyond that those seen last count."""


def visitor(request: Request) -> str:
    """What tells a visitor apart, as well as anything does that needs no cookie of their own."""
    text = f"{request.told.get('REMOTE_ADDR', '')} {request.fields.get('HTTP_USER_AGENT', '')}"
    return hashlib.blake2b(text.encode("latin-1"), digest_size=8).hexdigest()


class Affinity:
    """Notes who came, and adds the ticket to the first answer. `clock` is monotonic."""

    def __init__(self, ticket_cookie: str, ticket: str, ledger: Ledger, clock: Callable[[], float]) -> None:
        self._set = f"{ticket_cookie}={ticket}"
        self._ledger = ledger
        self._clock = clock

    def answered(self, headers: Headers, who: str, held: bool, mount: str, https: bool) -> Headers:
        """The headers to send instead of the application's to one who brought no ticket of ours; else the same.

        `held`: they brought it. `mount`: SCRIPT_NAME as it was before the application could change it.
        """
        self._ledger.assign(who, (), self._clock())
        if held:
            return headers
        return [*private(headers), ("Set-Cookie", f"{self._set}; {own_attributes(mount, https)}")]
