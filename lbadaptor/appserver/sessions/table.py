"""The table of sessions that live in this process, by the application's own session cookie. Pure.

A session counts from the moment the application sets its cookie until the application deletes it or nobody has used
it for the idle time. With affinity, the table holds visitors instead, each from the last request on. Times are
monotonic seconds, given by the caller. Any thread may use it.

A session has one or several values of its cookie. An application may set another value with each answer (a signed
cookie with the time in it, a new id at the login), and a browser sends requests in parallel: several answers to one
value then set several, of which the browser keeps the one that arrives last. That may be any of them. So all are of
one session, and known, until a request shows which one the browser has kept, when nothing can be under way any more.
"""

from __future__ import annotations

import hashlib
import threading
from collections import OrderedDict
from collections.abc import Callable, Iterable

from lbadaptor.log import logs

log = logs.logger("lbadaptor.appserver")

OVERLAP = 60.0
"""Seconds. A request or an answer with a value takes no longer to arrive. A browser that brings another value of the
session after that time does not have this one."""
MAX_VALUES = 1 << 20
"""Values of all sessions together. One takes some 600 bytes with all that belongs to it, so 600 MB at most."""
MAX_VALUES_OF_SESSION = 64
"""Values of one session, of which a browser may have any that was set within OVERLAP."""
LONGEST_KEY = 64
"""Characters of a value or scope that is kept as it is; of a longer one, a digest is."""
MAX_SCOPES = 4
"""Scopes of one value."""

UNKNOWN = ""
"""The scope of a value that the application has not set here."""


class _Session:
    """One session. Its values are in the order in which they were last seen, that is set or brought."""

    __slots__ = ("values",)

    def __init__(self) -> None:
        self.values: dict[str, tuple[str, float]] = {}
        """of each value: its scopes, one a line; when it was last seen, as far as there was another one"""


