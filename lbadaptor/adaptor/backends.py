"""The AppServers as this Apache process knows them: the table, keys, loads and idle connections."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Collection, Iterator, Sequence
from pathlib import Path

from lbadaptor.adaptor import forward
from lbadaptor.adaptor.address_table import AddressTable
from lbadaptor.adaptor.balance import POLICIES, Load, same_for
from lbadaptor.adaptor.exchange import ExchangeFailed, Response, WholeResponse, exchange
from lbadaptor.adaptor.pool import Connection, ConnectTimeout, Pool, connect
from lbadaptor.adaptor.retry import REFUSALS, Failure
from lbadaptor.adaptor.same_number import SameNumber
from lbadaptor.adaptor.spool import Body
from lbadaptor.contract import headers
from lbadaptor.contract.address import Entry, Table
from lbadaptor.contract.errors import KeyFileError, OurOwnFault
from lbadaptor.contract.settings import Settings
from lbadaptor.contract.ticket import Keys, Verdict, judge, read_keys
from lbadaptor.log import logs, texts
from lbadaptor.log.once import Once

log = logs.logger("lbadaptor")

PATIENCE = 0.1
"""Seconds for a connection that only shows whether somebody listens."""
MAX_TABLE_AGE = 0.01
"""Seconds for which a request goes by address.text without checking it again. An AppServer that has left the file
refuses requests for longer than that. One that has come needs to be known only to visitors with its ticket, and for
their requests the file is checked (`table_for`)."""
_AVOIDED_AFTER = frozenset((Failure.UNREACHABLE, Failure.CONNECT_TIMEOUT, Failure.SILENT))
"""The failures after which this process avoids an AppServer for a moment."""
_FAILURES = {**REFUSALS, headers.KEY_REFUSED: Failure.FORBIDDEN}


class Backend:
    """One AppServer, from its start to its end, as this process knows it."""

    def __init__(self, idle_connections: int, threads: int = 1) -> None:
        self.load = Load(threads=threads)
        self.pool = Pool(idle_connections)
        self.head_ends: dict[Verdict, bytes] = {}
        """the end of a request's head for each verdict, made when it is needed first"""


