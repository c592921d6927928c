"""The agent: tells the HAProxy in front of this machine what to send here (HAProxy's `agent-check`).

HAProxy connects every second or two. It gets one line at once, and the connection is closed. What a line means to
HAProxy (its configuration manual, `agent-check`; read in its source, tcpcheck.c of 2.6, and tried):

- `up` and `down` are about the server's health, a percentage is a part of its weight, and text after `#` is shown to
  people, but only along with `up` or `down`.
- `drain` and `ready` are about its administrative state, and stay until the other one comes. Both also end an
  administrator's `maint`. So neither is repeated for ever. With 0 % of its weight, a server gets no new visitors,
  either.
- Without a line, HAProxy goes on by the last one.

So where the arbiter hangs, nothing is said any more: its AppServers live, and HAProxy is to go on sending visitors to
them. If the arbiter is gone, this process is gone, too, and HAProxy does the same.
"""

from __future__ import annotations

import selectors
import socket
import threading
import time
from collections.abc import Callable, Collection

from lbadaptor.contract.address import Address, canonical
from lbadaptor.log import logs, texts
from lbadaptor.log.once import Once
from monitor.contract.messages import Availability, Word
from monitor.contract.threads import start

log = logs.logger("lbmonitor.watcher")

INSIST = 60.0
"""Seconds for which each front is told `drain` or `ready`, from its first question on since this holds. HAProxy asks
several times meanwhile, for each of its backends."""
LINGER = 2.0
"""Seconds in which HAProxy has to close a connection after its line; then it is closed here."""
MOST_LINGERING = 64
"""Connections that may wait for that at a time. The oldest is closed for one more."""
MOST_READS = 16
READ_BYTES = 4096
"""What HAProxy sends (`agent-send`) is read and forgotten, so many times so many bytes at most. A connection that is
closed with something unread is reset, and the line may be lost by that (tcp(7), RFC 1122 §4.2.2.13)."""
PAUSE = 0.1
"""Seconds before the next connection is taken, where one could not be."""
MOST_STRANGERS = 16
"""Of so many the log tells that they ask."""

_ADMINISTRATIVE = {Word.UP: "ready", Word.DRAIN: "drain"}


class Lines:
    """The lines for each front. `now` is monotonic seconds. Call it for fronts only: each is remembered."""

    def __init__(self) -> None:
        self._told: dict[str, tuple[Word, float]] = {}
        """UP or DRAIN, whichever a front was told last, and when it was told so first"""

    def line(self, front: str, availability: Availability, now: float) -> str:
        """What to tell a front, with the end of the line."""
        word, reason = availability.word, f"# {availability.reason}\n"
        if word is Word.DOWN:
            return f"{word.value} {reason}"
        told = self._told.get(front)
        if told is None or told[0] is not word:
            told = self._told[front] = word, now
        insist = f"{_ADMINISTRATIVE[word]} " if now - told[1] < INSIST else ""
        return f"{insist}up {availability.percent}% {reason}"


