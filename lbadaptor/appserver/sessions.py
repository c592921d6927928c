"""What the application's answer says of its session, and the ticket that goes along with it. Pure."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence

from lbadaptor.appserver.ledger import Ledger
from lbadaptor.cookies import SetCookie

Headers = list[tuple[str, str]]

_DIRECTIVE = re.compile(r'(?:[^,"]|"[^"]*"?)+').findall  # no comma within quotes parts two
_SHARED = ("path", "domain", "expires", "max-age", "samesite", "secure", "partitioned")


class Sessions:
    """Reads the session cookie in answers, keeps the ledger, and adds the ticket.

    `ticket` is empty in an AppServer that runs alone: then no ticket is set. `clock` is monotonic,
    `wall_clock` unix time (for the cookie's Expires).
    """

    def __init__(
        self,
        cookie: str,
        ticket_cookie: str,
        ticket: str,
        ledger: Ledger,
        clock: Callable[[], float],
        wall_clock: Callable[[], float],
    ) -> None:
        self._cookie = cookie
        self._ticket_cookie = ticket_cookie
        self._ticket = ticket
        self._ledger = ledger
        self._clock = clock
        self._wall_clock = wall_clock

    def answered(self, headers: Headers, brought: Sequence[str]) -> Headers:
        """The headers to send instead of the application's, where it set its cookie; else the same.

        `brought`: the values of the session cookie in the request.
        """
        cookies = [
            cookie
            for name, value in headers
            if name.lower() == "set-cookie"
            and self._cookie in value
            and (cookie := SetCookie.parse(value)) is not None
            and cookie.name == self._cookie
        ]
        if not cookies:
            return headers
        # Deletions first: an application that also clears its cookie's old path has not ended the session.
        for cookie in cookies:
            if cookie.deletes(self._wall_clock()):
                self._ledger.end([*brought, cookie.value])
        for cookie in cookies:
            if not cookie.deletes(self._wall_clock()):
                self._ledger.assign(cookie.value, brought, self._clock())
        if not self._ticket:
            return headers
        return [*private(headers), *(("Set-Cookie", self._ticket_like(cookie)) for cookie in cookies)]

    def _ticket_like(self, cookie: SetCookie) -> str:
        """The ticket, with the very scope and lifetime of the session cookie, so that neither outlives the other."""
        now = self._wall_clock()
        deleted = cookie.deletes(now)
        shared = [text for text in cookie.attributes if text.partition("=")[0].strip().lower() in _SHARED]
        lifetime = cookie.lifetime(now)
        if deleted and (lifetime is None or lifetime > 0):
            shared.append("Max-Age=0")  # emptied only; the last Max-Age is what counts (RFC 6265 §5.3)
        return "; ".join([f"{self._ticket_cookie}={'' if deleted else self._ticket}", *shared, "HttpOnly"])


def private(headers: Headers) -> Headers:
    """The headers with `Cache-Control: private`, unless they are as strict already (RFC 9111 §5.2.2)."""
    directives = [
        part.strip()
        for name, value in headers
        if name.lower() == "cache-control"
        for part in _DIRECTIVE(value)
        if part.strip()
    ]
    names = {directive.partition("=")[0].lower() for directive in directives}
    if "no-store" in names or "private" in directives:
        return headers
    kept = [part for part in directives if part.partition("=")[0].lower() not in ("public", "s-maxage", "private")]
    others = [(name, value) for name, value in headers if name.lower() != "cache-control"]
    return [*others, ("Cache-Control", ", ".join(["private", *kept]))]
