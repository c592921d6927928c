"""What the application's answer says of its session, and the ticket that goes along with it. Pure."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from lbadaptor.appserver.ledger import Ledger
from lbadaptor.cookies import SetCookie

Headers = list[tuple[str, str]]

_SHARED = ("path", "domain", "expires", "max-age", "samesite", "secure")


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
        added = [
            ("Set-Cookie", self._ticket_like(cookie))
            for name, value in headers
            if name.lower() == "set-cookie"
            and self._cookie in value
            and (cookie := SetCookie.parse(value)) is not None
            and cookie.name == self._cookie
            and self._enter(cookie, brought)
            and self._ticket
        ]
        return [*_private(headers), *added] if added else headers

    def _enter(self, cookie: SetCookie, brought: Sequence[str]) -> bool:
        if cookie.deletes(self._wall_clock()):
            self._ledger.end([*brought, cookie.value])
        else:
            self._ledger.assign(cookie.value, brought, self._clock())
        return True

    def _ticket_like(self, cookie: SetCookie) -> str:
        """The ticket, with the very scope and lifetime of the session cookie, so that neither outlives the other."""
        deleted = cookie.deletes(self._wall_clock())
        shared = [text for text in cookie.attributes if text.partition("=")[0].strip().lower() in _SHARED]
        if deleted and cookie.lifetime(self._wall_clock()) is None:
            shared.append("Max-Age=0")
        return "; ".join([f"{self._ticket_cookie}={'' if deleted else self._ticket}", *shared, "HttpOnly"])


def _private(headers: Headers) -> Headers:
    """The headers with `Cache-Control: private`, unless they are as strict already (RFC 9111 §5.2.2)."""
    directives = [
        part.strip()
        for name, value in headers
        if name.lower() == "cache-control"
        for part in value.split(",")
        if part.strip()
    ]
    names = {directive.partition("=")[0].lower() for directive in directives}
    if "no-store" in names or "private" in directives:
        return headers
    kept = [part for part in directives if part.partition("=")[0].lower() not in ("public", "s-maxage", "private")]
    others = [(name, value) for name, value in headers if name.lower() != "cache-control"]
    return [*others, ("Cache-Control", ", ".join(["private", *kept]))]