class SessionTable:
    """Live sessions, in the order of their last use, so that a sweep looks at nothing but what has ended.

    `most`: how many values are known at most; beyond that the session longest unused is forgotten, and that is said
    once.

    A scope tells apart cookies of one name: a cookie's identity is name, domain and path (RFC 6265 §5.3). An
    assignment replaces, and a deletion ends, values of the same scope only. `unknown` says whether values of unknown
    scope are meant, too.
    """

    def __init__(self, idle: float, most: int = MAX_VALUES) -> None:
        self._idle = idle
        self._most = most
        self._last_use: OrderedDict[_Session, float] = OrderedDict()
        self._begun: dict[_Session, float] = {}
        """when each was first known here, the first of them first"""
        self._owners: dict[str, _Session] = {}
        """the session of each value"""
        self._shared: set[str] = set()
        """values that were given to several visitors"""
        self._ended: OrderedDict[str, tuple[float, _Session | None]] = OrderedDict()
        """values of sessions that were deleted or lost: when, and the session begun since"""
        self._sweep_at = float("inf")
        """no session ends before (monotonic)"""
        self._warned_full = False
        self._lock = threading.Lock()

    def use(self, values: Iterable[str], now: float) -> bool:
        """A request brought these values: whether one is of a living session, which is now used."""
        known = False
        with self._lock:
            if now >= self._sweep_at:
                self._sweep(now)
            for value in values:
                key = value if len(value) <= LONGEST_KEY else _digest(value)
                session = self._owners.get(key)
                if session is not None:
                    known = True
                    self._last_use[session] = now
                    self._last_use.move_to_end(session)
                    if len(session.values) > 1:
                        self._forget_replaced(session, key, now)
        return known

    def assign(
        self,
        value: str,
        brought: Iterable[str],
        now: float,
        scope: str = UNKNOWN,
        unknown: bool = True,
        lost: bool = False,
    ) -> bool:
        """The application set its cookie, on a request that brought these values, which it replaces; whether the
        value is a new one.

        Those are known until a request has brought the new one for a while: its answer may not arrive. `lost`: they
        were of a session in a process that is gone.
        """
        key, scope = short(value), short(scope)
        keys = [short(old) for old in brought]
        with self._lock:
            if now >= self._sweep_at:
                self._sweep(now)
            origin = self._origin(keys, key, scope, unknown)
            session = self._owners.get(key)
            new = session is None
            if session is None:
                session = origin or self._new_session(keys, now, lost)
            elif session is not origin:
                if not any(self._owners.get(old) is session for old in keys):
                    self._shared.add(key)  # another visitor has it already
                if origin is not None:
                    self._merge(origin, session, now)
            scopes, _ = session.values.pop(key, (UNKNOWN, now))
            for old in keys:
                if old in session.values:
                    session.values[old] = session.values.pop(old)[0], now
            session.values[key] = _with(scopes, scope), now
            self._owners[key] = session
            self._last_use[session] = now
            self._last_use.move_to_end(session)
            self._begun.setdefault(session, now)
            while len(session.values) > MAX_VALUES_OF_SESSION:
                self._forget_value(next(iter(session.values)))
            while len(self._owners) > self._most and len(self._last_use) > 1:
                self._forget_longest_unused()
            self._sweep_at = min(self._sweep_at, now + self._idle)
        return new

    def forget_undelivered(self, value: str, set_at: float) -> None:
        """The answer that set this value at that moment has reached nobody. Not if it was set or brought since."""
        key = short(value)
        with self._lock:
            session = self._owners.get(key)
            if session is None or key in self._shared or session.values[key][1] != set_at:
                return
            if len(session.values) > 1 or self._last_use[session] == set_at:
                self._forget_value(key)

    def end(self, values: Iterable[str], now: float = 0.0, scope: str | None = None, unknown: bool = True) -> None:
        """The application deleted these sessions; with a scope: the cookies of that scope only.

        A session lives on where the browser has it under another scope, too.
        """
        within = None if scope is None else short(scope)
        with self._lock:
            for value in values:
                key = short(value)
                session = self._owners.get(key)
                if session is None or (within is not None and not _is_of(session.values[key][0], within, unknown)):
                    continue
                for one, (scopes, seen) in list(session.values.items()):
                    left = UNKNOWN if within is None else _without(scopes, within)
                    if left or not (within is None or _is_of(scopes, within, unknown)):
                        session.values[one] = left or scopes, seen
                    else:
                        self._end_value(one, now)

    def forget(self, values: Iterable[str], lives: Callable[[str], bool] = lambda value: False) -> None:
        """The sessions with these values do not live here any more, whatever other values they have.

        Except where one of those lives: the session has another id since its visitor has logged in, and requests with
        the old one may be under way. `lives` gets values as the table has them (`short`).
        """
        with self._lock:
            for value in values:
                session = self._owners.get(short(value))
                if session is not None and not any(map(lives, session.values)):
                    self._forget_session(session)

    def abandon(self) -> None:
        """In a forked child: a thread that does not exist here may hold the lock."""
        self._lock = threading.Lock()

    def clear(self) -> None:
        """Forget all sessions."""
        with self._lock:
            for kept in (self._last_use, self._begun, self._owners, self._shared, self._ended):
                kept.clear()

    def count(self, now: float) -> int:
        """How many sessions live."""
        with self._lock:
            self._sweep(now)
            return len(self._last_use)

    def longest(self, now: float) -> float:
        """Seconds until the last of today's sessions ends if nobody uses it again; 0 when there is none."""
        with self._lock:
            self._sweep(now)
            if not self._last_use:
                return 0.0
            return self._last_use[next(reversed(self._last_use))] + self._idle - now

    def oldest(self, now: float) -> float:
        """For how many seconds the oldest living session has been known here; 0 when there is none."""
        with self._lock:
            self._sweep(now)
            return now - next(iter(self._begun.values()), now)

    # With the lock held.

    def _forget_replaced(self, session: _Session, key: str, now: float) -> None:
        """A request shows what the browser has kept: forget values that it can neither have nor get any more."""
        mine, _ = session.values.pop(key)
        session.values[key] = mine, now
        over = []
        for other, (scopes, seen) in session.values.items():
            if now - seen < OVERLAP:
                break
            if other not in self._shared and _within(scopes, mine):
                over.append(other)
        for other in over:
            self._forget_value(other)

    def _origin(self, keys: Iterable[str], key: str, scope: str, unknown: bool) -> _Session | None:
        """The session that a new value is of, because the request brought a value of it, current or replaced.

        None for a value that several visitors were given: it does not tell whose the new one is.
        """
        for old in keys:
            session = self._owners.get(old)
            if session is not None and old not in self._shared and _is_of(session.values[old][0], scope, unknown):
                return session
        return None

    def _new_session(self, keys: Iterable[str], now: float, lost: bool) -> _Session:
        """A new session; one for all parallel requests whose session was deleted by one of them, or lost."""
        if lost:
            for old in keys:
                if old not in self._owners and old not in self._ended:
                    self._note_end(old, now)
        ended = [old for old in keys if old in self._ended]
        for old in ended:
            successor = self._ended[old][1]
            if successor in self._last_use:
                assert successor is not None
                return successor
        session = _Session()
        for old in ended:
            self._ended[old] = (self._ended[old][0], session)
        return session

    def _merge(self, left: _Session, session: _Session, now: float) -> None:
        """A browser goes over to a session that is known already; requests that it sent before are under way."""
        for key, (scopes, _) in left.values.items():
            self._owners[key] = session
            session.values[key] = scopes, now
        del self._last_use[left], self._begun[left]

    def _forget_value(self, key: str) -> None:
        """Forget a value; with its last one, a session is over."""
        session = self._owners.pop(key)
        del session.values[key]
        self._shared.discard(key)
        if not session.values:
            del self._last_use[session], self._begun[session]

    def _end_value(self, key: str, now: float) -> None:
        """Forget a value that was deleted; answers to parallel requests may still set another one in its place."""
        if key not in self._shared:
            self._note_end(key, now)
        self._forget_value(key)

    def _note_end(self, key: str, now: float) -> None:
        self._ended[key] = (now, None)
        self._ended.move_to_end(key)
        self._sweep_at = min(self._sweep_at, now + OVERLAP)
        if len(self._ended) > self._most:
            self._ended.popitem(last=False)

    def _forget_session(self, session: _Session) -> None:
        for key in list(session.values):
            self._forget_value(key)

    def _forget_longest_unused(self) -> None:
        if not self._warned_full:
            self._warned_full = True
            log.warning(
                "more than %d values of session cookies are known: from now on the session longest unused is "
                "forgotten for each new one; a shorter session_idle, or more AppServers, would do",
                self._most,
            )
        self._forget_session(next(iter(self._last_use)))

    def _sweep(self, now: float) -> None:
        self._sweep_at = float("inf")
        while self._last_use:
            session, used = next(iter(self._last_use.items()))
            if now - used < self._idle:
                self._sweep_at = used + self._idle
                break
            self._forget_session(session)
        while self._ended:
            key, (since, _) = next(iter(self._ended.items()))
            if now - since < OVERLAP:
                self._sweep_at = min(self._sweep_at, since + OVERLAP)
                break
            del self._ended[key]


def short(text: str) -> str:
    """A value or a scope as the table has it. What is short already stays as it is."""
    return text if len(text) <= LONGEST_KEY else _digest(text)


def _digest(text: str) -> str:
    """What stands for a long text. No cookie has such a value: a NUL stands in none."""
    return "\0" + hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=16).hexdigest()


def _is_of(scopes: str, scope: str, unknown: bool) -> bool:
    """Whether a value may be that of the cookie of this scope."""
    if scopes == scope or scope == UNKNOWN:
        return True
    return unknown if scopes == UNKNOWN else scope in scopes.split("\n")


def _within(scopes: str, others: str) -> bool:
    """Whether each of these scopes is one of the others."""
    return scopes in (others, UNKNOWN) or set(scopes.split("\n")) <= set(others.split("\n"))


def _with(scopes: str, scope: str) -> str:
    """These scopes, and another one, which comes last."""
    if UNKNOWN in (scopes, scope) or scopes == scope:
        return scope or scopes
    return "\n".join([*(one for one in scopes.split("\n") if one != scope), scope][-MAX_SCOPES:])


def _without(scopes: str, scope: str) -> str:
    """These scopes but one."""
    return "\n".join(one for one in scopes.split("\n") if one != scope)