class Backends:
    """All AppServers of one application, shared by all threads of an Apache process.

    `on_change` is called when address.text has changed, before any request goes by it; by one thread at a time.
    """

    def __init__(self, settings: Settings, on_change: Callable[[], None] = lambda: None) -> None:
        self._settings = settings.adaptor
        self._threads = settings.appservers.threads
        self._policy = POLICIES[settings.adaptor.policy]
        self._key_file = settings.key_file
        self._ticket_cookie = settings.application.ticket_cookie
        self._unix_socket = settings.unix_socket
        self._keys: Keys | None = None
        """None before they are needed first"""
        self._keys_stamp: tuple[int, int, int] | None = None
        """of the key file that was read last: time, inode and size"""
        self._key_problems = Once()
        self._same_number = SameNumber()
        self._backends: dict[str, Backend] = {}
        """by ticket"""
        self._addresses = AddressTable(settings.address_file, self._on_table)
        self._on_change = on_change
        self._forged = 0
        self._shortage = False
        """this process cannot make connections, for want of descriptors, ports or memory"""

    def renew(self, settings: Settings) -> None:
        """Go by other settings from now on, except for the place of address.text. Only `on_change` may call this."""
        before, self._settings = self._settings, settings.adaptor
        self._threads = settings.appservers.threads
        self._policy = POLICIES[settings.adaptor.policy]
        self._ticket_cookie = settings.application.ticket_cookie
        if settings.key_file != self._key_file:
            self._key_file, self._keys = settings.key_file, None
        lasting = ("answer_timeout", "idle_connections")  # connections and pools keep these from their beginning on
        if any(getattr(before, name) != getattr(settings.adaptor, name) for name in lasting):
            for backend in self._backends.values():
                old, backend.pool = backend.pool, Pool(settings.adaptor.idle_connections)
                old.close()

    def table(self) -> Table:
        """address.text as of now."""
        return self._addresses.table()

    def table_of_living(self) -> Table:
        """address.text as of now; where the monitor is gone, without the AppServers at whose sockets nobody listens.

        A dead AppServer refuses a connection at once. Blocks for PATIENCE seconds at most for each one that hangs,
        and only where the monitor is gone.
        """
        table = self.table()
        if not self._addresses.abandoned:
            return table
        return Table(table.serial, tuple(entry for entry in table.entries if self._listens(entry)))

    def _listens(self, entry: Entry) -> bool:
        try:
            connect(entry.address, self._unix_socket(entry.identity.slot), PATIENCE, PATIENCE).close()
        except (ConnectTimeout, OurOwnFault):
            return True  # as far as is known
        except OSError:
            return False
        return True

    def table_for(self, tickets: Sequence[str]) -> Table:
        """address.text as of a moment ago, or as of now if one of the tickets was not in it then."""
        table = self._addresses.table(MAX_TABLE_AGE)
        for ticket in tickets:
            if ticket not in table.by_ticket:
                return self._addresses.table()
        return table

    def judge(self, tickets: Sequence[str], table: Table) -> tuple[Verdict, Entry | None, str]:
        """The verdict on a request's tickets; see `ticket.judge`. Raises KeyFileError."""
        verdict, holder, ticket = judge(tickets, table, self._signed)
        if verdict is Verdict.FORGED:
            self._count_forged()
        elif verdict is Verdict.LOST and table.given is not None:
            self._same_number.look(ticket, table.given, self._keyring())
        return verdict, holder, ticket

    def choose(self, table: Table, avoid: Collection[str], visitor: str = "") -> Entry | None:
        """An AppServer that takes new visitors; None if there is none besides those to `avoid`, named by their
        tickets.

        `visitor`: identifies a visitor whose holder is gone, so that their parallel requests meet at one AppServer.
        """
        now = time.monotonic()
        entries, reachable = [], []
        for entry in table.ok:
            load = self._backend(entry).load
            if entry.ticket not in avoid and load.said_dying != table.serial:
                entries.append(entry)
                if now >= load.avoided_until:
                    reachable.append(entry)
        if not entries:
            return None
        entries = reachable or entries
        entries = [entry for entry in entries if entry.weight] or entries
        if visitor:
            return same_for(visitor, entries)
        return self._policy(entries, lambda entry: self.load(entry).measure(entry, now))

    def load(self, entry: Entry) -> Load:
        """What this process knows of an AppServer's load."""
        return self._backend(entry).load

    def ask(
        self, entry: Entry, method: str, common: bytes, verdict: Verdict, body: Body, serial: int
    ) -> BufferedResponse:
        """Send a request to one AppServer, and buffer its answer as far as `answer_memory` allows. Blocks.

        `serial`: of the table that the request goes by.

        Raises ExchangeFailed, KeyFileError, and VisitorGone while a large body is streamed.
        """
        backend = self._backend(entry)
        head = common + (backend.head_ends.get(verdict) or self._head_end(backend, entry, verdict))
        load, pool = backend.load, backend.pool
        load.begin()
        connection = None
        try:
            connection = pool.take() or self._connect(entry)
            answer = exchange(connection, method, head, body)
            own = answer.own
            if "lb-status" not in own:
                raise ExchangeFailed(Failure.NOT_HTTP, f"{entry.address}: what answers is no AppServer")
            load.answered(own.get("lb-load", ""), time.monotonic())
            if own["lb-status"] == "DYING":
                load.said_dying = serial
            blocks = answer.take(self._settings.answer_memory)
            if "lb-refused" in own:
                if answer.complete and answer.reusable:
                    pool.give(connection)
                    connection = None
                raise _refusal(own, entry)
        except BaseException as error:
            if isinstance(error, ExchangeFailed) and error.failure in _AVOIDED_AFTER:
                load.missed(time.monotonic())
            load.end()
            if connection is not None:
                connection.close()
            if isinstance(error, OSError):  # from poll, or from reading the spool: no AppServer is to blame
                raise ExchangeFailed(Failure.OURS, error.strerror or str(error)) from None
            raise
        buffered = BufferedResponse(load, pool, answer, blocks)
        if answer.over:
            buffered.close()
        return buffered

    def _connect(self, entry: Entry) -> Connection:
        try:
            connection = connect(
                entry.address,
                self._unix_socket(entry.identity.slot),
                self._settings.connect_timeout,
                self._settings.answer_timeout,
            )
            if self._shortage:
                self._shortage = False
                log.warning("lbadaptor: connections can be made again")
            return connection
        except OurOwnFault as error:
            if not self._shortage:  # once, until connections can be made again
                self._shortage = True
                log.error("lbadaptor: %s", error)
            raise ExchangeFailed(Failure.OURS, str(error)) from None
        except ConnectTimeout as error:
            raise ExchangeFailed(Failure.CONNECT_TIMEOUT, str(error)) from None
        except OSError as error:
            raise ExchangeFailed(Failure.UNREACHABLE, f"{entry.address}: {texts.what(error)}") from None

    def _backend(self, entry: Entry) -> Backend:
        return self._backends.get(entry.ticket) or Backend(0)  # it left address.text a moment ago

    def _on_table(self, table: Table) -> None:
        """address.text was written anew: forget the AppServers that left it, and prepare for those that came."""
        self._on_change()
        before, new = self._backends, (self._settings.idle_connections, self._threads)
        self._backends = {entry.ticket: before.get(entry.ticket) or Backend(*new) for entry in table.entries}
        for ticket in before.keys() - self._backends.keys():
            before[ticket].pool.close()
        self._learn_keys(self._backends.keys() - before.keys())

    def _learn_keys(self, tickets: Collection[str]) -> None:
        """Read the key file again if it has changed, or if no known key signed one of these new AppServers' tickets.

        Otherwise the tickets of a new key would be FORGED here until this process has sent a request to one of them;
        and those of another machine, for ever.
        """
        keys = self._keys
        if keys is None or (_stamp(self._key_file) == self._keys_stamp and all(map(keys.signed, tickets))):
            return
        try:
            self._read_keys()
        except KeyFileError as error:
            if self._key_problems.first(str(error)):
                log.warning("lbadaptor: %s; going on with the keys that were there", error)
        else:
            self._key_problems.over()

    def _signed(self, ticket: str) -> bool:
        return self._keyring().signed(ticket)

    def _keyring(self) -> Keys:
        return self._keys or self._read_keys()

    def _read_keys(self) -> Keys:
        stamp = _stamp(self._key_file)  # first: what changes while it is read is then read again
        keys = self._keys = read_keys(self._key_file)
        self._keys_stamp = stamp
        return keys

    def _head_end(self, backend: Backend, entry: Entry, verdict: Verdict) -> bytes:
        try:
            key = self._keyring().caller_key(entry.ticket)
        except KeyFileError:
            key = self._read_keys().caller_key(entry.ticket)  # the file may hold a new key now
        return backend.head_ends.setdefault(verdict, forward.head_end(key, entry.identity.generation, verdict))

    def _count_forged(self) -> None:
        self._forged = count = self._forged + 1  # not exact: another thread may count at the same moment
        if str(count).strip("0") == "1":  # the 1st, 10th, 100th …
            log.warning("lbadaptor: forged tickets so far: %d", count)
        if count == 1:
            log.warning(
                "lbadaptor: no key in %s signed what came in the cookie `%s`: a visitor made it up, or another "
                "application on this host name has the same ticket_cookie (give each its own), or the key file was "
                "replaced",
                self._key_file,
                self._ticket_cookie,
            )


