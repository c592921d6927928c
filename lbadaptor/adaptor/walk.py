"""One request's walk from AppServer to AppServer, until one of them answers.

The walk carries out what `retry.decide` says; it decides nothing about failures itself.
"""

from __future__ import annotations

import time
from collections.abc import Callable

from lbadaptor.adaptor import circuit_breaker, forward, retry
from lbadaptor.adaptor.backends import Backends, BufferedResponse
from lbadaptor.adaptor.circuit_breaker import CircuitBreaker
from lbadaptor.adaptor.configuration import Configuration
from lbadaptor.adaptor.exchange import ExchangeFailed
from lbadaptor.adaptor.forward import Environ
from lbadaptor.adaptor.retry import RETRY_PAUSE, Avoid, Failure, Moved, Next, Step, Wait
from lbadaptor.adaptor.spool import Body
from lbadaptor.contract.address import Entry, State, Table
from lbadaptor.contract.cookies import values
from lbadaptor.contract.errors import KeyFileError
from lbadaptor.contract.ticket import Verdict
from lbadaptor.log import logs

log = logs.logger("lbadaptor")

ASKED_ONCE = "lbadaptor.asked_once"
"""A key of environ: the fast lane has sent this request to an AppServer and lost it. It is not repeated once more."""
_MAX_VISITOR = 4096
"""Characters of session cookies that decide which AppServer a visitor gets whose session has no holder."""
MAX_FOR_FAILING = 2
"""Requests that an Apache process may have in flight at a FAILING holder. One hung AppServer must not fill Apache."""


class GiveUp(Exception):
    """The visitor gets an error page with `status`."""

    def __init__(self, status: int, why: str) -> None:
        super().__init__(why)
        self.status = status


