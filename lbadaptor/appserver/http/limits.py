"""The connections of a gateway: which callers are known, which have a time limit, how many there may be. Pure.

A caller is *unknown* until it has sent a complete head with the right key. The number of unknown callers of each
listening socket is bounded, and so is the time that they have for that head. A known caller may be idle as long as it
likes: an AppServer does not close an adaptor's idle connection before it ends. All time limits are equally long, so
they end in the order in which they were set.

Only the thread that polls may call what is here, except `goes_on`, `limit`, `lift` and `remove`, which any thread may
call.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from threading import Lock

from lbadaptor.appserver.http.connection import Connection
from lbadaptor.http1.states import IDLE

TIME_LIMIT = 10.0
"""Seconds for a head, from its first byte to its last. When an answer was sent: seconds for the caller to hang up, or
to go on with the rest of its body. An unknown caller has them once, from the connection on, for all that it does."""
MAX_UNKNOWN = 128
"""Unknown callers of one listening socket; the one that came first is closed when there are more."""
MAX_UNFINISHED = 8 << 20
"""Bytes of all unfinished heads together."""


class Callers:
    """`clock`: monotonic seconds. `most`: unknown callers of one listening socket."""

    def __init__(self, clock: Callable[[], float], most: int = MAX_UNKNOWN) -> None:
        self.by_descriptor: dict[int, Connection] = {}
        """all connections, by their sockets' descriptors"""
        self.limited: dict[Connection, float] = {}
        """those that have a time limit, and when it ends; the next one to end is first"""
        self._unknown: dict[Connection, int] = {}
        """unknown callers, and the descriptors of their listening sockets; the eldest is first"""
        self._unfinished: dict[Connection, int] = {}
        """those that have sent the beginning of a head, and its length in bytes"""
        self._clock = clock
        self._max_unknown = most
        self._lock = Lock()

    def add(self, connection: Connection, listener: int) -> Connection | None:
        """A new caller. The one to be closed for it, unless what it has sent by now shows its key; None: no need."""
        self.by_descriptor[connection.socket.fileno()] = connection
        mine = [other for other, its in self._unknown.items() if its == listener]
        self._unknown[connection] = listener
        self.limit(connection)
        return mine[0] if len(mine) >= self._max_unknown else None

    def remove(self, connection: Connection) -> None:
        """It is going to be closed."""
        self.by_descriptor.pop(connection.socket.fileno(), None)
        self._unknown.pop(connection, None)
        self._unfinished.pop(connection, None)
        self.lift(connection)

    def showed_key(self, connection: Connection) -> None:
        """A complete head with the right key is here."""
        self._unknown.pop(connection, None)
        self.finished(connection)

    def is_unknown(self, connection: Connection) -> bool:
        return connection in self._unknown

    def eldest_unknown(self, limit: float = float("inf")) -> Connection | None:
        """The unknown caller that came first, of those whose descriptor's number is below the limit."""
        return next((one for one in self._unknown if one.socket.fileno() < limit), None)

    def idle(self) -> Iterator[Connection]:
        """Known callers of which nothing is expected now."""
        return (
            connection
            for connection in list(self.by_descriptor.values())
            if connection.state is IDLE and connection not in self.limited and connection not in self._unknown
        )

    def began(self, connection: Connection) -> bool:
        """The beginning of a head was read. False: all unfinished heads together are too long."""
        self._unfinished[connection] = connection.unfinished
        if connection not in self.limited:
            self.limit(connection)
        return sum(self._unfinished.values()) <= MAX_UNFINISHED

    def unfinished_unknown(self, besides: Connection) -> Connection | None:
        """The unknown caller that has begun its head first; None: no other has begun one."""
        return next((one for one in self._unfinished if one in self._unknown and one is not besides), None)

    def finished(self, connection: Connection) -> None:
        """A head is complete, or its rest does not matter any more. An unknown caller's time limit stays."""
        self._unfinished.pop(connection, None)
        if connection not in self._unknown:
            self.lift(connection)

    def goes_on(self, connection: Connection) -> bool:
        """It has its answer, and what it may go on sending is discarded: a known caller gets a new time limit.

        An unknown caller keeps the one that it has. Returns what `limit` returns.
        """
        return connection not in self._unknown and self.limit(connection)

    def limit(self, connection: Connection) -> bool:
        """Set a time limit. Whether it is the only one, so that the thread that polls has to be woken."""
        with self._lock:
            self.limited.pop(connection, None)
            self.limited[connection] = self._clock() + TIME_LIMIT
            return len(self.limited) == 1

    def lift(self, connection: Connection) -> None:
        """It has no time limit any more."""
        with self._lock:
            self.limited.pop(connection, None)

    def next_end(self) -> float | None:
        """When the next time limit ends; None: there is none."""
        with self._lock:
            return next(iter(self.limited.values()), None)

    def ended(self) -> list[Connection]:
        """Those whose time limit has ended."""
        now = self._clock()
        with self._lock:
            found = []
            for connection, end in self.limited.items():
                if end > now:
                    break
                found.append(connection)
            return found

    def abandon(self) -> list[Connection]:
        """In a forked child: all connections, to be closed. Another thread may hold the lock, and is not here."""
        self._lock = Lock()
        return list(self.by_descriptor.values())


def max_unknown(descriptors: float) -> int:
    """Unknown callers of one listening socket, of a process that may have so many descriptors."""
    return int(max(4, min(MAX_UNKNOWN, descriptors // 8)))
