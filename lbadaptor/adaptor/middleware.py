"""The adaptor: the story of a request, from Apache to an AppServer and back.

table (as of now) → verdict on the ticket → body kept → choice → relay → answer kept or streamed. On
failure the error names how far it came, `failover` says what may be done, and the choice avoids whom it
tried. The adaptor writes no file but the spool, sets no cookie, and installs no signal handler.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

from lbadaptor.adaptor import circuit_breaker, error_pages, forward, retry
from lbadaptor.adaptor.accepted_settings import AcceptedSettings
from lbadaptor.adaptor.backends import Fleet, Relayed
from lbadaptor.adaptor.circuit_breaker import Suspects
from lbadaptor.adaptor.cutting import hang_up
from lbadaptor.adaptor.error_pages import SorryPage
from lbadaptor.adaptor.exchange import ExchangeFailed
from lbadaptor.adaptor.forward import BadRequest, Environ, Heads
from lbadaptor.adaptor.retry import Deed, Failure
from lbadaptor.adaptor.spool import EMPTY, Body, VisitorGone, keep
from lbadaptor.contract.address import Entry, State, Table
from lbadaptor.contract.cookies import values
from lbadaptor.contract.errors import KeyFileError, OurOwnFault
from lbadaptor.contract.settings import DEFAULT_FILE, Settings
from lbadaptor.contract.settings.snapshot import Snapshot
from lbadaptor.contract.ticket import Verdict
from lbadaptor.log import logs

log = logs.logger("lbadaptor")

LOOK_AGAIN = 0.05
"""Seconds between two looks at address.text, or two attempts at a busy holder, while a request waits."""
ASKED_ONCE = "lbadaptor.asked_once"
"""Set in environ: another lane has asked an AppServer already, and lost it. It is not repeated again."""
_LONGEST_VISITOR = 4096
"""Characters of ticket and session cookies that decide where somebody goes who has lost their session."""
LARGE_HEAD = 65536
"""Bytes of a request's head, beyond which the C library is asked to give back what it has freed (malloc_trim(3)). It
keeps it otherwise: once Apache's threads have written such heads, some 10 MB for each of its arenas, of which there
are eight for each processor."""
FAILING_HOLDERS = 2
"""Requests of one Apache process that may be with a FAILING holder: one hung AppServer must not fill Apache."""


class Adaptor:
    """A WSGI application that relays to AppServers (PEP 3333). Safe to be called by many threads.

    `settings` is the path of a lbadaptor.toml, or its content. Given a path, it goes by what the monitor has accepted
    of that file, as long as a monitor has. Raises SettingsError. A missing key file or address.text is no error here:
    requests get 503 until they are there.
    """

    def __init__(self, settings: Settings | str | os.PathLike[str] = DEFAULT_FILE) -> None:
        self._accepted: AcceptedSettings | None = None
        if isinstance(settings, Settings):
            snapshot = Snapshot(settings, (settings.application.ticket_cookie,))
        else:
            self._accepted = AcceptedSettings(Path(settings))
            snapshot = self._accepted.first()
        self.configuration = Configuration(snapshot)
        self.suspects = Suspects()
        self.fleet = Fleet(snapshot.settings, self._look_at_settings)

    def _look_at_settings(self) -> None:
        """address.text has changed: so may have what the monitor has accepted. By one thread at a time."""
        snapshot = self._accepted.changed() if self._accepted is not None else None
        if snapshot is not None:
            self.fleet.renew(snapshot.settings)
            self.configuration = Configuration(snapshot, self.configuration)

    def __call__(self, environ: Environ, start_response: Callable[..., object]) -> Iterable[bytes]:
        """Answer one request. Blocks on the visitor's body, and on the AppServer."""
        body, streamed, large = EMPTY, False, False
        try:
            body = self._keep_body(environ)
            walk = _Walk(self, environ, body)
            large = len(walk.common) > LARGE_HEAD
            relayed = walk.relay()
            if not body.kept:
                self._take_rest(environ, body, relayed)
            answer = relayed.answer
            if answer.over:
                # In one block: mod_wsgi flushes after each, and needs no chunks for a single one.
                blocks = relayed.taken if len(relayed.taken) < 2 else [b"".join(relayed.taken)]
                start_response(answer.status_line, answer.headers)
                return blocks
            streamed = True
        except BadRequest as error:
            return error_pages.answer(start_response, error.status, f"{error}.")
        except VisitorGone as error:
            return error_pages.answer(start_response, 400, f"{error}.")
        except GiveUp as give_up:
            return self._give_up(environ, start_response, give_up.status, str(give_up))
        except MemoryError:
            return self._give_up(environ, start_response, 503, "out of memory")
        finally:
            if body is not EMPTY and not streamed:
                body.close()
            if large:
                walk.common = b""
                _give_back()
        stream = _Stream(relayed, environ, body, walk)
        if environ.get("mod_wsgi.process_group"):
            # Daemon mode: if it breaks off, nothing may follow on the connection, or it would be taken for the rest.
            answer.headers.append(("Connection", "close"))
        try:
            start_response(answer.status_line, answer.headers)
        except BaseException:
            stream.close()
            raise
        return stream

    def _keep_body(self, environ: Environ) -> Body:
        length = forward.body_length(environ)
        if length == 0:
            return EMPTY
        self.fleet.table_for(())  # new settings count for this body already
        try:
            body = keep(environ["wsgi.input"], length, *self.configuration.keep, short=forward.may_be_short(environ))
        except OurOwnFault as error:
            raise GiveUp(503, str(error)) from None
        if length is None and body.length == 0:
            forward.refuse_lost(environ)
        return body

    def _take_rest(self, environ: Environ, body: Body, relayed: Relayed) -> None:
        """Where Apache takes no answer before it has handed over the whole body, take over what it still has.

        So mod_wsgi's daemon mode does, and mod_cgi. An application that answers while it reads would else wait for
        Apache, and Apache for it. Raises GiveUp, VisitorGone.
        """
        if not (environ.get("mod_wsgi.process_group") or environ.get("wsgi.run_once")):
            return
        try:
            if relayed.answer.over:
                body.pass_over()
            else:
                body.keep_rest(self.configuration.settings.adaptor.spool_folder)
        except BaseException as error:
            relayed.close()
            if isinstance(error, OurOwnFault):
                raise GiveUp(503, str(error)) from None
            raise

    def _give_up(
        self, environ: Environ, start_response: Callable[..., object], status: int, why: str
    ) -> Iterable[bytes]:
        log.warning("lbadaptor: %s %s: %s", status, forward.url(environ), why)
        sorry = self.configuration.sorry
        page = sorry.read() if sorry and status == 503 else None
        return error_pages.answer(start_response, status, page=page)


