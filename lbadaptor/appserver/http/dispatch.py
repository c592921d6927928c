"""What comes on a connection: a probe and a refusal are answered at once, a request waits for a thread."""

from __future__ import annotations

import contextlib
import hmac
import socket
from time import monotonic
from time import time as wall_clock

import msgspec

from lbadaptor.appserver.http import replies
from lbadaptor.appserver.http.admission import Admission
from lbadaptor.appserver.http.connection import Connection
from lbadaptor.appserver.http.limits import MAX_UNFINISHED, Callers
from lbadaptor.appserver.http.own_errors import OwnErrors
from lbadaptor.appserver.http.poller import Poller
from lbadaptor.appserver.http.status import Status
from lbadaptor.appserver.process.messages import Assignment
from lbadaptor.appserver.sessions.affinity import Affinity, AffinityVisit
from lbadaptor.appserver.sessions.cookies import Sessions, Visit
from lbadaptor.appserver.sessions.persistence.keeper import Keeper
from lbadaptor.appserver.sessions.persistence.visits import KeptSessions
from lbadaptor.appserver.sessions.table import SessionTable
from lbadaptor.appserver.wsgi.environ import Request
from lbadaptor.contract import headers
from lbadaptor.contract.headers import Refusal
from lbadaptor.http1.lines import ProtocolError
from lbadaptor.http1.states import BODY, CLOSED, DISCARDING, HEAD, IDLE, LEAVING, REQUEST, State

_DONTWAIT = int(socket.MSG_DONTWAIT)

Task = tuple[Connection, Visit | AffinityVisit, Request]
"""A request that waits for a thread, its connection, and the visitor that it is of."""


