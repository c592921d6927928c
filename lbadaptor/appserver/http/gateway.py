"""The gateway: HTTP from the adaptors in, WSGI calls to the application.

One thread at a time leads (see `leadership`): it polls all connections, reads heads, answers probes and refusals at
once, and serves a request itself while requests are short. There is one thread more than may be at work, so somebody
always polls: a probe never waits behind the application. Idle connections cost no thread.
"""

from __future__ import annotations

import contextlib
import errno
import hmac
import os
import resource
import select
import socket
import struct
import sys
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from threading import Lock, Thread
from time import monotonic, sleep
from time import time as wall_clock

import msgspec

from lbadaptor.appserver.http import listening
from lbadaptor.appserver.http.admission import Admission
from lbadaptor.appserver.http.connection import Connection
from lbadaptor.appserver.http.limits import MOST_UNFINISHED, MOST_UNKNOWN, Callers
from lbadaptor.appserver.http.schedule import Leadership
from lbadaptor.appserver.http.status import Vitals
from lbadaptor.appserver.process import forks
from lbadaptor.appserver.process.messages import Handover
from lbadaptor.appserver.sessions.affinity import Affinity, AffinityVisit
from lbadaptor.appserver.sessions.cookies import Sessions, Visit
from lbadaptor.appserver.sessions.table import SessionTable
from lbadaptor.appserver.wsgi import environ as environs
from lbadaptor.appserver.wsgi.answer import Answer, FileWrapper, ShortAnswer
from lbadaptor.appserver.wsgi.environ import Environ, Incomplete, Request
from lbadaptor.contract import headers
from lbadaptor.contract.headers import Refusal
from lbadaptor.http1.lines import ProtocolError
from lbadaptor.http1.states import HEAD
from lbadaptor.log import logs, texts

log = logs.logger("lbadaptor.appserver")

Application = Callable[..., Iterable[bytes]]

CALLER_TIMEOUT = 300
"""Seconds without a byte moved within a request's body or an answer, after which the caller is given up."""
ACCEPT_PAUSE = 1.0
"""Seconds between two looks whether there are descriptors again. If not even the reserve is left, no connection is
taken for as long."""
RESERVE = 8
"""Descriptors kept for callers that come when the process has no others: the probe, and whoever has a key."""
STUMBLE = 0.05
"""Seconds that a thread rests after an error in its own work, lest it do nothing else."""
MUTE, OFTEN = 10.0, 3
"""Within MUTE seconds the same error is told OFTEN times at most."""

_Epoll = select.epoll
_Socket = socket.socket  # applications replace such names (to use a proxy, say)
_NO_DESCRIPTOR = (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM)
_DONTWAIT = int(socket.MSG_DONTWAIT)
_TIMEVAL = struct.pack("@ll", CALLER_TIMEOUT, 0)
_WHY = {Refusal.DYING: "no visitors but those whose session is here", Refusal.BUSY: "too many requests wait"}
_REASONS = {400: "Bad Request", 403: "Forbidden", 421: "Misdirected Request", 431: "Request Header Fields Too Large"}
_LONGEST_PATH = 200
"""Characters of a path that the log is told."""

Task = tuple[Connection, Visit | AffinityVisit]
"""A request that waits for a thread, and who came with it."""


