"""Opens connections to AppServers, and keeps the idle ones. Nothing else in the adaptor opens a connection.

Each AppServer has a pool of its own, and so has each generation in a slot. An idle connection that is readable was
closed by the AppServer, or carries bytes that no request asked for; it is discarded. An AppServer never closes an
idle connection before it leaves, so there is no age limit.
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
"""The socket does not exist, or this process may not use it."""
RESET_SECONDS = 0.05
"""The time a reset needs to come back on the same machine."""
_TIMEVAL = struct.Struct("@ll")


class ConnectTimeout(OSError):
    """The AppServer did not accept the connection in time."""


class Connection(socket.socket):
    """A socket to an AppServer, made of another socket object, which it detaches. One thread at a time may use it."""

    def __init__(self, sock: socket.socket, answer_timeout: float = 60.0) -> None:
        super().__init__(sock.family, sock.type, sock.proto, sock.detach())
        self.answer_timeout = answer_timeout
        """seconds after which the AppServer is silent, if no byte moves either way"""
        self._poll = select.poll()
        self._poll.register(self, select.POLLIN)

    def ready(self, seconds: float) -> bool:
        """Whether there is something to read, or the end of the stream, at once or within so many seconds."""
        return bool(self._poll.poll(seconds * 1000))

    def half_open(self) -> bool:
        """Whether an AppServer that has ended its side still has the connection open. Blocks for `RESET_SECONDS`.

        A process that is gone has closed both sides. A Unix socket shows that at once. With TCP only a reset shows
        it, which comes back when something is sent. So the connection cannot be used afterwards.
        """
        poll = select.poll()
        poll.register(self, 0)  # poll always reports POLLHUP and POLLERR
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
        return not poll.poll(RESET_SECONDS * 1000)


def connect(address: Address, unix_socket: str, connect_timeout: float, answer_timeout: float) -> Connection:
    """A blocking socket whose receive and send calls give up after `answer_timeout` seconds (socket(7)).

    Connects to the Unix socket, which costs both sides less than TCP. Connects to the address if there is no Unix
    socket, or none that this process may use.

    Blocks for `connect_timeout` seconds at most. Raises ConnectTimeout; OSError if no process listens; OurOwnFault if
    this process is short of descriptors, ports or memory.
    """
    try:
        connection = _by_unix_socket(unix_socket, connect_timeout) or socket.create_connection(
            address, connect_timeout
        )
        connection.settimeout(None)
        # Timeouts in the kernel: Python's own timeouts cost a poll before each call.
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
    """A connection; None if there is no such socket. Raises BlockingIOError if it is not accepted in time.

    After ConnectionRefusedError the port must not be tried: the AppServer is gone, and any process may have its port.
    """
    if not path:
        return None
    connection = socket.socket(socket.AF_UNIX)
    try:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, _timeval(timeout))  # it holds for connect too
        connection.connect(path)
    except OSError as error:
        connection.close()
        if error.errno in _NO_SUCH_SOCKET:
            return None
        raise
    return connection


def _timeval(seconds: float) -> bytes:
    """A struct timeval of at least one microsecond: 0 would mean no timeout."""
    return _TIMEVAL.pack(*divmod(max(1, round(seconds * 1_000_000)), 1_000_000))


class Pool:
    """Idle connections to one AppServer, `keep` at most. Any thread may use it: list operations are atomic."""

    def __init__(self, keep: int) -> None:
        self._keep = keep
        self._idle: list[Connection] = []

    def take(self) -> Connection | None:
        """The idle connection that was used last; None if there is none."""
        idle = self._idle
        while idle:
            try:
                connection = idle.pop()
            except IndexError:
                break
            try:
                useless = connection.ready(0)  # it was closed, or there are bytes that no request asked for
            except BaseException:
                connection.close()
                raise
            if not useless:
                return connection
            connection.close()
        return None

    def give(self, connection: Connection) -> None:
        """Keep a connection on which no request and no answer is unfinished."""
        self._idle.append(connection)
        self._close_surplus()

    def close(self) -> None:
        """Close the idle connections, and keep none from now on."""
        self._keep = 0
        self._close_surplus()

    def _close_surplus(self) -> None:
        while len(self._idle) > self._keep:
            try:
                self._idle.pop(0).close()
            except IndexError:
                break