class Walk:
    """For one request, in one thread. `current` returns the configuration as of now.

    The constructor raises BadRequest and GiveUp.
    """

    _deadline: float | None = None
    """monotonic seconds when it has waited long enough; None before it waits"""
    _tried: frozenset[str] = frozenset()
    """tickets of the AppServers that are not asked again"""
    _busy: frozenset[str] = frozenset()
    """tickets of the AppServers that are not asked again before the next pause"""
    _asked: frozenset[str] = frozenset()
    """tickets of the AppServers that were asked"""
    _named = False
    """the holder is one that LB-Moved-To named"""
    _hops = 0
    """how often in a row one was named"""
    _missed: frozenset[str] = frozenset()
    """tickets of the holders that could not be reached, and were asked once more because of that"""
    last: Entry | None = None
    """the AppServer that was asked last"""
    last_sent = 0.0
    """when it was asked, in monotonic seconds"""
    tries = 0
    """how many AppServers were asked, each time that one was"""

    def __init__(
        self,
        backends: Backends,
        breaker: CircuitBreaker,
        current: Callable[[], Configuration],
        environ: Environ,
        body: Body,
    ) -> None:
        self._backends = backends
        self._breaker = breaker
        self._environ = environ
        self._body = body
        self._repeated = bool(environ.get(ASKED_ONCE))
        if self._repeated:
            time.sleep(RETRY_PAUSE)  # as after a loss in this lane (retry.ONCE_MORE)
        while True:
            self._configuration = current()
            self._tickets = self._configuration.tickets(environ)
            self._table: Table = self._backends.table_for(self._tickets)
            if current() is self._configuration:
                break  # otherwise there are new settings, and perhaps another name of the ticket cookie
        self.common = self._configuration.heads.common(environ, body)
        """the part of the request's head that is the same for every AppServer"""
        try:
            self.verdict, self._holder, self._ticket = self._backends.judge(self._tickets, self._table)
        except KeyFileError as error:
            raise GiveUp(503, str(error)) from None
        self._judged = self._ticket
        """the ticket that decided the first verdict; `_ticket` is the holder's, if there is one"""

    def run(self) -> BufferedResponse:
        """The first answer that may be passed on. Blocks. Raises GiveUp, VisitorGone."""
        if self._breaker.deaths and (deaths := self._breaker.refuses(self._kinds(), time.monotonic())):
            raise GiveUp(503, f"refused: {deaths} AppServers in a row died at work on such a request")
        while True:
            entry = self.last = self._next()
            self._asked |= {entry.ticket}
            self.tries += 1
            self.last_sent = time.monotonic()
            try:
                buffered = self._backends.ask(
                    entry,
                    self._environ["REQUEST_METHOD"],
                    self.common,
                    self.verdict,
                    self._body,
                    self._table.serial,
                )
                if buffered.response.complete:
                    self.answered()
                return buffered
            except ExchangeFailed as failed:
                log.info("lbadaptor: AppServer %s: %s", entry.identity, failed)
                step = self._decide(failed, entry)
                self._carry_out(step, entry, failed.moved_to, f"AppServer {entry.identity}: {failed}")
            except KeyFileError as error:
                raise GiveUp(503, str(error)) from None

    def answered(self) -> None:
        """The whole answer is here."""
        if self._breaker.deaths:
            self._breaker.record_answer(self._kinds())

    def visitor_left(self) -> None:
        """The visitor has left, perhaps before the end of the answer. Nothing was wrong with the answer so far."""
        if self._breaker.deaths and time.monotonic() - self.last_sent >= circuit_breaker.STREAM_SECONDS:
            self.answered()

    def broke_off(self, failed: ExchangeFailed) -> None:
        """The answer broke off after a part of it was passed on."""
        if self.last is not None:
            self._count_death(failed.failure, self.last)

    def _next(self) -> Entry:
        """The AppServer to ask: the holder, or another one. Waits a bounded time for one. Raises GiveUp."""
        entry = self._holder or self._choose() or self._wait_for_one()
        if entry.state is State.FAILING and self._backends.load(entry).in_flight >= MAX_FOR_FAILING:
            raise GiveUp(503, f"AppServer {entry.identity}, which holds the session, is FAILING")
        return entry

    def _choose(self) -> Entry | None:
        # Parallel requests of a visitor whose session has no holder must meet again. The session's name is the same
        # in all of them, though their tickets may differ. Where the application has no sessions, all visitors of a
        # lost AppServer bring the same ticket, and would all get the same other AppServer.
        visitor, application = "", self._configuration.settings.application
        if self.verdict is Verdict.LOST and not application.affinity:
            sessions = values(self._environ.get("HTTP_COOKIE", ""), application.session_cookie)
            visitor = " ".join(sessions or (self._judged,))[:_MAX_VISITOR]
        return self._backends.choose(self._table, self._tried | self._busy, visitor)

    def _wait_for_one(self) -> Entry:
        """Wait for an AppServer that takes visitors, or for the holder, if the table names it again."""
        if not self._configuration.waiters.acquire(blocking=False):
            raise GiveUp(503, "no AppServer is available, and enough requests wait for one")
        try:
            while True:
                self._table = self._backends.table()
                holder = self._table.by_ticket.get(self._ticket)
                if holder is not None and holder.ticket not in self._tried:
                    self.verdict, self._holder = Verdict.HELD, holder  # the table had lost it, and names it again
                    return holder
                if entry := self._choose():
                    return entry
                if not self._may_wait():
                    raise GiveUp(503, "no AppServer is available")
                time.sleep(RETRY_PAUSE)
                self._busy = frozenset()
        finally:
            self._configuration.waiters.release()

    def _decide(self, failed: ExchangeFailed, entry: Entry) -> Step:
        key = self._configuration.settings.adaptor.repeat_idempotency_key and bool(
            self._environ.get("HTTP_IDEMPOTENCY_KEY")
        )
        failure = self._follow_up(failed)
        deadly = self._count_death(failure, entry)
        return retry.decide(
            failure,
            self.verdict,
            idempotent=retry.idempotent(self._environ["REQUEST_METHOD"], key=key),
            body_kept=self._body.repeatable,
            missed=entry.ticket in self._missed,
            repeated=self._repeated or deadly,
            named=self._named,
        )

    def _follow_up(self, failed: ExchangeFailed) -> Failure | Moved:
        """The failure; of a refusal as MOVED, what it says, by address.text as of now."""
        if failed.failure is not Failure.MOVED:
            self._hops = 0
            return failed.failure
        self._table = self._backends.table()
        there = self._table.named(failed.moved_to)
        self._hops += there is not None
        asked = there is not None and there.ticket in self._asked
        return retry.moved(failed.moved_to, named=there is not None, asked=asked, hops=self._hops)

    def _carry_out(self, step: Step, entry: Entry, moved_to: str, why: str) -> None:
        """Do what the retry table says after `entry` failed. Blocks for the pause. Raises GiveUp."""
        if step.to is Next.NOBODY:
            raise GiveUp(step.status, why)
        self._repeated |= step.repeats
        if step.remembers:
            self._missed |= {entry.ticket}
        if step.waits is not None:
            self._pause_as_waiter(step.waits, step.pause, why)
        elif step.pause:
            time.sleep(step.pause)
        self._table = self._backends.table()
        if step.to in (Next.NAMED, Next.CHOSEN):
            self._hold(self._table.named(moved_to) if step.to is Next.NAMED else None)
        elif self.verdict is Verdict.HELD:
            self._holder = self._table.by_ticket.get(self._ticket) if step.to is Next.HOLDER else None
            if self._holder is None:
                self._use_other_ticket(entry)
        if self._holder is None or self._holder.ticket != entry.ticket:
            self._avoid(entry, step.avoid)

    def _hold(self, named: Entry | None) -> None:
        """The visitor's tickets count no more: this AppServer has the session, or the one that will be chosen."""
        self._named, self._holder = named is not None, named
        if named is None:
            self.verdict, self._ticket = Verdict.LOST, ""
        else:
            self.verdict, self._ticket = Verdict.HELD, named.ticket
            self._tried -= {named.ticket}

    def _use_other_ticket(self, entry: Entry) -> None:
        """The holder is gone or does not know the visitor. The holder of another ticket of theirs may know them."""
        if self._named:
            self._hold(None)
            return
        for ticket in self._tickets:
            holder = self._table.by_ticket.get(ticket)
            if holder is not None and ticket != entry.ticket and ticket not in self._tried:
                self._holder, self._ticket = holder, ticket
                return
        self.verdict = Verdict.LOST
        log.info("lbadaptor: the holder %s is gone; its visitor goes elsewhere as lost", entry.identity)

    def _avoid(self, entry: Entry, avoid: Avoid) -> None:
        if avoid is Avoid.NEVER:
            return
        if avoid is Avoid.TILL_PAUSE:
            self._busy |= {entry.ticket}
            return
        before = self._tried
        self._tried |= {entry.ticket}
        if avoid is Avoid.UNLESS_ALONE and self._holder is None and self._choose() is None:
            self._tried = before

    def _pause_as_waiter(self, wait: Wait, seconds: float, why: str) -> None:
        """Pause, as one of the requests that wait. Raises GiveUp after the deadline, or if too many wait."""
        configuration = self._configuration
        waiters = configuration.waiters if wait is Wait.FOR_HOLDER else configuration.waiters_for_moves
        if not self._may_wait() or not waiters.acquire(blocking=False):
            raise GiveUp(503, why)
        try:
            time.sleep(seconds)
        finally:
            waiters.release()
        self._busy = frozenset()

    def _may_wait(self) -> bool:
        now = time.monotonic()
        if self._deadline is None:
            self._deadline = now + self._configuration.settings.adaptor.wait
        return now < self._deadline

    def _count_death(self, failure: Failure | Moved, entry: Entry) -> bool:
        """Tell the circuit breaker that an AppServer seems to have died. Whether such requests are not repeated."""
        if not retry.TABLE[failure].died:
            return False
        deaths = self._breaker.record_death(self._kinds(), entry.ticket, time.monotonic(), self.last_sent)
        if deaths < circuit_breaker.NO_RETRY_DEATHS:
            return False
        log.warning(
            "lbadaptor: %s: %d AppServers in a row died at work on such a request: until one is answered, %s",
            forward.url(self._environ),
            deaths,
            "not repeated"
            if deaths < circuit_breaker.OPEN_DEATHS
            else f"refused for {circuit_breaker.OPEN_SECONDS:.0f} s",
        )
        return True

    def _kinds(self) -> circuit_breaker.Kinds:
        environ = self._environ
        path = environ.get("SCRIPT_NAME", "") + environ.get("PATH_INFO", "")
        return circuit_breaker.kinds(environ["REQUEST_METHOD"], path, environ.get("QUERY_STRING", ""))
