"""The gateway: HTTP from the adaptors in, WSGI calls to the application.

One thread at a time leads (see `leadership`): it polls all connections, reads heads, answers probes and refusals at
once, and serves a request itself while requests are short. There is one thread more than may be at work, so somebody
always polls: a probe never waits behind the application. Idle connections cost no thread.
"""

from __future__ import annotations

import contextlib
import hmac
import logging
import os
import select
import socket
import struct
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterable, Sequence

import msgspec

from lbadaptor import headers
from lbadaptor.appserver import environ as environs
from lbadaptor.appserver.admission import Admission
from lbadaptor.appserver.affinity import Affinity, Holder
from lbadaptor.appserver.answer import Answer, FileWrapper, ShortAnswer
from lbadaptor.appserver.connection import Connection, Malformed
from lbadaptor.appserver.environ import Environ, Incomplete, Request
from lbadaptor.appserver.handover import Handover
from lbadaptor.appserver.leadership import Leadership
from lbadaptor.appserver.ledger import Ledger
from lbadaptor.appserver.sessions import Sessions, Visit
from lbadaptor.appserver.vitals import Vitals
from lbadaptor.headers import Refusal

log = logging.getLogger("lbadaptor.appserver")

Application = Callable[..., Iterable[bytes]]

CALLER_TIMEOUT = 300
"""Seconds without a byte moved within a request's body or an answer, after which the caller is given up."""
ACCEPT_PAUSE = 1.0
"""Seconds for which no connection is taken when descriptors ran out."""

_DONTWAIT = int(socket.MSG_DONTWAIT)
_TIMEVAL = struct.pack("@ll", CALLER_TIMEOUT, 0)
_WHY = {Refusal.DYING: "no visitors but those whose session is here", Refusal.BUSY: "too many requests wait"}
_REASONS = {400: "Bad Request", 403: "Forbidden", 421: "Misdirected Request", 431: "Request Header Fields Too Large"}


Task = tuple[Connection, Visit | Holder]
"""A request that waits for a thread, and who came with it."""


