"""Connections to AppServers: opening them, and keeping the idle ones. The adaptor's only door to the network.

Every life of an AppServer has a pool of its own. An idle connection that is readable was hung up on (or worse) and
is thrown away. An AppServer never closes an idle connection before it leaves, so there is no age limit.
"""

from __future__ import annotations

import errno
import select
import socket
import struct

from lbadaptor.contract.address import Address
from lbadaptor.contract.errors import OurOwnFault
from lbadaptor.log import texts

_SHORTAGE = frozenset(
    (errno.EMFILE, errno.ENFILE, errno.EADDRNOTAVAIL, errno.ENOBUFS, errno.ENOMEM, errno.EACCES, errno.EPERM)
)
_NO_SUCH_SOCKET = frozenset((errno.ENOENT, errno.ENOTDIR, errno.EACCES, errno.EPERM))
"""It is not there, or not for this process."""
HALF_OPEN = 0.05
"""Seconds for a reset to come back from this very machine."""
_TIMEVAL = struct.Struct("@ll")


class ConnectTimeout(OSError):
    """The AppServer did not take the connection in time."""


class Connection(socket.socket):
    """A socket, taken over, that also tells whether there is something to read. One thread at a time may use it."""

    def __init__(self, sock: socket.socket, answer_timeout: float = 60.0) -> None:
        super().__init__(sock.family, sock.type, sock.proto, sock.detach())
        self.answer_timeout = answer_timeout
        """seconds without a byte moved after which the AppServer is silent"""
        self._poll = select.poll()
        self._poll.register(self, select.POLLIN)

    def ready(self, seconds: float) -> bool:
        """Whether there is something to read, its end too, at once or within so many seconds."""
        return bool(self._poll.poll(seconds * 1000))

    def half_open(self) -> bool:
        """Whether a peer that sends no more still has the connection open. Blocks for `HALF_OPEN` seconds at most.

        A process that is gone has closed it altogether: by a Unix socket one sees that at once; by TCP only what
        comes back to what is sent tells it, a reset. So the connection is of no more use afterwards.
        """
        poll = select.poll()
        poll.register(self, 0)  # a hang-up and an error are always told
        if poll.poll(0):
            return False
        if self.family == socket.AF_UNIX:
            return True
        try:
            self.send(b"\r", socket.MSG_DONTWAIT)
        except BlockingIOError:
            pass
        except OSError:
            return False
        return not poll.poll(HALF_OPEN * 1000)


def connect(address: Address, unix_socket: str, connect_timeout: float, answer_timeout: float) -> Connection:
    """A blocking socket whose receive and send calls give up after `answer_timeout` seconds (socket(7)).

    By the Unix socket, which costs both sides less than TCP; by the address where there is none, or none that this
    process may use.

    Blocks for `connect_timeout` seconds at most. Raises ConnectTimeout, OSError when nobody listens, and
    OurOwnFault when it is this side that is short of something.
    """
    try:
        connection = _by_unix_socket(unix_socket, connect_timeout) or socket.create_connection(
            address, connect_timeout
        )
        connection.settimeout(None)
        # Timeouts in the kernel: Python's own cost a poll before every call.
        limit = _timeval(answer_timeout)
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, limit)
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, limit)
        if connection.family != socket.AF_UNIX:
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    except (BlockingIOError, TimeoutError):
        raise ConnectTimeout(f"{address}: no connection within {connect_timeout:g} s") from None
    except OSError as error:
        if error.errno in _SHORTAGE:
            raise OurOwnFault(f"connecting to {address}: {texts.what(error)}") from None
        raise
    return Connection(connection, answer_timeout)


def _by_unix_socket(path: str, timeout: float) -> socket.socket | None:
    """A connection; None where there is no such socket. Raises BlockingIOError when it takes none in time.

    ConnectionRefusedError is the last word: whoever listened there is gone, and its port may be anybody's.
    """
    if not path:
        return None
    connection = socket.socket(socket.AF_UNIX)
    try:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, _timeval(timeout))  # connect waits as long, too
        connection.connect(path)
    except OSError as error:
        connection.close()
        if error.errno in _NO_SUCH_SOCKET:
            return None
        raise
    return connection


def _timeval(seconds: float) -> bytes:
    """As the kernel wants it, in microseconds; one at least, for 0 would be for ever."""
    return _TIMEVAL.pack(*divmod(max(1, round(seconds * 1_000_000)), 1_000_000))


class Pool:
    """Idle connections to one AppServer, `keep` at most. Any thread may use it: list operations are atomic."""

    def __init__(self, keep: int) -> None:
        self._keep = keep
        self._idle: list[Connection] = []

    def take(self) -> Connection | None:
        """An idle connection, the last one used; None when there is none."""
        idle = self._idle
        while idle:
            try:
                connection = idle.pop()
            except IndexError:
                break
            try:
                useless = connection.ready(0)  # its end, or bytes that nobody asked for
            except BaseException:
                connection.close()
                raise
            if not useless:
                return connection
            connection.close()
        return None

    def give(self, connection: Connection) -> None:
        """Take over a connection on which nothing is outstanding."""
        self._idle.append(connection)
        self._shed()

    def close(self) -> None:
        """Close the idle connections, and keep none from now on: the AppServer has left."""
        self._keep = 0
        self._shed()

    def _shed(self) -> None:
        while len(self._idle) > self._keep:
            try:
                self._idle.pop(0).close()
            except IndexError:
                break
