"""The poll that waits for all connections at once (epoll(7)), and the ways to leave it.

While a request is served, its connection stays in the poll: to take it out and put it in again would cost two system
calls a request. Only when something comes on it meanwhile, and a thread polls, it is taken out (`pause`) until the
answer was sent (`resume`).

`pause` is called by the polling thread, `resume` by the thread that has sent the answer. Neither may overlook the
other, or the connection would stay outside the poll and nobody would read its next request. So each writes first and
then reads what the other writes:

    polling thread (`pause`)                     serving thread (`Dispatcher.answered`)
    1. paused = True                             1. state = the answer was sent
    2. read the state; take the connection       2. read paused; if it is True, put the
       out if it is still served                    connection in again (`resume`)

Whatever the order of these four steps, at least one of the threads sees what the other wrote. The lock makes what
follows one step.
"""

from __future__ import annotations

import contextlib
import os
import select
import socket
from threading import Lock

from lbadaptor.appserver.http.connection import Connection
from lbadaptor.appserver.http.limits import Callers
from lbadaptor.http1.states import ABANDONED, CLOSE, CLOSED, SERVED

_Epoll = select.epoll  # applications replace such names, gevent for one


class Poller:
    """Waits for connections and listening sockets. One thread at a time polls; any thread may do the rest."""

    def __init__(self, callers: Callers) -> None:
        self.lock = Lock()
        self._callers = callers
        self._epoll = _Epoll()
        self.wake_descriptor = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self._epoll.register(self.wake_descriptor, select.EPOLLIN)
        self.poll = self._epoll.poll
        """wait for so many seconds at most (None: without limit); the descriptors that are readable"""

    def add(self, sock: socket.socket) -> None:
        """Raises OSError."""
        self._epoll.register(sock, select.EPOLLIN)

    def remove(self, sock: socket.socket) -> None:
        """Raises OSError."""
        self._epoll.unregister(sock)

    def wake(self) -> None:
        """The thread that polls returns at once."""
        os.eventfd_write(self.wake_descriptor, 1)

    def woken(self) -> None:
        """The descriptor of `wake` is readable: read it, so that the next poll waits."""
        with contextlib.suppress(BlockingIOError):
            os.eventfd_read(self.wake_descriptor)

    def intact(self) -> bool:
        """Whether our descriptors are still open: an application may close them."""
        try:
            self._epoll.modify(self.wake_descriptor, select.EPOLLIN)
        except (OSError, ValueError):
            return False
        return True

    def pause(self, connection: Connection) -> None:
        """Something came on a connection while its request is served: poll it no more until it is answered."""
        with self.lock:
            connection.paused = True  # first; then the state is read: see above
            if connection.state in SERVED:
                self._epoll.unregister(connection.socket)
            else:
                connection.paused = False

    def resume(self, connection: Connection) -> None:
        """The request was answered. If the next one is served already, the thread that serves it resumes."""
        with self.lock:
            if connection.paused and connection.state not in SERVED and connection.state is not CLOSED:
                connection.paused = False
                self._epoll.register(connection.socket, select.EPOLLIN)

    def close(self, connection: Connection) -> None:
        """Hang up. Any thread may do it, and more than one: the second one does nothing. Never raises."""
        with self.lock:
            if connection.state is CLOSED or connection.state is ABANDONED:
                self._callers.lift(connection)  # its time limit would end again and again
                return
            connection.state = CLOSE[connection.state]
            self._callers.remove(connection)
            if not connection.paused:
                with contextlib.suppress(OSError, ValueError):
                    # Closing it is not enough: a child that the application has forked may hold a copy.
                    self._epoll.unregister(connection.socket)
        with contextlib.suppress(OSError):
            connection.socket.shutdown(socket.SHUT_RDWR)  # the caller sees it even where a forked child holds a copy
        with contextlib.suppress(OSError):
            connection.socket.close()

    def end(self) -> None:
        """No thread uses it any more."""
        for close in (self._epoll.close, lambda: os.close(self.wake_descriptor)):
            with contextlib.suppress(OSError):
                close()

    def abandon(self) -> None:
        """In a forked child: close our copies. Another thread may hold the lock, and is not here."""
        self.lock = Lock()
        self.end()
