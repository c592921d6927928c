"""The session of a request: what the application tells about it, and the ticket that goes with its cookie. Pure."""

from __future__ import annotations

import re
import secrets
from collections.abc import Callable, Mapping, Sequence
from typing import Any
from urllib.parse import quote_from_bytes

from lbadaptor.appserver.sessions.cookie_check import CookieCheck
from lbadaptor.appserver.sessions.table import UNKNOWN, SessionTable
from lbadaptor.appserver.wsgi.environ import Request
from lbadaptor.contract.cookies import Scope, SetCookie, host_of, values

Headers = list[tuple[str, str]]

_DIRECTIVE = re.compile(r'(?:[^,"]|"[^"]*"?)+').findall  # no comma within quotes parts two
_MOUNT_SAFE = "/!$&'()*+,:=@~"  # what a path may hold (RFC 3986 §3.3), less what ends a cookie's attribute
is_shared = re.compile(
    r"\s*(?:path|domain|expires|max-age|samesite|secure|partitioned)\s*(?:=|$)", re.IGNORECASE
).match
"""Whether the ticket takes over this attribute of the session cookie."""


class Visit:
    """environ["lbadaptor.sessions"]: the application tells here what becomes of the session of one request.

    The session cookie is read in any case; this is for applications whose cookie does not tell. The last call counts.
    Any thread may use it.
    """

    __slots__ = (
        "_brought",
        "_declared",
        "_fields",
        "_head_is_out",
        "_lost",
        "_new",
        "_sessions",
        "_set_at",
        "_values",
        "held",
        "known",
    )

    def __init__(
        self, sessions: Sessions, brought: Sequence[str], held: bool, fields: Mapping[str, str], lost: bool = False
    ) -> None:
        self.known = bool(brought) and sessions.lives(brought)
        """the request brought a session that lives in this process"""
        self.held = held
        """the request brought a ticket of this AppServer"""
        self._sessions = sessions
        self._brought = brought
        self._values = list(brought)
        self._fields = fields
        self._lost = lost
        """the request brought a ticket of an AppServer that is gone"""
        self._new: tuple[str, ...] = ()
        """values of the session cookie that this answer set and no other answer before"""
        self._set_at = 0.0
        """when the answer set them (monotonic)"""
        self._declared: bool | None = None
        """what the application has told: True after `begin`, False after `end`"""
        self._head_is_out = False

    def tell(self, environ: dict[str, Any], lost: bool) -> None:
        """Add to the application's environ. `lost`: the adaptor says that the visitor's AppServer is gone."""
        if self._sessions.cookie:
            environ["lbadaptor.sessions"] = self
        environ["lbadaptor.session_lost"] = lost and bool(self._brought)

    def answered(self, headers: Headers, cookies: bool = True) -> Headers:
        """Return the headers to send: the application's, and the ticket when a session begins or ends.

        `cookies`: whether the headers may hold a Set-Cookie.
        """
        self._head_is_out = True
        if not cookies and self._declared is None:
            return headers
        return self._sessions.answered(headers, self)

    def over(self) -> None:
        """The request is over, or was refused."""

    def undelivered(self) -> None:
        """The answer, and its cookies, reached nobody: sessions that began with it do not count."""
        self._sessions.forget_undelivered(self._new, self._set_at)

    @property
    def _attributes(self) -> str:
        return own_attributes(self._fields)

    def _scope(self, cookie: SetCookie) -> tuple[str, bool]:
        """The scope in which a browser keeps a cookie of this answer, and whether this request may have brought a
        cookie of that scope."""
        fields = self._fields
        host = host_of(fields.get("HTTP_HOST") or fields.get("SERVER_NAME", ""))
        uri = fields.get("REQUEST_URI", "/")
        scope: Scope = cookie.scope(host, uri)
        return " ".join(scope), scope.sent_to(host, uri)

    @property
    def living(self) -> bool:
        """Whether the request brought a session that lives in this process."""
        return self._sessions.lives(self._brought)

    def begin(self) -> None:
        """This visitor has a session from now on. Does nothing when the session lives already.

        The session is known by its cookie: by the value that this answer sets, or by the value that the request
        brought. If there is neither, a session cookie is set. The ticket is set with it. So call this before the
        answer's head is sent, that is before its first byte or write(). Later it raises RuntimeError if a cookie is
        needed.
        """
        if self._head_is_out and not (self.held and self.living):
            raise RuntimeError("lbadaptor.sessions: begin() comes too late, the answer's head is out")
        self._declared = True
        if not self._values:
            self._values.append(secrets.token_urlsafe(16))

    @property
    def value(self) -> str:
        """The value of the session cookie, by which `[sessions] save` and `load` name this session. Empty if there is
        none: the request brought none, and `begin` was not called."""
        return self._values[0] if self._values else ""

    def end(self) -> None:
        """The visitor's session is over. Their ticket is deleted; a session cookie of this answer begins no session.

        Call it at any time. When the answer's head has been sent, the visitor keeps the ticket, without effect.
        """
        self._declared = False
        self._sessions.end(self._values)