class Dispatcher:
    """`readable` is the polling thread's; the others belong to the thread that has the connection.

    None of them waits for a caller.
    """

    def __init__(
        self,
        assignment: Assignment,
        status: Status,
        sessions: SessionTable,
        callers: Callers,
        poller: Poller,
        errors: OwnErrors,
        keeper: Keeper | None = None,
    ) -> None:
        ticket = assignment.ticket_cookie, assignment.ticket
        self._visitors: Sessions | Affinity
        if assignment.affinity:
            self._visitors = Affinity(*ticket, sessions, monotonic)
        else:
            own = assignment.session_cookie, *ticket, sessions, monotonic, wall_clock, status.cookies
            if keeper is None:
                self._visitors = Sessions(*own)
            else:
                self._visitors = KeptSessions(*own, keeper=keeper, dying=lambda: status.status == "DYING")
        self._caller_key = assignment.caller_key
        """empty: the AppServer runs alone"""
        self._probe_key = assignment.probe_key
        self._generation = str(status.generation)
        self._timed = bool(assignment.access_log)
        """each request is timed, whoever asks"""
        self._status = status
        self._admission: Admission[Task] = status.admission
        self._callers = callers
        self._limited = callers.limited
        self._poller = poller
        self._errors = errors

    def readable(self, connection: Connection) -> None:
        """Read what came. Answer, or queue, a request whose head is here. Never raises."""
        try:
            state = connection.state
            if state is REQUEST or state is BODY:
                self._poller.pause(connection)
            elif not connection.receive(_DONTWAIT):
                self._poller.close(connection)
            elif (state := connection.state) is REQUEST or state is BODY:
                self._admit(connection, connection.request)  # type: ignore[arg-type] # it is here in these states
            else:
                self._received(connection, state)
        except BlockingIOError:
            pass
        except ProtocolError as error:
            if connection.state is DISCARDING:  # its request was answered
                self._poller.close(connection)
            else:
                self._callers.finished(connection)
                self.refuse(connection, error.status, "", str(error), close=True)
        except OSError:
            self._poller.close(connection)
        except BaseException:
            self.give_up(connection)

    def _received(self, connection: Connection, state: State) -> None:
        """Something came, and it was not the end of a head. Raises ProtocolError."""
        if state is HEAD:
            self._head_begins(connection)
        elif state is IDLE:  # the rest of an answered request's body was read to its end
            self._callers.finished(connection)
        elif state is DISCARDING or state is LEAVING:
            self._callers.goes_on(connection)

    def _head_begins(self, connection: Connection) -> None:
        """Not all of a head is here. Raises ProtocolError."""
        while not self._callers.began(connection):
            other = self._callers.unfinished_unknown(besides=connection)
            if other is None:
                raise ProtocolError(f"unfinished heads of more than {MAX_UNFINISHED} bytes", 431)
            self._poller.close(other)

    def _admit(self, connection: Connection, request: Request) -> None:
        """Answer a probe, refuse, or queue a request for a thread."""
        limited = connection in self._limited
        if limited:
            self._callers.finished(connection)
        if request.probe is not None and self._is_probe(request):
            if limited:
                self._callers.showed_key(connection)
            body = msgspec.json.encode(self._status.report())
            self._reply(connection, "200 OK", "Content-Type: application/json\r\n", body)
            return
        if self._caller_key:
            if not request.nothing_missing and (missing := request.missing()):
                self.refuse_as(connection, Refusal.INCOMPLETE, f"missing: {', '.join(missing)}")
                return
            if request.generation != self._generation:
                self.refuse_as(connection, Refusal.STALE, f"this is generation {self._generation}")
                return
            if not _same(request.key, self._caller_key):
                self.refuse(connection, 403, headers.KEY_REFUSED, "wrong key")
                return
        if limited:
            self._callers.showed_key(connection)
        if request.timed or self._timed:
            request.since = monotonic()
        visit = self._visitors.of(request)
        refused = self._admission.admit((connection, visit, request), visit.known, visit.held)
        if refused is not None:
            (other, other_visit, _), refusal = refused
            other_visit.over()
            try:
                self.refuse_as(other, refusal, replies.REASONS[refusal])
            except BaseException:  # this connection may be at work in another thread by now; that one is not
                self.give_up(other)

    def _is_probe(self, request: Request) -> bool:
        key = self._probe_key
        return request.target == headers.PROBE_PATH and bool(key) and _same(request.probe, key)

    def refuse_as(self, connection: Connection, refusal: Refusal, why: str) -> None:
        """Answer with a refusal of ours, which the adaptor does not pass on to the visitor."""
        self.refuse(connection, headers.REFUSED_STATUS, refusal.value, why)

    def refuse_moved(self, connection: Connection, whereto: tuple[int, int] | None) -> None:
        """Answer that the session has moved; `whereto`: the slot and generation of the AppServer that has it."""
        more = f"{headers.MOVED_TO}: {whereto[0]}.{whereto[1]}\r\n" if whereto else ""
        code, reason = headers.REFUSED_STATUS, replies.REASONS[Refusal.MOVED]
        self.refuse(connection, code, Refusal.MOVED.value, reason, more=more)

    def refuse(
        self, connection: Connection, status: int, refused: str, why: str, close: bool = False, more: str = ""
    ) -> None:
        """Answer a request that the application did not see. `more`: header lines."""
        if close:
            connection.keep_alive = False
        lines = more + replies.refused_lines(refused, self._generation)
        self._reply(connection, replies.status(status), lines, f"{why}\n".encode("latin-1", "replace"))

    def _reply(self, connection: Connection, status: str, lines: str, body: bytes) -> None:
        """Send a short answer of our own. What still comes of the request's body is discarded."""
        is_head = connection.request is not None and connection.request.method == "HEAD"
        reply = replies.reply(status, lines, body, self._status.headers(), connection.keep_alive, is_head)
        try:
            if connection.socket.send(reply, _DONTWAIT) < len(reply):
                connection.keep_alive = False
        except OSError:
            connection.broken = True
        self.answered(connection)

    def say_goodbye(self, connection: Connection, refusal: Refusal) -> None:
        """Send a refusal to a caller that has asked nothing yet, before it is closed. Never raises OSError.

        A caller that sends a request at this very moment reads from it that the request was not begun. An idle
        caller finds its connection readable and throws it away (as with the 408 of RFC 9110 §15.5.9). The kernel
        delivers it before the reset that unread bytes cause.
        """
        with contextlib.suppress(OSError):
            connection.socket.send(replies.goodbye(refusal, self._status.headers()), _DONTWAIT)

    def answered(self, connection: Connection, broken_off: bool = False) -> None:
        """The answer was sent: make ready for the next request, or hang up. Either thread calls it.

        `broken_off`: the application failed within the answer. Then only our side of the connection is closed: so the
        caller can tell that from the end of this process, which closes both.
        """
        lingers = broken_off or connection.state is not REQUEST
        if connection.broken or connection.state is CLOSED or not (connection.keep_alive or lingers):
            self._poller.close(connection)
            return
        if lingers and self._callers.goes_on(connection):  # before another thread may have it
            self._poller.wake()  # the thread that polls waits without a time limit
        if connection.keep_alive and not broken_off:
            connection.finish()
        elif not connection.hang_up():
            self._poller.close(connection)
            return
        if connection.paused:  # after the state has changed: see `poller`
            self._poller.resume(connection)

    def failed_after(self) -> None:
        """An error of our own is being handled, and the connection belongs to another thread. Never raises."""
        self._errors.report("an error after an answer was sent")

    def give_up(self, connection: Connection) -> None:
        """An error of our own is being handled: report it and close the connection. Never raises."""
        self._errors.report("an error at work on a connection, which is given up")
        with contextlib.suppress(BaseException):
            self._poller.close(connection)


def _same(given: str | None, key: str) -> bool:
    """Whether the right key was given. The time that this takes does not depend on where they differ."""
    return given is not None and given.isascii() and hmac.compare_digest(given, key)