class Configuration:
    """What one set of settings makes, never changed: a request goes by one of them from its beginning to its end.

    `before`: the one whose place it takes; requests that wait by that one still count.
    """

    def __init__(self, snapshot: Snapshot, before: Configuration | None = None) -> None:
        self.settings = snapshot.settings
        adaptor = self.settings.adaptor
        self.ticket_cookies = snapshot.ticket_cookies
        """first the one that new AppServers set"""
        self.heads = Heads(adaptor.pass_variables)
        self.keep = adaptor.body_memory, adaptor.body_spool, adaptor.spool_folder
        self.sorry = SorryPage(self.settings.sorry_page) if self.settings.sorry_page else None
        self.waiters = threading.Semaphore(adaptor.waiters)
        if before is not None and before.settings.adaptor.waiters == adaptor.waiters:
            self.waiters = before.waiters

    def tickets(self, environ: Environ) -> list[str]:
        """All tickets that a request brings."""
        header = environ.get("HTTP_COOKIE", "")
        found = values(header, self.ticket_cookies[0])
        for name in self.ticket_cookies[1:]:
            found += values(header, name)
        return found


class _Stream:
    """An answer that is passed on as it comes. Where it breaks off, the visitor's connection is cut."""

    def __init__(self, relayed: Relayed, environ: Environ, body: Body, walk: _Walk) -> None:
        self._relayed = relayed
        self._walk = walk
        self._environ = environ
        self._body = body
        self._url = forward.url(environ)  # Apache may have taken the environ back by then

    def __iter__(self) -> Iterator[bytes]:
        try:
            yield from self._relayed
            self._walk.answered()
        except GeneratorExit:
            self._walk.left()
            raise
        except (ExchangeFailed, VisitorGone, MemoryError, OSError) as failed:
            if isinstance(failed, ExchangeFailed):
                self._walk.broke_off(failed)
            cut = hang_up(self._environ)
            state = "cut" if cut else "out of reach"
            why = str(failed) or "out of memory"
            what = f"an answer broke off, the visitor's connection is {state}"
            log.warning("lbadaptor: %s: %s: %s", what, self._url, why)
            if not cut:
                raise

    def close(self) -> None:
        """The visitor has the answer, or has left. An AppServer that is done gets the rest of the request."""
        try:
            self._relayed.close()
        finally:
            self._body.close()