def _stamp(path: Path) -> tuple[int, int, int] | None:
    """What changes with each change of a file; None if it cannot be looked at."""
    try:
        status = os.stat(path)
    except OSError:
        return None
    return status.st_mtime_ns, status.st_ino, status.st_size


def _refusal(own: dict[str, str], entry: Entry) -> ExchangeFailed:
    """The error for a refusal by this AppServer; `own`: its LB- headers."""
    failure = _FAILURES.get(own["lb-refused"], Failure.NOT_HTTP)
    if failure is not Failure.MOVED:
        return ExchangeFailed(failure, str(entry.identity))
    moved_to = own.get("lb-moved-to", "")
    return ExchangeFailed(failure, f"to {moved_to[:40]!r}" if moved_to else "", moved_to)


class BufferedResponse:
    """An answer, and the blocks of its body that are here already. Iteration yields the whole body.

    It has to be closed, unless `response.over`.
    """

    def __init__(self, load: Load, pool: Pool, response: Response | WholeResponse, blocks: list[bytes]) -> None:
        self.response = response
        self.blocks = blocks
        """the beginning of the body, or all of it"""
        self._load: Load | None = load
        self._pool = pool

    def __iter__(self) -> Iterator[bytes]:
        yield from self.blocks
        yield from self.response.blocks

    def close(self) -> None:
        """Keep the connection for another request, or close it.

        If the answer is complete, the rest of the request is sent first, because the application may still read it.
        Blocks meanwhile.
        """
        load, self._load = self._load, None
        if load is not None:
            usable = False
            try:
                usable = self.response.finish()
            finally:
                load.end()
                if usable:
                    self._pool.give(self.response.connection)
                else:
                    self.response.connection.close()
