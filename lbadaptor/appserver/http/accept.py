"""New connections: they are accepted even when descriptors run out.

The application uses descriptors, too. A caller that comes when there are none is still let in: it may be the probe,
or a visitor whose session is here. Its connection gets the descriptor of something else: of the reserve, else of the
eldest unknown caller, else of an idle caller. The idle caller finds an answer that says BUSY, as at the end of the
process (`Dispatcher.say_goodbye`).
"""

from __future__ import annotations

import contextlib
import errno
import os
import socket
import struct
from collections.abc import Iterable
from time import monotonic

from lbadaptor.appserver.http.connection import Connection
from lbadaptor.appserver.http.dispatch import Dispatcher
from lbadaptor.appserver.http.limits import Callers
from lbadaptor.appserver.http.poller import Poller
from lbadaptor.appserver.http.reserve import Reserve, descriptor_limit
from lbadaptor.contract.headers import Refusal
from lbadaptor.http1.states import SERVED
from lbadaptor.log import logs, texts

log = logs.logger("lbadaptor.appserver")

CALLER_TIMEOUT = 300
"""Seconds without a byte moved within a request's body or an answer, after which the caller is given up."""
ACCEPT_PAUSE = 1.0
"""Seconds between two attempts to open descriptors again. If even the reserve is used up, no connection is accepted
for as long."""
RESERVE = 8
"""Descriptors kept for a shortage."""
_BATCH = 64
"""Connections that are accepted before others are served."""

_Socket = socket.socket  # applications replace such names (to use a proxy, say)
_NO_DESCRIPTOR = (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM)
_TIMEVAL = struct.pack("@ll", CALLER_TIMEOUT, 0)
_HEAD = 65536
"""Bytes for an answer's head, beside `answer_memory`."""
_LARGEST = (1 << 31) - 1
"""What setsockopt takes; the kernel itself takes no more than net.core.wmem_max (socket(7))."""


class Acceptor:
    """Accepts connections from the listening sockets. Only the thread that polls may use it."""

    def __init__(
        self,
        listeners: Iterable[socket.socket],
        poller: Poller,
        callers: Callers,
        dispatcher: Dispatcher,
        answer_memory: int,
    ) -> None:
        """`answer_memory`: bytes of an answer that the kernel is to take at once, even if the caller reads slowly."""
        self.listeners = {listener.fileno(): listener for listener in listeners}
        """by their descriptors"""
        self.reserve = Reserve(RESERVE)
        self.check_at: float | None = None
        """descriptors ran out; when to look whether there are some again"""
        self._accept_at: float | None = None
        """no connection is accepted until then"""
        self._poller = poller
        self._callers = callers
        self._dispatcher = dispatcher
        self._send_buffer = min(answer_memory + _HEAD, _LARGEST)

    @property
    def paused(self) -> bool:
        """No connection is accepted, for a while."""
        return self._accept_at is not None

    def accept(self, listener: socket.socket) -> None:
        """Accept what has come, or as much as there are descriptors for. Raises OSError."""
        if self.paused:
            return
        for _ in range(_BATCH):
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
                self._add(descriptor, peer, listener)

    def check(self) -> None:
        """Fill the reserve, and accept again after a pause. If more can be opened, the shortage is over."""
        if self.check_at is None or monotonic() < self.check_at:
            return
        plenty = self.reserve.fill()
        if self._accept_at is not None and (plenty or monotonic() >= self._accept_at):
            for listener in self.listeners.values():
                with contextlib.suppress(FileExistsError):
                    self._poller.add(listener)
            self._accept_at = None  # last: if there is no memory to add one, this is tried again
        if plenty:
            self.check_at = None
            log.info("there are descriptors again: connections are taken as ever")
        else:
            self.check_at = monotonic() + ACCEPT_PAUSE

    def _add(self, descriptor: int, peer: object, listener: socket.socket) -> None:
        try:
            sock = _Socket(listener.family, listener.type, listener.proto, fileno=descriptor)
        except BaseException:  # MemoryError
            os.close(descriptor)
            raise
        connection = Connection(sock, peer)
        try:
            sock.setblocking(True)
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, _TIMEVAL)
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, _TIMEVAL)
            # In the fast lane, Apache reads an answer as slowly as the visitor does. The kernel holds it meanwhile.
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, self._send_buffer)
            self._poller.add(sock)
            excess = self._callers.add(connection, listener.fileno())
        except BaseException:
            self._dispatcher.give_up(connection)
        else:
            if excess is not None:
                self._dismiss(excess)

    def _dismiss(self, connection: Connection) -> None:
        """Hang up on an unknown caller, unless what it has sent by now shows its key."""
        self._dispatcher.readable(connection)
        if self._callers.is_unknown(connection) and connection.state not in SERVED:
            self._poller.close(connection)

    def _make_room(self, listener: socket.socket, error: OSError) -> bool:
        """Whether there is a descriptor again, for one caller."""
        if all(descriptor != listener.fileno() for descriptor, _ in self._poller.poll(0)):
            return False  # no caller waits: accept(2) takes a descriptor before it looks for one
        if self.check_at is None:
            log.error(
                "cannot take connections (%s), except with %s in reserve; raise the limit on descriptors",
                texts.what(error),
                texts.count(self.reserve.left, "descriptor"),
            )
            self.check_at = monotonic() + ACCEPT_PAUSE
        # The application may have set a limit below numbers that are in use: to close those would make no room.
        limit = descriptor_limit()
        if self.reserve.spend(limit):
            return True
        if (connection := self._callers.eldest_unknown(limit)) is not None:
            self._dismiss(connection)
            return True
        for connection in self._callers.idle():
            if connection.socket.fileno() < limit:
                self._dispatcher.say_goodbye(connection, Refusal.BUSY)
                self._poller.close(connection)
                return True
        for listening in self.listeners.values():
            self._poller.remove(listening)
        self._accept_at = monotonic() + ACCEPT_PAUSE
        return False
