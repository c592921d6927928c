"""The session of a request, where sessions outlive their process: found before the application is called, saved with
the answer."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from lbadaptor.appserver.sessions.cookies import Headers, Sessions, Visit, allowed, is_shared, private
from lbadaptor.appserver.sessions.persistence.keeper import Keeper
from lbadaptor.appserver.sessions.persistence.kept import Kept
from lbadaptor.appserver.sessions.persistence.saver import Moved, say
from lbadaptor.appserver.wsgi.environ import Request
from lbadaptor.contract.cookies import SetCookie, values

_OF_LIFETIME = re.compile(r"\s*(?:expires|max-age)\s*=", re.IGNORECASE).match


class KeptVisit(Visit):
    """Beside the methods of `Visit`: `find` before the application, `save` before the answer's last byte, `over`."""

    __slots__ = ("_begun", "_counts", "_keeper", "_kept", "_moved", "_signed", "_told_lost", "cookie_set")

    _sessions: KeptSessions

    def __init__(
        self, sessions: KeptSessions, brought: Sequence[str], held: bool, fields: Mapping[str, str], lost: bool
    ) -> None:
        super().__init__(sessions, brought, held, fields, lost)
        self._keeper = sessions.keeper
        self._signed = held or lost
        """the request brought a ticket that we have signed"""
        self._moved = False
        self.cookie_set = False
        """this answer sets or deletes the session cookie, and the ticket with it"""
        kept = self._keeper.enter(brought) if brought else None
        self._kept: list[Kept] = [] if kept is None else [kept]
        """the sessions of which this request is pending"""
        self._counts = self.known
        if kept is not None:
            self.known = True  # its store may let it live longer than the table does
        self._told_lost = lost and not self.known
        self._begun: list[tuple[str, tuple[str, ...], float]] = []
        """session cookies that this answer sets, and whose session the store may have only at the answer's end"""

    def find(self) -> None:
        """Before the application is called: wait for a session that is being moved, take over one that another
        AppServer has left. Blocks for disk. Raises Moved: the application must not be called here."""
        if self._kept:
            self._keeper.await_move(self._kept[0])
            if not self._counts:
                self._sessions.lives_here(self._kept[0])
            return
        if not self._brought or not self._keeper.active:
            return
        dying = self._sessions.dying()
        try:
            kept, self._moved = self._keeper.arrive(self._brought, self._signed and not dying)
        except Moved:
            raise
        except Exception:  # of the framework
            say("find", "a session cannot be looked for", exc_info=True)
            return
        if kept is None:
            if (self._signed and dying) or (self.known and not self.living):
                raise Moved  # since the request was admitted, searches have ended here, or it has left
            return
        if not kept.here:
            self._told_lost = kept.lost
            return
        self._kept.append(kept)
        self._told_lost = False
        if not self.known:
            self._sessions.lives_here(kept)

    def tell(self, environ: dict[str, Any], lost: bool) -> None:
        environ["lbadaptor.sessions"] = self
        environ["lbadaptor.session_lost"] = self._told_lost and bool(self._brought)
        environ["lbadaptor.session_moved"] = self._moved

    def answered(self, headers: Headers, cookies: bool = True) -> Headers:
        headers = super().answered(headers, cookies)
        self.save()
        if self.cookie_set or self._declared is False or self._sessions.ticket in self._fields.get("HTTP_COOKIE", ""):
            return headers
        for kept in self._kept:  # `held` does not tell: the adaptor may have followed LB-Moved-To
            if kept.here:
                return [*private(headers), ("Set-Cookie", self._sessions.ticket_again(kept, self._attributes))]
        return headers

    def began(self, cookie: SetCookie) -> None:
        """This answer sets this session cookie."""
        attributes = tuple(text for text in cookie.attributes if not _OF_LIFETIME(text) and is_shared(text))
        lifetime = cookie.lifetime(now := self._sessions.wall_clock())
        self._register((cookie.value, attributes, 0.0 if lifetime is None else now + lifetime))

    def _register(self, begun: tuple[str, tuple[str, ...], float]) -> Kept | None:
        kept = self._keeper.register(*begun)
        if kept is None:
            self._begun.append(begun)
        elif kept in self._kept:
            self._keeper.left(kept)  # it counts already
        else:
            self._kept.append(kept)
        return kept

    def save(self) -> None:
        """Bring the files of the request's sessions up to date. Blocks for disk. Never raises."""
        if self._begun:
            waiting, self._begun = self._begun, []
            for begun in waiting:
                if (kept := self._register(begun)) is not None:
                    self._sessions.lives_here(kept)
        for kept in self._kept:
            self._keeper.save(kept)

    def undelivered(self) -> None:
        super().undelivered()
        self._begun = []

    def over(self) -> None:
        """The application's `close` has returned, or it was not called at all. Never raises."""
        for kept in self._kept:
            self._keeper.left(kept)
        self._kept = []


class KeptSessions(Sessions):
    """`dying`: whether this AppServer takes over no sessions any more."""

    keeper: Keeper
    dying: Callable[[], bool]

    def __init__(self, *own: Any, keeper: Keeper, dying: Callable[[], bool]) -> None:
        super().__init__(*own)
        self.keeper = keeper
        self.dying = dying

    @property
    def ticket(self) -> str:
        """This AppServer's; empty where it runs alone."""
        return self._ticket

    def wall_clock(self) -> float:
        """Unix time."""
        return self._wall_clock()

    def of(self, request: Request) -> KeptVisit:
        fields = request.fields
        brought = values(fields.get("HTTP_COOKIE", ""), self.cookie, only_ascii=False)
        if "REQUEST_URI" not in fields:  # this AppServer runs without an adaptor
            fields = {**fields, "REQUEST_URI": request.target}
        return KeptVisit(self, brought, request.held, fields, request.lost)

    def lives_here(self, kept: Kept) -> None:
        """A session was taken over: it counts from now on."""
        now, own = self._clock(), list(kept.values)
        for value in own:
            self._table.assign(value, own, now)

    def ticket_again(self, kept: Kept, own: str) -> str:
        """The ticket for a visitor whose session has moved here, with the session cookie's scope and lifetime.

        `own`: the attributes of a cookie for which no session cookie is known.
        """
        attributes = [*kept.head.attributes, "HttpOnly"] if kept.head.attributes else own.split("; ")
        if (lifetime := int(kept.head.cookie_ends - self._wall_clock())) > 0:
            attributes.append(f"Max-Age={lifetime}")
        return "; ".join([f"{self._ticket_cookie}={self._ticket}", *allowed(self._ticket_cookie, attributes)])

    def _cookies_set(self, cookies: Sequence[SetCookie], visit: Visit) -> list[str]:
        assert isinstance(visit, KeptVisit)
        visit.cookie_set = True
        for cookie in cookies:  # before the table has it as one session with the values that the request brought
            if not cookie.deletes(self._wall_clock()):
                visit.began(cookie)
        return super()._cookies_set(cookies, visit)

    def _begin(self, visit: Visit) -> list[str]:
        added = super()._begin(visit)
        assert isinstance(visit, KeptVisit)
        visit.cookie_set = bool(added)
        visit.began(SetCookie(self.cookie, visit._values[0], tuple(visit._attributes.split("; "))))
        return added