class Agent:
    """Listens at an address until `close`, in one thread, and nobody can hold it up.

    `front`: who may ask; if nobody is named, everybody on this machine by a loopback address. `availability` returns
    what to say; None: nothing. Raises OSError, and MemoryError where there can be no thread.
    """

    def __init__(
        self, address: Address, front: Collection[str], availability: Callable[[], Availability | None]
    ) -> None:
        self._front = frozenset(map(canonical, front))
        self._availability = availability
        self._lines = Lines()
        self._lingering: dict[socket.socket, _Lingering] = {}
        """the oldest first"""
        self._strangers: set[str] = set()
        self._closed = False
        self._selector = selectors.PollSelector()  # it needs no descriptor of its own
        self._thread = threading.Thread(target=self._run, name="agent", daemon=True)
        self._listener = socket.socket(socket.AF_INET6 if ":" in address.host else socket.AF_INET)
        try:
            self._listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            self._listener.bind(address)
            self._listener.listen()
            self._listener.setblocking(False)
            self._selector.register(self._listener, selectors.EVENT_READ)
            start(self._thread)
        except BaseException:
            self._listener.close()
            raise

    @property
    def address(self) -> Address:
        """Where it listens."""
        return Address(*self._listener.getsockname()[:2])

    def close(self) -> None:
        """Answer nobody any more. Blocks for a moment."""
        if self._closed:
            return
        self._closed = True
        self._listener.shutdown(socket.SHUT_RD)  # wakes the thread
        self._thread.join()
        for connection in (self._listener, *self._lingering):
            connection.close()

    def _run(self) -> None:
        """It goes on, whatever this process runs short of."""
        while not self._closed:
            try:
                self._turn()
            except (OSError, MemoryError):
                time.sleep(PAUSE)

    def _turn(self) -> None:
        """Serve what comes next. Raises OSError, MemoryError where no connection can be taken."""
        for key, _ in self._selector.select(LINGER if self._lingering else None):
            if key.fileobj is not self._listener:
                self._read(key.data)
            elif not self._closed:
                self._accept()
        now = time.monotonic()
        for lingering in list(self._lingering.values()):
            if now >= lingering.until:
                self._drop(lingering)

    def _accept(self) -> None:
        connection, (host, *_) = self._listener.accept()
        try:
            line = self._answer(canonical(host))
            connection.setblocking(False)
            if line:
                connection.send(line.encode())  # it fits into the buffer of a new connection
                connection.shutdown(socket.SHUT_WR)
                self._linger(connection)
                return
        except OSError:
            pass  # it is closed already
        except MemoryError:
            connection.close()
            raise
        connection.close()

    def _answer(self, host: str) -> str:
        """The line for somebody; empty: none."""
        if not (host in self._front if self._front else _is_loopback(host)):
            if host not in self._strangers and len(self._strangers) < MOST_STRANGERS:
                self._strangers.add(host)
                log.warning("%s asks the agent, and is not in [machine] front: it gets no answer", host)
            return ""
        availability = self._availability()
        front = host if self._front else ""  # this machine has many loopback addresses
        return self._lines.line(front, availability, time.monotonic()) if availability is not None else ""

    def _linger(self, connection: socket.socket) -> None:
        if len(self._lingering) >= MOST_LINGERING:
            self._drop(next(iter(self._lingering.values())))
        lingering = _Lingering(connection)
        self._selector.register(connection, selectors.EVENT_READ, lingering)
        self._lingering[connection] = lingering

    def _read(self, lingering: _Lingering) -> None:
        """Until its end, which closes it."""
        lingering.reads += 1
        try:
            more = lingering.connection.recv(READ_BYTES)
        except BlockingIOError:
            return
        except OSError:
            more = b""
        if not more or lingering.reads >= MOST_READS:
            self._drop(lingering)

    def _drop(self, lingering: _Lingering) -> None:
        connection = lingering.connection
        if self._lingering.pop(connection, None) is not None:
            self._selector.unregister(connection)
            connection.close()


class KeptAgent:
    """An agent where the settings want one. One thread at a time may use it."""

    def __init__(self, availability: Callable[[], Availability | None]) -> None:
        self._availability = availability
        self._agent: Agent | None = None
        self._wanted: tuple[str, tuple[str, ...]] = "", ()
        """where, and who may ask"""
        self._errors = Once()

    def keep(self, address: str, front: tuple[str, ...]) -> None:
        """Open it, or close it where `address` is empty. What fails is logged once, and is to be tried again: a
        machine that boots may not have its address yet."""
        if self._agent is not None and self._wanted != (address, front):
            self._agent.close()
            self._agent = None
        self._wanted = address, front
        if self._agent is not None or not address:
            return
        try:
            self._agent = Agent(Address.parse(address), front, self._availability)
        except (OSError, ValueError, MemoryError) as error:
            if self._errors.first(why := texts.what(error)):
                log.error("the agent cannot answer HAProxy at %s: %s; tried again", address, why)
        else:
            log.info("the agent answers HAProxy at %s", address)
            self._errors.over()


class _Lingering:
    """A connection that has its line, until the other end closes it."""

    def __init__(self, connection: socket.socket) -> None:
        self.connection = connection
        self.until = time.monotonic() + LINGER
        self.reads = 0


def _is_loopback(host: str) -> bool:
    return host == "::1" or host.startswith("127.")
