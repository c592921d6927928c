"""The gateway: HTTP from the adaptors in, WSGI calls to the application.

`Gateway` makes the parts and holds what concerns all of them: start, stop, one turn of the loop, a forked child.

    schedule     which thread polls, which one serves; calls `_poll_once` and `Serving.serve`
    accept       new connections, and what to do when descriptors run out
    dispatch     what comes on a connection: probe, refusal, or a request that waits in `admission`
    serving      one request through the application
    poller       the poll (epoll), connections in and out of it
    limits       which callers are known, which have a time limit
"""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Sequence
from threading import Thread
from time import monotonic

from lbadaptor.appserver.http import forked, listening
from lbadaptor.appserver.http.accept import Acceptor
from lbadaptor.appserver.http.connection import Connection
from lbadaptor.appserver.http.dispatch import Dispatcher
from lbadaptor.appserver.http.limits import Callers, max_unknown
from lbadaptor.appserver.http.own_errors import OwnErrors
from lbadaptor.appserver.http.poller import Poller
from lbadaptor.appserver.http.reserve import descriptor_limit
from lbadaptor.appserver.http.schedule import schedule
from lbadaptor.appserver.http.serving import Application, Serving
from lbadaptor.appserver.http.status import Status
from lbadaptor.appserver.process import forks
from lbadaptor.appserver.process.messages import Assignment
from lbadaptor.appserver.sessions.persistence.keeper import Keeper
from lbadaptor.appserver.sessions.table import SessionTable
from lbadaptor.contract.headers import Refusal
from lbadaptor.http1.states import LEAVING

_BACKLOG = 1024
"""Connections that the kernel keeps until they are accepted (listen(2))."""


class Gateway:
    """Serves one application on its listening sockets, the first one of an address. `start`, then `stop`."""

    def __init__(
        self,
        listeners: Sequence[socket.socket],
        application: Application,
        assignment: Assignment,
        status: Status,
        sessions: SessionTable,
        keeper: Keeper | None = None,
    ) -> None:
        """Raises OSError."""
        self.address: tuple[str, int] = listeners[0].getsockname()[:2]
        self._listeners = listeners
        self._identities = listening.identities(listeners)
        self._status = status
        self._admission = status.admission
        self._sessions = sessions
        self._stopping = False
        errors = OwnErrors()
        self.callers = Callers(monotonic, max_unknown(descriptor_limit()))
        self.poller = Poller(self.callers)
        self.dispatcher = Dispatcher(assignment, status, sessions, self.callers, self.poller, errors, keeper)
        self.acceptor = Acceptor(listeners, self.poller, self.callers, self.dispatcher, assignment.answer_memory)
        self.serving = Serving(
            application, self.dispatcher, status, assignment.caller_key, self.address, assignment.access_log
        )
        self.schedule = schedule(
            self._admission,
            self._poll_once,
            self.serving.serve,
            self.serving.give_up,
            errors,
        )

    @property
    def threads(self) -> Sequence[Thread]:
        return self.schedule.threads

    def start(self) -> None:
        """Listen and serve. Returns at once.

        Raises OSError when another process listens on the address, RuntimeError when there can be no more threads.
        """
        for listener in self._listeners:
            listener.listen(_BACKLOG)
            listener.setblocking(False)
            self.poller.add(listener)
        forks.guard(self._abandon)
        self.schedule.start()

    def intact(self) -> bool:
        """Whether our descriptors are still open: an application may close all that it finds."""
        if self._identities != listening.identities(self._listeners):
            return False
        return self.poller.intact() and self.schedule.intact()

    def stop(self, timeout: float) -> None:
        """End the threads and close all connections. Blocks for `timeout` seconds at most.

        Requests that are still at work then are abandoned. Those that wait for a thread, or that were not read, are
        refused.
        """
        self._stopping = True
        self.schedule.stop()
        self.poller.wake()
        deadline = monotonic() + timeout
        for thread in self.threads:
            if thread.is_alive():
                thread.join(max(0.0, deadline - monotonic()))
        forks.release(self._abandon)
        self.acceptor.reserve.close()
        abandoned = any(thread.is_alive() for thread in self.threads)
        self._close_connections(abandoned)
        self.schedule.close()
        if not abandoned:
            self.poller.end()

    def _poll_once(self) -> None:
        """One turn of the loop: wait for what comes, and handle it. One thread at a time. Raises OSError."""
        callers, acceptor = self.callers, self.acceptor
        timed = callers.limited or acceptor.check_at is not None
        for descriptor, _ in self.poller.poll(self._until_due() if timed else None):
            if connection := callers.by_descriptor.get(descriptor):
                self.dispatcher.readable(connection)
            elif listener := acceptor.listeners.get(descriptor):
                acceptor.accept(listener)
            elif descriptor == self.poller.wake_descriptor and not self._stopping:
                self.poller.woken()
        if timed:
            for connection in callers.ended():
                self.poller.close(connection)
            acceptor.check()

    def _until_due(self) -> float | None:
        """Seconds until something has to be done though nothing comes. None: nothing has to, because another thread
        has just closed the last connection that had a time limit."""
        times = [time for time in (self.callers.next_end(), self.acceptor.check_at) if time is not None]
        return max(0.0, min(times) - monotonic()) if times else None

    def _close_connections(self, abandoned: bool) -> None:
        """Close all connections so that no caller takes its request for one that was begun and lost.

        A caller whose request was not begun gets a refusal, and so does one that has sent nothing yet: see
        `Dispatcher.say_goodbye`. `abandoned`: threads are still at work.
        """
        connections = self.callers.by_descriptor
        for listener in self._listeners:
            with contextlib.suppress(OSError):  # BlockingIOError: all are accepted
                while True:
                    sock, peer = listener.accept()
                    connections[sock.fileno()] = Connection(sock, peer)
            listener.close()
        waiting = [connection for connection, _, _ in self._admission.dismiss()]
        for connection in list(connections.values()):
            begun = connection.request is not None and connection not in waiting
            if not begun and connection.state is not LEAVING:
                self.dispatcher.say_goodbye(connection, Refusal.DYING)
            if begun and abandoned:
                with contextlib.suppress(OSError):
                    connection.socket.shutdown(socket.SHUT_RDWR)  # not closed: a thread may be using it
            else:
                connection.socket.close()

    def _abandon(self) -> None:
        """In a child that the application has just forked: close our copies of all descriptors.

        Nothing is sent or shut down: the parent goes on serving. No other thread is here, and a lock that one held
        stays locked.
        """
        for part in (self._admission, self._sessions, self.schedule, self._status):
            part.abandon()
        for connection in self.callers.abandon():
            connection.abandon()
        names: list[object] = []
        for listener in self._listeners:
            with contextlib.suppress(OSError):
                names.append(listener.getsockname())
                listener.close()
        self.poller.abandon()
        with contextlib.suppress(OSError):
            self.acceptor.reserve.close()
        forked.close_accepted(names)