class Gateway:
    """Serves one application on its listening sockets, the first one of an address. `start`, then `stop`."""

    def __init__(
        self,
        listeners: Sequence[socket.socket],
        application: Application,
        handover: Handover,
        vitals: Vitals,
        ledger: Ledger,
    ) -> None:
        self._listeners = {listener.fileno(): listener for listener in listeners}
        self._application = application
        self._handover = handover
        self._vitals = vitals
        self._ledger = ledger
        ticket = handover.ticket_cookie, handover.ticket
        self._stickiness: Sessions | Affinity
        if handover.affinity:
            self._stickiness = Affinity(*ticket, ledger, time.monotonic)
        else:
            self._stickiness = Sessions(
                handover.session_cookie, *ticket, ledger, time.monotonic, time.time, vitals.cookies
            )
        self._alone = not handover.caller_key
        self._generation = str(vitals.generation)
        self.address: tuple[str, int] = listeners[0].getsockname()[:2]
        threads = vitals.admission.threads
        self._base = environs.base_environ(vitals.slot, vitals.generation, threads, FileWrapper)
        self._connections: dict[int, Connection] = {}
        self._admission: Admission[Task] = vitals.admission
        self._lock = threading.Lock()
        self._leadership = Leadership()
        self._stopping = False
        self._accept_again: float | None = None
        self._wake = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self._poll = select.epoll()
        self._threads = [
            threading.Thread(target=self._work, name=f"gateway-{number}", daemon=True)
            for number in range(threads + 1)
        ]
        self._threads.append(threading.Thread(target=self._leadership.watch, name="gateway-watch", daemon=True))

    def start(self) -> None:
        """Listen and serve. Returns at once. Raises OSError when somebody else listens on the address."""
        for listener in self._listeners.values():
            listener.listen(1024)
            listener.setblocking(False)
            self._poll.register(listener, select.EPOLLIN)
        self._poll.register(self._wake, select.EPOLLIN)
        for thread in self._threads:
            thread.start()

    def stop(self, timeout: float) -> None:
        """End the threads, and take leave of all callers.

        Requests that are still at work after `timeout` seconds are abandoned; those that wait for a thread, or that
        nobody has read, are refused.
        """
        self._stopping = True
        self._leadership.end()
        os.eventfd_write(self._wake, 1)
        deadline = time.monotonic() + timeout
        for thread in self._threads:
            if thread.is_alive():
                thread.join(max(0.0, deadline - time.monotonic()))
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
                self._farewell(connection)
            if begun and abandoned:
                with contextlib.suppress(OSError):
                    connection.socket.shutdown(socket.SHUT_RDWR)  # a thread may be using it
            else:
                connection.socket.close()

    def _farewell(self, connection: Connection) -> None:
        head = (
            f"HTTP/1.1 421 {_REASONS[421]}\r\n{headers.REFUSED}: {Refusal.DYING.value}\r\nContent-Length: 0\r\n"
            "Connection: close\r\n"
        )
        with contextlib.suppress(OSError):
            connection.socket.send(head.encode() + self._vitals.headers() + b"\r\n", socket.MSG_DONTWAIT)

    def _work(self) -> None:
        """A thread's life: lead, serve what waits when the leadership is gone, and again."""
        while self._leadership.wait():
            try:
                self._lead()
            except BaseException:
                log.exception("a thread of the gateway begins anew")
            self._leadership.give_up()

    # The leader's part. Nothing in it waits for anybody but the poll, and for requests that are short.

    def _lead(self) -> None:
        """Poll and serve, until the gateway stops or the leadership is gone, and nothing waits for a thread."""
        while self._serve_waiting() and not self._stopping:
            pause = self._accept_again
            events = self._poll.poll(None if pause is None else max(0.0, pause - time.monotonic()))
            for descriptor, _ in events:
                if connection := self._connections.get(descriptor):
                    self._readable(connection)
                elif listener := self._listeners.get(descriptor):
                    self._accept(listener)
            if pause is not None and time.monotonic() >= pause:
                self._accept_again = None
                for listener in self._listeners.values():
                    self._poll.register(listener, select.EPOLLIN)

    def _serve_waiting(self) -> bool:
        """Serve what waits for a thread, one request after the other. Whether this thread, the leader, leads on."""
        admission, leadership = self._admission, self._leadership
        task = admission.begin()
        if task is None:
            return True
        leads = True
        began = time.monotonic()
        while task is not None:
            if leads and (staff := leadership.keep(began)) is not None:
                self._serve(*task)
                leads = leadership.kept(staff)
            else:
                leads = False
                self._serve(*task)
            ended = time.monotonic()
            leadership.lasted(ended - began)
            began = ended
            task = admission.end()
        return leads

    def _accept(self, listener: socket.socket) -> None:
        if self._accept_again is not None:
            return
        for _ in range(64):
            try:
                sock, peer = listener.accept()
            except BlockingIOError:
                return
            except ConnectionError:
                continue
            except OSError as error:
                log.error("cannot take connections for %g s: %s", ACCEPT_PAUSE, error.strerror)
                for paused in self._listeners.values():
                    self._poll.unregister(paused)
                self._accept_again = time.monotonic() + ACCEPT_PAUSE
                return
            try:
                sock.setblocking(True)
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, _TIMEVAL)
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, _TIMEVAL)
                self._poll.register(sock, select.EPOLLIN)
            except OSError as error:
                log.error("a connection is given up: %s", error.strerror)
                sock.close()
            else:
                self._connections[sock.fileno()] = Connection(sock, peer)

    def _readable(self, connection: Connection) -> None:
        """Read what came, and answer or queue a request whose head is here. Never raises."""
        if connection.served:
            self._disregard(connection)
            return
        try:
            if not connection.receive(_DONTWAIT):
                self._close(connection)
            elif connection.leaving or connection.request is None:
                pass
            elif not connection.discarding:
                self._admit(connection, connection.request)
            elif connection.complete:
                self._answered(connection)
        except BlockingIOError:
            pass
        except Malformed as error:
            if connection.discarding:  # it has its answer
                self._close(connection)
            else:
                self._refuse(connection, error.status, "", str(error), close=True)
        except OSError:
            self._close(connection)
        except Exception:
            log.exception("a connection is given up")
            self._close(connection)

    def _admit(self, connection: Connection, request: Request) -> None:
        if request.probe is not None and self._is_probe(request):
            body = msgspec.json.encode(self._vitals.report())
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

    def _answered(self, connection: Connection) -> None:
        """The answer is out: make ready for the next request, or hang up."""
        if connection.keep_alive and not connection.broken:
            connection.finish()
        elif connection.complete or connection.broken or not connection.hang_up():
            self._close(connection)
            return
        if connection.disregarded:
            self._regard(connection)

    # While a request is served, its connection is left in the poll, which is cheaper than to take it out and in again
    # each time. Only if somebody polls meanwhile, and something comes, it is taken out until the answer is given.

    def _disregard(self, connection: Connection) -> None:
        with self._lock:
            connection.disregarded = True  # said first, looked at again then: `_answered` does it the other way round
            if connection.served:
                self._poll.unregister(connection.socket)
            else:
                connection.disregarded = False

    def _regard(self, connection: Connection) -> None:
        with self._lock:
            if connection.disregarded and not connection.served:  # else whoever serves its next request does it
                connection.disregarded = False
                self._poll.register(connection.socket, select.EPOLLIN)

    def _close(self, connection: Connection) -> None:
        self._connections.pop(connection.socket.fileno(), None)
        with self._lock, contextlib.suppress(OSError, ValueError):
            registered, connection.disregarded = not connection.disregarded, False
            if registered:
                self._poll.unregister(connection.socket)  # it would stay in the poll if the application forked
        with contextlib.suppress(OSError):
            connection.socket.shutdown(socket.SHUT_RDWR)  # for the caller, even when the application forked
        connection.socket.close()

    # The serving thread's part.

    def _serve(self, connection: Connection, visit: Visit | Holder) -> None:
        """One request through the application. Never raises."""
        request = connection.request
        assert request is not None
        try:
            environ = self._environ(connection, request)
            visit.tell(environ, request.lost)
            method, uri = environ["REQUEST_METHOD"], environ["REQUEST_URI"]  # the application may change its environ
            chunks, own = request.version == "1.1", self._vitals.headers
            answer = Answer(connection.send, method, connection.keep_alive, chunks, visit.answered, own)
            try:
                answer.run(self._application, environ)
            except ShortAnswer as error:
                log.error("%s %s: %s", method, uri, error)
            except BaseException as error:  # sys.exit() too: it ends a request, never an AppServer
                self._failed(answer, connection, f"{method} {uri}", error)
            if not answer.keep_alive:
                connection.keep_alive = False
            self._answered(connection)
        except Incomplete as error:
            self._refuse(connection, headers.REFUSED_STATUS, error.refusal.value, str(error))
        except BaseException:
            log.exception("a request is given up")
            self._close(connection)

    def _failed(self, answer: Answer, connection: Connection, what: str, error: BaseException) -> None:
        """The application has raised; `error` is handled just now."""
        if connection.broken:
            log.info("%s: the caller went away: %s", what, error)
            return
        with contextlib.suppress(OSError, ValueError):
            sys.stderr.write(f"{what}: the application failed\n{traceback.format_exc()}")
            sys.stderr.flush()
        if answer.begun:
            answer.keep_alive = False
        else:
            with contextlib.suppress(OSError):
                answer.fail()

    def _environ(self, connection: Connection, request: Request) -> Environ:
        if self._alone:
            environ = environs.build_alone(request, self._base, connection.peer, self.address)
        else:
            environ = environs.build(request, self._base)
        environ["wsgi.input"] = connection.body()
        return environ


def _same(given: str | None, key: str) -> bool:
    """Whether the right key was given; how long that takes tells nothing of it."""
    return given is not None and given.isascii() and hmac.compare_digest(given, key)