class Sessions:
    """Reads the session cookie in answers, updates the table of sessions, and adds the ticket.

    `ticket` is empty in an AppServer that runs alone: then no ticket is set. `clock` is monotonic,
    `wall_clock` unix time (for the cookie's Expires).
    """

    def __init__(
        self,
        cookie: str,
        ticket_cookie: str,
        ticket: str,
        table: SessionTable,
        clock: Callable[[], float],
        wall_clock: Callable[[], float],
        check: CookieCheck | None = None,
    ) -> None:
        self.cookie = cookie
        self._ticket_cookie = ticket_cookie
        self._ticket = ticket
        self._table = table
        self._clock = clock
        self._wall_clock = wall_clock
        self._check = check or CookieCheck("")

    def of(self, request: Request) -> Visit:
        """The session of a request."""
        fields = request.fields
        brought = values(fields.get("HTTP_COOKIE", ""), self.cookie, only_ascii=False)
        if "REQUEST_URI" not in fields:  # this AppServer runs without an adaptor
            fields = {**fields, "REQUEST_URI": request.target}
        return Visit(self, brought, request.held, fields, request.lost)

    def lives(self, brought: Sequence[str]) -> bool:
        """Whether one of these sessions lives in this process. Notes that the session was used."""
        return self._table.use(brought, self._clock())

    def end(self, sessions: Sequence[str]) -> None:
        """These sessions are over."""
        self._table.end(sessions, self._clock())

    def forget_undelivered(self, values: Sequence[str], set_at: float) -> None:
        """An answer that set these values at that moment reached nobody."""
        for value in values:
            self._table.forget_undelivered(value, set_at)

    def answered(self, headers: Headers, visit: Visit) -> Headers:
        """Does the work of `visit.answered`."""
        if not self._check.settled:
            self._check_names(headers, visit)
        cookies = [
            cookie
            for name, value in headers
            if name.lower() == "set-cookie"
            and self.cookie in value
            and (cookie := SetCookie.parse(value)) is not None
            and cookie.name == self.cookie
        ]
        if visit._declared is False:
            added = self._end(cookies, visit)
        elif cookies:
            added = self._cookies_set(cookies, visit)
        elif visit._declared:
            added = self._begin(visit)
        else:
            return headers
        return [*private(headers), *(("Set-Cookie", cookie) for cookie in added)] if added else headers

    def _check_names(self, headers: Headers, visit: Visit) -> None:
        if visit._declared is not None:
            self._check.declared()
        lines = [value for name, value in headers if name.lower() == "set-cookie"]
        if not lines:
            return
        parsed = [SetCookie.parse(line) for line in lines if self.cookie in line or not self._check.knows_others]
        cookies = [cookie for cookie in parsed if cookie is not None]
        if any(cookie.name == self.cookie and _is_without_secure(cookie) for cookie in cookies):
            self._check.is_without_secure()
        self._check.saw(cookie.name for cookie in cookies)

    def _cookies_set(self, cookies: Sequence[SetCookie], visit: Visit) -> list[str]:
        """The answer sets or deletes session cookies. Returns the cookies to add."""
        now = visit._set_at = self._clock()
        # Of several in one scope the last one counts: a browser takes them in their order (RFC 6265 §5.3). Two scopes
        # are two cookies: an application that also clears its cookie's old path has not ended the session.
        last = {visit._scope(cookie): cookie for cookie in cookies}
        for place, cookie in last.items():
            if cookie.deletes(self._wall_clock()):
                self._table.end([*visit._brought, cookie.value], now, *place)
        for place, cookie in last.items():
            if not cookie.deletes(self._wall_clock()):
                if self._table.assign(cookie.value, visit._brought, now, *place, visit._lost):
                    visit._new += (cookie.value,)
                visit._values.append(cookie.value)
        return [self._ticket_for(cookie) for cookie in cookies] if self._ticket else []

    def _begin(self, visit: Visit) -> list[str]:
        """The application has called `begin`. Returns the cookies to add."""
        lived, added = visit.living, []
        scope = UNKNOWN  # of a cookie that the request brought: another process may have set it
        if not visit._brought:
            text = (
                f"{self.cookie}={visit._values[0]}; {'; '.join(allowed(self.cookie, visit._attributes.split('; ')))}"
            )
            cookie = SetCookie.parse(text)
            assert cookie is not None
            scope, _ = visit._scope(cookie)
            added.append(text)
        if not lived:
            visit._set_at = self._clock()
            new = self._table.assign(visit._values[0], (), visit._set_at, scope)
            if new and not visit._brought:
                visit._new = (visit._values[0],)
        if self._ticket and not (lived and visit.held):
            attributes = "; ".join(allowed(self._ticket_cookie, visit._attributes.split("; ")))
            added.append(f"{self._ticket_cookie}={self._ticket}; {attributes}")
        return added

    def _end(self, cookies: Sequence[SetCookie], visit: Visit) -> list[str]:
        """The application has called `end`. Returns the cookies to add."""
        self._table.end([*visit._values, *(cookie.value for cookie in cookies)], self._clock())
        if not self._ticket or not visit.held:
            return []
        attributes = "; ".join(allowed(self._ticket_cookie, visit._attributes.split("; ")))
        own = f"{self._ticket_cookie}=; {attributes}; Max-Age=0"
        return [*(self._ticket_for(cookie, ended=True) for cookie in cookies), own]

    def _ticket_for(self, cookie: SetCookie, ended: bool = False) -> str:
        """The ticket, with the same scope and lifetime as the session cookie, so that neither outlives the other."""
        now = self._wall_clock()
        deleted = ended or cookie.deletes(now)
        shared = [text for text in cookie.attributes if is_shared(text)]
        lifetime = cookie.lifetime(now)
        if deleted and (lifetime is None or lifetime > 0):
            shared.append("Max-Age=0")  # emptied only; the last Max-Age is what counts (RFC 6265 §5.3)
        shared = allowed(self._ticket_cookie, shared)
        return "; ".join([f"{self._ticket_cookie}={'' if deleted else self._ticket}", *shared, "HttpOnly"])