def _give_back() -> None:
    """Have the C library give back what it has freed. Of the GNU library's; others have no such function."""
    import ctypes  # seldom needed, and dear for every Apache process

    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)  # other threads run meanwhile


class GiveUp(Exception):
    """No AppServer's answer can be given; `status` is what the visitor gets."""

    def __init__(self, status: int, why: str) -> None:
        super().__init__(why)
        self.status = status


class _Walk:
    """One request's walk from AppServer to AppServer, until one answers or nothing more may be done."""

    _deadline: float | None = None
    """when it has waited for long enough; None: it has not waited yet"""
    _tried: frozenset[str] = frozenset()
    """the tickets of those that were tried"""
    _looked: frozenset[str] = frozenset()
    """of those because of whom address.text was read anew"""
    _busy: frozenset[str] = frozenset()
    """of those that are asked again after a pause"""
    _asked: Entry | None = None
    """who was asked last"""
    _asked_at = 0.0
    """and when"""

    def __init__(self, adaptor: Adaptor, environ: Environ, body: Body) -> None:
        self._fleet = adaptor.fleet
        self._suspects = adaptor.suspects
        self._environ = environ
        self._body = body
        self._repeated = bool(environ.get(ASKED_ONCE))
        if self._repeated:
            time.sleep(LOOK_AGAIN)  # as after a loss of our own (_after): till then its process may take connections
        while True:
            self._configuration = adaptor.configuration
            self._tickets = self._configuration.tickets(environ)
            self._table: Table = self._fleet.table_for(self._tickets)
            if adaptor.configuration is self._configuration:
                break  # else the look at the table has found new settings, and perhaps another name of the ticket
        self.common = self._configuration.heads.common(environ, body)
        try:
            self._verdict, self._holder, self._ticket = self._fleet.judge(self._tickets, self._table)
        except KeyFileError as error:
            raise GiveUp(503, str(error)) from None

    def relay(self) -> Relayed:
        """The first answer that may be passed on. Raises GiveUp, VisitorGone."""
        if self._suspects and (count := self._suspects.refused(self._kinds(), time.monotonic())):
            raise GiveUp(503, f"refused: {count} AppServers in a row died at work on such a request")
        while True:
            entry = self._asked = self._next()
            self._asked_at = time.monotonic()
            try:
                relayed = self._fleet.ask(
                    entry,
                    self._environ["REQUEST_METHOD"],
                    self.common,
                    self._verdict,
                    self._body,
                    self._table.serial,
                )
                if relayed.answer.complete:
                    self.answered()
                return relayed
            except ExchangeFailed as failed:
                log.info("lbadaptor: AppServer %s: %s", entry.identity, failed)
                self._after(failed, entry)
            except KeyFileError as error:
                raise GiveUp(503, str(error)) from None

    def _next(self) -> Entry:
        """The holder, or an AppServer that was not tried yet; waits a bounded time for one. Raises GiveUp."""
        if self._holder is not None:
            if self._holder.state is State.FAILING and self._fleet.load(self._holder).in_flight >= FAILING_HOLDERS:
                raise GiveUp(503, f"AppServer {self._holder.identity}, which holds the session, is FAILING")
            return self._holder
        return self._choose() or self._wait_for_one()

    def _choose(self) -> Entry | None:
        # Parallel requests of one who lost a session must meet again. Without sessions all who lost an AppServer
        # bring the same, and would all go to the same other one.
        visitor, application = "", self._configuration.settings.application
        if self._verdict is Verdict.LOST and not application.affinity:
            sessions = values(self._environ.get("HTTP_COOKIE", ""), application.session_cookie)
            visitor = " ".join((self._ticket, *sessions))[:_LONGEST_VISITOR]
        return self._fleet.choose(self._table, self._tried | self._busy, visitor)

    def _wait_for_one(self) -> Entry:
        if not self._configuration.waiters.acquire(blocking=False):
            raise GiveUp(503, "no AppServer is available, and enough requests wait for one")
        try:
            while True:
                self._table = self._fleet.table()
                holder = self._table.by_ticket.get(self._ticket)
                if holder is not None and holder.ticket not in self._tried:
                    self._verdict, self._holder = Verdict.HELD, holder  # lost was only the table
                    return holder
                if entry := self._choose():
                    return entry
                if not self._may_wait():
                    raise GiveUp(503, "no AppServer is available")
                time.sleep(LOOK_AGAIN)
                self._busy = frozenset()
        finally:
            self._configuration.waiters.release()

    def _after(self, failed: ExchangeFailed, entry: Entry) -> None:
        """Make ready for the next attempt. Raises GiveUp when there may be none."""
        ticket, failure = entry.ticket, failed.failure
        never_begun = failure in retry.NEVER_BEGAN
        again = ticket in self._looked if never_begun else self._died(failed, entry) or self._repeated
        deed = retry.decide(
            failure, self._verdict, idempotent=self._idempotent(), body_kept=self._body.repeatable, again=again
        )
        if deed in (Deed.BAD_GATEWAY, Deed.UNAVAILABLE, Deed.TIMEOUT):
            status = {Deed.BAD_GATEWAY: 502, Deed.UNAVAILABLE: 503, Deed.TIMEOUT: 504}[deed]
            raise GiveUp(status, f"AppServer {entry.identity}: {failed}")
        self._repeated = self._repeated or deed is Deed.ONCE
        if deed is Deed.SAME:
            self._pause(f"AppServer {entry.identity}: {failed}")
        elif deed is Deed.LOOK:
            self._looked |= {ticket}
        if deed is Deed.ONCE:
            # A process that was killed is gone a moment later; till then it takes connections, and address.text names
            # it. So do others that were killed along with it. The one repetition is for none of them.
            time.sleep(LOOK_AGAIN)
        self._table = self._fleet.table()
        if self._verdict is Verdict.HELD:
            self._holder = None if deed is Deed.GONE else self._table.by_ticket.get(self._ticket)
            if self._holder is None:
                self._take_other_ticket(entry)
        if self._holder is None:
            tried = self._tried
            if deed is Deed.LATER:
                self._busy |= {ticket}
            else:
                self._tried |= {ticket}
            if deed is Deed.ONCE and self._choose() is None:
                self._tried = tried  # there is nobody else

    def answered(self) -> None:
        """The whole answer is here."""
        if self._suspects:
            self._suspects.answered(self._kinds())

    def left(self) -> None:
        """The visitor has left, perhaps before the answer's end; nothing was wrong with it till then."""
        if self._suspects and time.monotonic() - self._asked_at >= circuit_breaker.LASTING:
            self.answered()

    def broke_off(self, failed: ExchangeFailed) -> None:
        """The answer broke off when part of it was passed on."""
        if self._asked is not None:
            self._died(failed, self._asked)

    def _died(self, failed: ExchangeFailed, entry: Entry) -> bool:
        """Whether the AppServer died, by all that can be seen, as others did before at work on such requests."""
        if failed.failure not in (Failure.LOST, Failure.BROKEN):
            return False
        count = self._suspects.died(self._kinds(), entry.ticket, time.monotonic(), self._asked_at)
        if count >= circuit_breaker.NOT_REPEATED:
            log.warning(
                "lbadaptor: %s: %d AppServers in a row died at work on such a request: until one is answered, %s",
                forward.url(self._environ),
                count,
                "not repeated" if count < circuit_breaker.REFUSED else f"refused for {circuit_breaker.REFUSAL:.0f} s",
            )
        return count >= circuit_breaker.NOT_REPEATED

    def _kinds(self) -> circuit_breaker.Keys:
        environ = self._environ
        path = environ.get("SCRIPT_NAME", "") + environ.get("PATH_INFO", "")
        return circuit_breaker.keys(environ["REQUEST_METHOD"], path, environ.get("QUERY_STRING", ""))

    def _take_other_ticket(self, entry: Entry) -> None:
        """The holder is gone, or does not know the visitor: another one whose ticket they brought may."""
        for ticket in self._tickets:
            holder = self._table.by_ticket.get(ticket)
            if holder is not None and ticket != entry.ticket and ticket not in self._tried:
                self._tried |= {entry.ticket}
                self._holder, self._ticket = holder, ticket
                return
        self._verdict = Verdict.LOST
        log.info("lbadaptor: the holder %s is gone; its visitor goes elsewhere as lost", entry.identity)

    def _idempotent(self) -> bool:
        key = self._configuration.settings.adaptor.repeat_idempotency_key and bool(
            self._environ.get("HTTP_IDEMPOTENCY_KEY")
        )
        return retry.idempotent(self._environ["REQUEST_METHOD"], key=key)

    def _may_wait(self) -> bool:
        now = time.monotonic()
        if self._deadline is None:
            self._deadline = now + self._configuration.settings.adaptor.wait
        return now < self._deadline

    def _pause(self, why: str) -> None:
        """Wait a moment for a holder that takes no more now. Raises GiveUp at the deadline."""
        if not self._may_wait() or not self._configuration.waiters.acquire(blocking=False):
            raise GiveUp(503, why)
        try:
            time.sleep(LOOK_AGAIN)
        finally:
            self._configuration.waiters.release()