class Gateway:
    """Serves one application on its listening sockets, the first one of an address. `start`, then `stop`."""

    def __init__(
        self,
        listeners: Sequence[socket.socket],
        application: Application,
        handover: Handover,
        vitals: Vitals,
        ledger: SessionTable,
    ) -> None:
        self._listeners = {listener.fileno(): listener for listener in listeners}
        self._sockets = listening.identities(listeners)
        self._application = application
        self._handover = handover
        self._vitals = vitals
        self._ledger = ledger
        ticket = handover.ticket_cookie, handover.ticket
        self._stickiness: Sessions | Affinity
        if handover.affinity:
            self._stickiness = Affinity(*ticket, ledger, monotonic)
        else:
            self._stickiness = Sessions(
                handover.session_cookie, *ticket, ledger, monotonic, wall_clock, vitals.cookies
            )
        self._alone = not handover.caller_key
        self._generation = str(vitals.generation)
        self.address: tuple[str, int] = listeners[0].getsockname()[:2]
        threads = vitals.admission.threads
        if handover.caller_key:
            environs.know_key(handover.caller_key)
        self._base = environs.base_environ(vitals.slot, vitals.generation, threads, FileWrapper)
        self._callers = Callers(monotonic, _most_unknown())
        self._connections = self._callers.by_descriptor
        self._limited = self._callers.limited
        self._admission: Admission[Task] = vitals.admission
        self._lock = Lock()
        self._leadership = Leadership()
        self._stopping = False
        self._is_child = False
        """this is a child that the application forked: it serves nobody"""
        self._accept_again: float | None = None
        """when connections are taken again, after a pause"""
        self._short_until: float | None = None
        """descriptors ran out; when to look whether there are some again"""
        self._told: dict[str, deque[float]] = {}
        """errors of our own, and when they were told last"""
        self._reserve = Reserve(RESERVE)
        self._wake = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self._poll = _Epoll()
        self._threads = [
            Thread(target=self._work, name=f"gateway-{number}", daemon=True) for number in range(threads + 1)
        ]
        self._threads.append(Thread(target=self._watch, name="gateway-watch", daemon=True))

    def start(self) -> None:
        """Listen and serve. Returns at once.

        Raises OSError when somebody else listens on the address, RuntimeError when there can be no more threads.
        """
        for listener in self._listeners.values():
            listener.listen(1024)
            listener.setblocking(False)
            self._poll.register(listener, select.EPOLLIN)
        self._poll.register(self._wake, select.EPOLLIN)
        forks.guard(self._abandon)
        for thread in self._threads:
            thread.start()

    def intact(self) -> bool:
        """Whether our descriptors are still there: an application that closes all that it finds closes them, too."""
        try:
            if self._sockets != listening.identities(self._listeners.values()):
                return False
            self._poll.modify(self._wake, select.EPOLLIN)
        except (OSError, ValueError):
            return False
        return self._leadership.intact()

    def _abandon(self) -> None:
        """In a child that the application has just forked: close our copies of everything.

        Nothing is sent or shut down: the parent serves on. The other threads are not there, and the locks they held
        are held for ever.
        """
        self._is_child = True
        self._lock = Lock()
        names: list[object] = []
        for part in (self._admission, self._ledger, self._leadership, self._vitals):
            part.abandon()
        for connection in self._callers.abandon():
            connection.abandon()
        for listener in self._listeners.values():
            with contextlib.suppress(OSError):
                names.append(listener.getsockname())
                listener.close()
        for close in (self._poll.close, self._reserve.close, lambda: os.close(self._wake)):
            with contextlib.suppress(OSError):
                close()
        _close_accepted(names)

    def stop(self, timeout: float) -> None:
        """End the threads, and take leave of all callers.

        Requests that are still at work after `timeout` seconds are abandoned; those that wait for a thread, or that
        nobody has read, are refused.
        """
        self._stopping = True
        self._leadership.end()
        os.eventfd_write(self._wake, 1)
        deadline = monotonic() + timeout
        for thread in self._threads:
            if thread.is_alive():
                thread.join(max(0.0, deadline - monotonic()))
        forks.release(self._abandon)
        self._reserve.close()
        abandoned = any(thread.is_alive() for thread in self._threads)
        self._take_leave(abandoned)
        self._leadership.close()
        if not abandoned:
            self._poll.close()
            os.close(self._wake)

    def _take_leave(self, abandoned: bool) -> None:
        """Hang up, in a way that no caller can take for a request that was begun and lost.

        Whoever has sent a request that was not read, or sends it this very moment, finds an answer that says so; an
        idle connection's owner finds it readable and throws it away (as with the 408 of RFC 9110 §15.5.9). The
        kernel delivers it before the reset that bytes nobody read bring about.
        """
        for listener in self._listeners.values():
            with contextlib.suppress(OSError):  # until nobody is left who was let in
                while True:
                    sock, peer = listener.accept()
                    self._connections[sock.fileno()] = Connection(sock, peer)
            listener.close()
        waiting = [connection for connection, _ in self._admission.dismiss()]
        for connection in list(self._connections.values()):
            begun = connection.request is not None and connection not in waiting
            if not begun and not connection.leaving:
                self._farewell(connection, Refusal.DYING)
            if begun and abandoned:
                with contextlib.suppress(OSError):
                    connection.socket.shutdown(socket.SHUT_RDWR)  # a thread may be using it
            else:
                connection.socket.close()

    def _farewell(self, connection: Connection, refusal: Refusal) -> None:
        head = (
            f"HTTP/1.1 421 {_REASONS[421]}\r\n{headers.REFUSED}: {refusal.value}\r\nContent-Length: 0\r\n"
            "Connection: close\r\n"
        )
        with contextlib.suppress(OSError):
            connection.socket.send(head.encode() + self._vitals.headers() + b"\r\n", socket.MSG_DONTWAIT)

    def _work(self) -> None:
        """A thread's life: lead, serve what waits when the leadership is gone, and again."""
        while True:
            try:
                if not self._leadership.wait():
                    return
                self._lead()
            except BaseException:
                self._stumbled("an error in a thread that takes requests; it begins anew, and nobody is lost")
            self._give_up_leadership()

    def _watch(self) -> None:
        """The watching thread's life."""
        while True:
            try:
                self._leadership.watch()
                return
            except BaseException:
                self._stumbled("an error in the thread that watches the others; it begins anew")

    def _give_up_leadership(self) -> None:
        """Whatever happens: nobody else would poll."""
        while True:
            try:
                self._leadership.give_up()
                return
            except BaseException:  # of memory
                self._stumbled("a thread of the gateway keeps the leadership")

    def _stumbled(self, what: str) -> None:
        """An error in our own work is being handled (of memory, say): tell it, not too often; rest. Never raises."""
        with contextlib.suppress(BaseException):
            now = monotonic()
            kind = f"{what}: {sys.exc_info()[0]}"
            times = self._told.setdefault(kind, deque(maxlen=OFTEN))
            if len(times) < OFTEN or now - times[0] >= MUTE:
                times.append(now)
                log.exception("%s", what)
        with contextlib.suppress(BaseException):
            sleep(STUMBLE)

    # The leader's part. Nothing in it waits for anybody but the poll, and for requests that are short.

    def _lead(self) -> None:
        """Poll and serve, until the gateway stops or the leadership is gone, and nothing waits for a thread."""
        while self._serve_waiting() and not self._stopping:
            timed = self._limited or self._short_until is not None
            for descriptor, _ in self._poll.poll(self._until_due() if timed else None):
                if connection := self._connections.get(descriptor):
                    self._readable(connection)
                elif listener := self._listeners.get(descriptor):
                    self._accept(listener)
                elif descriptor == self._wake and not self._stopping:
                    with contextlib.suppress(BlockingIOError):
                        os.eventfd_read(self._wake)
            if timed:
                self._do_what_is_due()

    def _until_due(self) -> float | None:
        """Seconds until something has to be done though nothing comes; None: nothing has to, for another thread has
        just closed the last connection that has a time limit."""
        times = [time for time in (self._callers.next_end(), self._short_until) if time is not None]
        return max(0.0, min(times) - monotonic()) if times else None

    def _do_what_is_due(self) -> None:
        for connection in self._callers.ended():
            self._close(connection)
        if self._short_until is not None and monotonic() >= self._short_until:
            self._look_for_descriptors()

    def _serve_waiting(self) -> bool:
        """Serve what waits for a thread, one request after the other. Whether this thread, the leader, leads on."""
        admission, leadership = self._admission, self._leadership
        task = admission.begin()
        if task is None:
            return True
        leads = True
        began = monotonic()
        while task is not None:
            staff = None
            try:
                leads = leads and (staff := leadership.keep(began)) is not None
                self._serve(*task)
            except BaseException:  # of memory
                self._give_up(task[0])
                leads = False
            if staff is not None:
                leads = leadership.kept(staff)
            try:
                ended = monotonic()
                leadership.lasted(ended - began)
                began = ended
            except BaseException:
                self._stumbled("how long a request lasted is not known")
            task = admission.end()
        return leads

    def _accept(self, listener: socket.socket) -> None:
        """Take the callers that have come, or as many as there are descriptors for."""
        if self._accept_again is not None:
            return
        for _ in range(64):
            try:
                descriptor, peer = listener._accept()  # type: ignore[attr-defined]
            except BlockingIOError:
                return
            except ConnectionError:
                continue
            except OSError as error:
                if error.errno not in _NO_DESCRIPTOR:
                    raise
                if not self._make_room(listener, error):
                    return
            else:
                self._take_in(descriptor, peer, listener)

    def _take_in(self, descriptor: int, peer: object, listener: socket.socket) -> None:
        try:
            sock = _Socket(listener.family, listener.type, listener.proto, fileno=descriptor)
        except BaseException:  # of memory
            os.close(descriptor)
            raise
        connection = Connection(sock, peer)
        try:
            sock.setblocking(True)
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, _TIMEVAL)
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, _TIMEVAL)
            self._poll.register(sock, select.EPOLLIN)
            excess = self._callers.add(connection, listener.fileno())
        except BaseException:
            self._stumbled("an error at work on a connection, which is given up")
            self._close(connection)
        else:
            if excess is not None:
                self._dismiss(excess)

    def _dismiss(self, connection: Connection) -> None:
        """Hang up on an unknown caller, unless it shows its key this very moment."""
        self._readable(connection)
        if self._callers.is_unknown(connection) and not connection.served:
            self._close(connection)

    # Descriptors may run out: the application uses them, too. Whoever comes then is still let in, for it may be the
    # probe, or a visitor whose session is here. That needs a descriptor: one of the reserve, a stranger's, an idle
    # caller's. Who is taken leave of finds an answer that says BUSY, as at the end (`_take_leave`).

    def _make_room(self, listener: socket.socket, error: OSError) -> bool:
        """Whether there is a descriptor again, for one caller."""
        if all(descriptor != listener.fileno() for descriptor, _ in self._poll.poll(0)):
            return False  # nobody has come: accept(2) takes a descriptor first, and then looks
        if self._short_until is None:
            log.error(
                "cannot take connections (%s) but with %d descriptors in reserve; a higher limit on them would do",
                texts.what(error),
                self._reserve.left,
            )
            self._short_until = monotonic() + ACCEPT_PAUSE
        limit = _descriptor_limit()  # it may be below numbers that are in use: to close those makes no room
        if self._reserve.spend(limit):
            return True
        if (connection := self._callers.eldest_unknown(limit)) is not None:
            self._dismiss(connection)
            return True
        for connection in self._callers.idle():
            if connection.socket.fileno() < limit:
                self._farewell(connection, Refusal.BUSY)
                self._close(connection)
                return True
        for listener in self._listeners.values():
            self._poll.unregister(listener)
        self._accept_again = monotonic() + ACCEPT_PAUSE
        return False

    def _look_for_descriptors(self) -> None:
        """Fill the reserve, and take callers again after a pause. Where there are more, the shortage is over."""
        plenty = self._reserve.fill()
        if self._accept_again is not None and (plenty or monotonic() >= self._accept_again):
            for listener in self._listeners.values():
                with contextlib.suppress(FileExistsError):
                    self._poll.register(listener, select.EPOLLIN)
            self._accept_again = None  # last: where there is no memory to register one, this is tried again
        if plenty:
            self._short_until = None
            log.info("there are descriptors again: connections are taken as ever")
        else:
            self._short_until = monotonic() + ACCEPT_PAUSE

    def _readable(self, connection: Connection) -> None:
        """Read what came, and answer or queue a request whose head is here. Never raises."""
        try:
            if connection.served:
                self._disregard(connection)
            elif not connection.receive(_DONTWAIT):
                self._close(connection)
            elif connection.leaving:
                self._callers.goes_on(connection)
            elif connection.state is HEAD:
                self._begun(connection)
            elif connection.request is None:  # the rest of an answered request's body was discarded to its end
                self._callers.finished(connection)
            elif not connection.discarding:
                self._admit(connection, connection.request)
            else:
                self._callers.goes_on(connection)
        except BlockingIOError:
            pass
        except ProtocolError as error:
            if connection.discarding:  # it has its answer
                self._close(connection)
            else:
                self._callers.finished(connection)
                self._refuse(connection, error.status, "", str(error), close=True)
        except OSError:
            self._close(connection)
        except BaseException:
            self._give_up(connection)

    def _begun(self, connection: Connection) -> None:
        """Not all of a head is here. Raises ProtocolError."""
        while not self._callers.began(connection):
            other = self._callers.unfinished_stranger(besides=connection)
            if other is None:
                raise ProtocolError(f"unfinished heads of more than {MOST_UNFINISHED} bytes", 431)
            self._close(other)

    def _give_up(self, connection: Connection) -> None:
        """An error of our own is being handled. Never raises."""
        self._stumbled("an error at work on a connection, which is given up")
        with contextlib.suppress(BaseException):
            self._close(connection)

    def _admit(self, connection: Connection, request: Request) -> None:
        if request.probe is not None and self._is_probe(request):
            body = msgspec.json.encode(self._vitals.report())
            if connection in self._limited:
                self._callers.showed_key(connection)
            self._reply(connection, "200 OK", "Content-Type: application/json\r\n", body)
            return
        if not self._alone:
            if missing := request.missing():
                why = f"missing: {', '.join(missing)}"
                self._refuse(connection, headers.REFUSED_STATUS, Refusal.INCOMPLETE.value, why)
                return
            if request.generation != self._generation:
                why = f"this is generation {self._generation}"
                self._refuse(connection, headers.REFUSED_STATUS, Refusal.STALE.value, why)
                return
            if not _same(request.key, self._handover.caller_key):
                self._refuse(connection, 403, headers.KEY_REFUSED, "wrong key")
                return
        if connection in self._limited:
            self._callers.showed_key(connection)
        visit = self._stickiness.of(request)
        refused = self._admission.admit((connection, visit), visit.known, visit.held)
        if refused is not None:
            (refused_connection, _), refusal = refused
            self._refuse(refused_connection, headers.REFUSED_STATUS, refusal.value, _WHY[refusal])

    def _is_probe(self, request: Request) -> bool:
        key = self._handover.probe_key
        return request.target == headers.PROBE_PATH and bool(key) and _same(request.probe, key)

    def _refuse(self, connection: Connection, status: int, refused: str, why: str, close: bool = False) -> None:
        """Answer before the application saw anything."""
        if close:
            connection.keep_alive = False
        lines = f"{headers.REFUSED}: {refused}\r\n" if refused else ""
        if refused == Refusal.INCOMPLETE.value:  # whoever asks may be a monitor that has lost its files
            lines += f"{headers.GENERATION}: {self._vitals.generation}\r\n"
        body = f"{why}\n".encode("latin-1", "replace")
        self._reply(connection, f"{status} {_REASONS[status]}", f"{lines}Content-Type: text/plain\r\n", body)

    def _reply(self, connection: Connection, status: str, lines: str, body: bytes) -> None:
        """A short answer of our own; what still comes of the request's body is thrown away."""
        hang_up = "" if connection.keep_alive else "Connection: close\r\n"
        head = f"HTTP/1.1 {status}\r\n{lines}Content-Length: {len(body)}\r\n{hang_up}"
        if connection.request is not None and connection.request.method == "HEAD":
            body = b""
        reply = b"%b%b\r\n%b" % (head.encode(), self._vitals.headers(), body)
        try:
            if connection.socket.send(reply, socket.MSG_DONTWAIT) < len(reply):
                connection.keep_alive = False
        except OSError:
            connection.broken = True
        self._answered(connection)

    # Either thread's part.

    def _answered(self, connection: Connection, broken_off: bool = False) -> None:
        """The answer is out: make ready for the next request, or hang up.

        `broken_off`: the application has failed within it. Then only our side ends: so that the caller can tell that
        from the end of this process, which would end both.
        """
        lingers = not connection.complete or broken_off
        if connection.broken or not (connection.keep_alive or lingers):
            self._close(connection)
            return
        if lingers and self._callers.limit(connection):  # before it is anybody else's
            os.eventfd_write(self._wake, 1)  # whoever polls does so without a limit
        if connection.keep_alive and not broken_off:
            connection.finish()
        elif not connection.hang_up():
            self._close(connection)
            return
        if connection.disregarded:
            self._regard(connection)

    # While a request is served, its connection is left in the poll, which is cheaper than to take it out and in again
    # each time. Only if somebody polls meanwhile, and something comes, it is taken out until the answer is given.

    def _disregard(self, connection: Connection) -> None:
        with self._lock:
            connection.disregarded = True  # said first, looked at again then: `_answered` does it the other way round
            if connection.served and not connection.closed:
                self._poll.unregister(connection.socket)
            else:
                connection.disregarded = False

    def _regard(self, connection: Connection) -> None:
        with self._lock:
            if connection.disregarded and not connection.served:  # else whoever serves its next request does it
                connection.disregarded = False
                self._poll.register(connection.socket, select.EPOLLIN)

    def _close(self, connection: Connection) -> None:
        """Hang up. Any thread may do it, and more than one. Never raises."""
        with self._lock:
            if connection.closed:
                return
            connection.closed = True
            self._callers.remove(connection)
            if not connection.disregarded:
                with contextlib.suppress(OSError, ValueError):
                    self._poll.unregister(connection.socket)  # it would stay in the poll if the application forked
        with contextlib.suppress(OSError):
            connection.socket.shutdown(socket.SHUT_RDWR)  # for the caller, even when the application forked
        with contextlib.suppress(OSError):
            connection.socket.close()

    # The serving thread's part.

    def _serve(self, connection: Connection, visit: Visit | AffinityVisit) -> None:
        """One request through the application. Never raises.

        From the moment that the answer's last byte is out (`_release`) the connection is the poller's, and perhaps
        another thread's; this one is at work until the application's `close()` is over.
        """
        request = connection.request
        assert request is not None
        try:
            environ = self._environ(connection, request)
            visit.tell(environ, request.lost)
            method, uri = environ["REQUEST_METHOD"], environ["REQUEST_URI"]  # the application may change its environ
            chunks, own = request.version == "1.1", self._vitals.headers
            answer = Answer(connection, method, chunks, visit.answered, own, self._release)
            try:
                answer.run(self._application, environ)
            except BaseException as error:  # sys.exit() too: it ends a request, never an AppServer
                if answer.undelivered and isinstance(error, ConnectionError):
                    visit.undelivered()
                self._failed(answer, connection, f"{method} {_path(uri)}", error)
            if self._is_child:
                forks.end(None)
            if not answer.released:
                self._answered(connection, broken_off=True)
        except Incomplete as error:
            self._refuse(connection, headers.REFUSED_STATUS, error.refusal.value, str(error))
        except BaseException:
            self._give_up(connection)

    def _release(self, connection: Connection) -> None:
        """The answer's last byte is out, and the application may go on. Never raises: that would be its error."""
        if self._is_child:
            return
        try:
            self._answered(connection)
        except BaseException:
            self._give_up(connection)

    def _failed(self, answer: Answer, connection: Connection, what: str, error: BaseException) -> None:
        """The application has raised; `error` is handled just now."""
        if self._is_child:
            forks.end(error)
        if not answer.released and connection.broken:
            log.info("%s: the caller went away: %s", what, error)
            return
        if isinstance(error, ShortAnswer):
            log.error("%s: %s", what, error)
        else:
            log.error("%s: the application failed", what, exc_info=error)
        if not answer.begun:
            with contextlib.suppress(OSError):
                answer.fail()

    def _environ(self, connection: Connection, request: Request) -> Environ:
        if self._alone:
            environ = environs.build_alone(request, self._base, connection.peer, self.address)
        else:
            environ = environs.build(request, self._base)
        environ["wsgi.input"] = connection.body()
        return environ


