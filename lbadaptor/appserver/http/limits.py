"""The connections of a gateway: whose caller is known, which have a time limit, how many there may be. Pure.

A caller is *unknown* until it has sent a complete head with the right key. Strangers are such for ever: so there is
a bound on how many unknown ones each listening socket has, and on the time that they have for that head. A caller
that is known may be idle for as long as it likes: an AppServer closes no idle connection of an adaptor's before it
leaves. All limits are equally long, so that the order in which they were set is the order in which they end.

Only the leader may call what is here, but for `limit`, `lift` and `remove`, which any thread may.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from threading import Lock

from lbadaptor.appserver.http.connection import Connection

LIMIT = 10.0
"""Seconds for a head, from its first byte on (or, of an unknown caller, from the connection on) to its last; and for
the caller to hang up, or to go on with the rest of its body, when it has its answer."""
MOST_UNKNOWN = 128
"""Unknown callers of one listening socket; the one that came first makes room for another."""
MOST_UNFINISHED = 8 << 20
"""Bytes of all heads together of which not all has come."""


class Callers:
    """`clock`: monotonic seconds. `most_unknown`: of one listening socket, which `listener` names here."""

    def __init__(self, clock: Callable[[], float], most_unknown: int = MOST_UNKNOWN) -> None:
        self.by_descriptor: dict[int, Connection] = {}
        """all connections"""
        self.limited: dict[Connection, float] = {}
        """those whose time is limited, and when it is over; whose time is over first stands first"""
        self._unknown: dict[Connection, int] = {}
        """their listening sockets; who came first stands first"""
        self._unfinished: dict[Connection, int] = {}
        """bytes of heads of which not all has come"""
        self._clock = clock
        self._most_unknown = most_unknown
        self._lock = Lock()

    def add(self, connection: Connection, listener: int) -> Connection | None:
        """Take in a new caller. Who has to make room for it, unless that one shows its key when what it has sent is
        read; None: there is room."""
        self.by_descriptor[connection.socket.fileno()] = connection
        mine = [other for other, its in self._unknown.items() if its == listener]
        self._unknown[connection] = listener
        self.limit(connection)
        return mine[0] if len(mine) >= self._most_unknown else None

    def remove(self, connection: Connection) -> None:
        """It is about to be closed."""
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
        """The unknown one that came first, of those whose descriptor's number is below the limit."""
        return next((one for one in self._unknown if one.socket.fileno() < limit), None)

    def idle(self) -> Iterator[Connection]:
        """Known ones of which nothing is expected now."""
        return (
            connection
            for connection in list(self.by_descriptor.values())
            if connection.request is None and connection not in self.limited and connection not in self._unknown
        )

    def began(self, connection: Connection) -> bool:
        """Some of a head has come, not all. False: it must not come, for those of all together are too long."""
        self._unfinished[connection] = connection.unfinished
        if connection not in self.limited:
            self.limit(connection)
        return sum(self._unfinished.values()) <= MOST_UNFINISHED

    def unfinished_stranger(self, besides: Connection) -> Connection | None:
        """The unknown one that has begun its head first; None where no other has begun one."""
        return next((one for one in self._unfinished if one in self._unknown and one is not besides), None)

    def finished(self, connection: Connection) -> None:
        """A head is whole, or its rest does not matter any more; a stranger's time goes on."""
        self._unfinished.pop(connection, None)
        if connection not in self._unknown:
            self.lift(connection)

    def goes_on(self, connection: Connection) -> None:
        """It has its answer, and sends what nobody will read; whoever has shown a key may do that."""
        if connection not in self._unknown:
            self.limit(connection)

    def limit(self, connection: Connection) -> bool:
        """From now on its time is limited. Whether no other's is, so that whoever polls must be told of it."""
        with self._lock:
            self.limited.pop(connection, None)
            self.limited[connection] = self._clock() + LIMIT
            return len(self.limited) == 1

    def lift(self, connection: Connection) -> None:
        """Its time is not limited any more."""
        with self._lock:
            self.limited.pop(connection, None)

    def next_end(self) -> float | None:
        """When the next one's time is over."""
        with self._lock:
            return next(iter(self.limited.values()), None)

    def ended(self) -> list[Connection]:
        """Those whose time is over."""
        now = self._clock()
        with self._lock:
            found = []
            for connection, end in self.limited.items():
                if end > now:
                    break
                found.append(connection)
            return found

    def abandon(self) -> list[Connection]:
        """In a forked child: all there are, to be closed. The lock may be held by a thread that is not there."""
        self._lock = Lock()
        return list(self.by_descriptor.values())