def allowed(name: str, attributes: list[str]) -> list[str]:
    """The attributes that a cookie of this name can have. Browsers refuse a `__Host-` cookie with a Domain, another
    Path than `/`, or without Secure, and a `__Secure-` one without Secure (RFC 6265bis §4.1.3)."""
    lower = name.lower()
    if not lower.startswith(("__host-", "__secure-")):
        return attributes
    names = {attribute.partition("=")[0].strip().lower() for attribute in attributes}
    if lower.startswith("__host-"):
        others = [one for one in attributes if one.partition("=")[0].strip().lower() not in ("domain", "path")]
        attributes = ["Path=/", *others]
    return attributes if "secure" in names else [*attributes, "Secure"]


def _is_without_secure(cookie: SetCookie) -> bool:
    """Whether browsers refuse it because of SameSite=None (RFC 6265bis §5.7)."""
    attributes = {"".join(text.split()).lower() for text in cookie.attributes}
    return "samesite=none" in attributes and not any(text.partition("=")[0] == "secure" for text in attributes)


def own_attributes(fields: Mapping[str, str]) -> str:
    """The attributes of a cookie that is set without a session cookie. `fields`: of the request."""
    path = quote_from_bytes(fields.get("SCRIPT_NAME", "").encode("latin-1"), _MOUNT_SAFE) or "/"
    secure = "; Secure" if fields.get("wsgi.url_scheme") == "https" else ""
    return f"Path={path}; SameSite=Lax{secure}; HttpOnly"


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