def _path(uri: str) -> str:
    """For the log: without the query, which may hold secrets, and not without end."""
    return texts.clean(uri.partition("?")[0], _LONGEST_PATH)


def _same(given: str | None, key: str) -> bool:
    """Whether the right key was given; how long that takes tells nothing of it."""
    return given is not None and given.isascii() and hmac.compare_digest(given, key)


class Reserve:
    """Descriptors that are open for nothing, so that there are some when there are none. One thread at a time."""

    def __init__(self, size: int) -> None:
        self._size = size
        self._held: list[int] = []
        self.fill()

    @property
    def left(self) -> int:
        return len(self._held)

    def spend(self, limit: float = float("inf")) -> bool:
        """Give one away whose number is below the limit; False when none is left."""
        for place in range(len(self._held) - 1, -1, -1):
            if self._held[place] < limit:
                os.close(self._held.pop(place))
                return True
        return False

    def fill(self) -> bool:
        """Open as many as may be. Whether the reserve is full, and as many descriptors are left besides."""
        beyond: list[int] = []
        try:
            while len(self._held) < self._size:
                self._held.append(os.open("/dev/null", os.O_RDONLY | os.O_CLOEXEC))
            while len(beyond) < self._size:
                beyond.append(os.open("/dev/null", os.O_RDONLY | os.O_CLOEXEC))
        except OSError:
            return False
        finally:
            for descriptor in beyond:
                os.close(descriptor)
        return True

    def close(self) -> None:
        while self.spend():
            pass


def _descriptor_limit() -> float:
    """A new descriptor gets a number below it (getrlimit(2))."""
    limit = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    return float("inf") if limit == resource.RLIM_INFINITY else limit


def _most_unknown() -> int:
    """Unknown callers of one listening socket: fewer where there are few descriptors."""
    return int(max(4, min(MOST_UNKNOWN, _descriptor_limit() // 8)))


def _close_accepted(names: list[object]) -> None:
    """In a forked child: connections that another thread had just accepted at these addresses, and told nobody of."""
    timeout = socket.getdefaulttimeout()
    socket.setdefaulttimeout(None)  # with one, others' sockets would be made non-blocking by the look at them
    for name in os.listdir("/proc/self/fd"):
        with contextlib.suppress(OSError, ValueError):
            found = _Socket(fileno=int(name))
            if any(_is_at(found.getsockname(), listener) for listener in names):
                found.close()
            else:
                found.detach()
    socket.setdefaulttimeout(timeout)


def _is_at(name: object, listener: object) -> bool:
    """Whether a socket of this name may have been accepted by a listener of that name."""
    if isinstance(name, tuple) and isinstance(listener, tuple) and listener[0] in ("0.0.0.0", "::"):
        return bool(name[1] == listener[1])
    return name == listener
