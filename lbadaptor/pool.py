"""Connections to AppServers: opening them, and keeping the idle ones. The adaptor's only door to the network.

Pools are keyed by slot *and* generation. An idle connection that is readable was hung up on (or worse)
and is thrown away. An AppServer never closes an idle connection before it leaves, so there is no age limit.
"""

from __future__ import annotations

import errno
import socket
import struct
from collections.abc import Iterable

from lbadaptor.address import Address, Identity
from lbadaptor.errors import OurOwnFault

_SHORTAGE = frozenset(
    (errno.EMFILE, errno.ENFILE, errno.EADDRNOTAVAIL, errno.ENOBUFS, errno.ENOMEM, errno.EACCES, errno.EPERM)
)
_TIMEVAL = struct.Struct("@ll")
_PEEK = int(socket.MSG_PEEK | socket.MSG_DONTWAIT)  # an enum's own arithmetic costs as much as the call


class ConnectTimeout(OSError):
    """The AppServer did not take the connection in time."""


def connect(address: Address, connect_timeout: float, answer_timeout: float) -> socket.socket:
    """A blocking socket whose receive and send calls give up after `answer_timeout` seconds (socket(7)).

    Blocks for `connect_timeout` seconds at most. Raises ConnectTimeout, OSError when nobody listens, and
    OurOwnFault when it is this side that is short of something.
    """
    limit = _TIMEVAL.pack(int(answer_timeout), int(answer_timeout % 1 * 1_000_000))
    try:
        connection = socket.create_connection(address, connect_timeout)
    except TimeoutError:
        raise ConnectTimeout(f"{address}: no connection within {connect_timeout:g} s") from None
    except OSError as error:
        if error.errno in _SHORTAGE:
            raise OurOwnFault(f"connecting to {address}: {error.strerror}") from None
        raise
    connection.settimeout(None)
    # Timeouts in the kernel: Python's own cost a poll before every call.
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, limit)
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, limit)
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return connection


class Pool:
    """Idle connections. Any thread may use it: it rests on list and dict operations that are atomic."""

    def __init__(self, keep: int) -> None:
        self._keep = keep
        self._idle: dict[Identity, list[socket.socket]] = {}

    def take(self, identity: Identity) -> socket.socket | None:
        """An idle connection, the last one used; None when there is none."""
        idle = self._idle.get(identity)
        while idle:
            try:
                connection = idle.pop()
            except IndexError:
                break
            if _still_idle(connection):
                return connection
            connection.close()
        return None

    def give(self, identity: Identity, connection: socket.socket) -> None:
        """Take over a connection on which nothing is outstanding."""
        idle = self._idle.get(identity)
        if idle is None or len(idle) >= self._keep:
            connection.close()
        else:
            idle.append(connection)

    def keep_only(self, identities: Iterable[Identity]) -> None:
        """Close the connections to all AppServers but these, and keep some to these from now on."""
        before = self._idle
        self._idle = {identity: before.get(identity, []) for identity in identities}
        for identity in before.keys() - self._idle.keys():
            idle = before[identity]
            while idle:
                idle.pop().close()


def _still_idle(connection: socket.socket) -> bool:
    try:
        connection.recv(1, _PEEK)
    except BlockingIOError:
        return True
    except OSError:
        return False
    return False  # its end, or bytes that nobody asked for
