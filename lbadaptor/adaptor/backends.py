"""The AppServers as this Apache process knows them: table, keys, loads, idle connections; and asking one."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Iterator, Sequence

from lbadaptor.adaptor import forward
from lbadaptor.adaptor.address_table import AddressFile
from lbadaptor.adaptor.balance import POLICIES, Load, same_for
from lbadaptor.adaptor.exchange import ExchangeFailed, Response, exchange
from lbadaptor.adaptor.pool import Connection, ConnectTimeout, Pool, connect
from lbadaptor.adaptor.retry import REFUSALS, Failure
from lbadaptor.adaptor.spool import Body
from lbadaptor.contract import headers
from lbadaptor.contract.address import Entry, Table
from lbadaptor.contract.errors import KeyFileError, OurOwnFault
from lbadaptor.contract.settings import Settings
from lbadaptor.contract.ticket import Keys, Verdict, judge, read_keys
from lbadaptor.log import logs, texts

log = logs.logger("lbadaptor")

LOOK = 0.01
"""Seconds for which a look at address.text is good enough: who has left it refuses for longer than that, and who has
come need be known to those only who hold their ticket."""
_MISSES = frozenset((Failure.UNREACHABLE, Failure.CONNECT_TIMEOUT, Failure.SILENT))
"""What makes this process avoid an AppServer for a moment."""
_FAILURES = {**REFUSALS, headers.KEY_REFUSED: Failure.FORBIDDEN}


class Peer:
    """One life of an AppServer, as this process knows it."""

    def __init__(self, idle_connections: int, threads: int = 1) -> None:
        self.load = Load(threads=threads)
        self.pool = Pool(idle_connections)
        self.ends: dict[Verdict, bytes] = {}
        """of the heads of requests, as far as they were needed"""


class Fleet:
    """One for each application, shared by all threads of an Apache process.

    `on_change` is called when address.text has changed, before anybody goes by the new one; by one thread at a time.
    """

    def __init__(self, settings: Settings, on_change: Callable[[], None] = lambda: None) -> None:
        self._settings = settings.adaptor
        self._threads = settings.appservers.threads
        self._policy = POLICIES[settings.adaptor.policy]
        self._key_file = settings.key_file
        self._ticket_cookie = settings.application.ticket_cookie
        self._unix_socket = settings.unix_socket
        self._keys: Keys | None = None
        self._peers: dict[str, Peer] = {}
        """by ticket, which names slot and generation"""
        self._addresses = AddressFile(settings.address_file, self._on_table)
        self._on_change = on_change
        self._forged = 0
        self._short = False
        """connections cannot be made, for want of something on this side"""

    def renew(self, settings: Settings) -> None:
        """Go by other settings from now on; where address.text is stays as it was. Call it from `on_change` only."""
        before, self._settings = self._settings, settings.adaptor
        self._threads = settings.appservers.threads
        self._policy = POLICIES[settings.adaptor.policy]
        self._ticket_cookie = settings.application.ticket_cookie
        if settings.key_file != self._key_file:
            self._key_file, self._keys = settings.key_file, None
        lasting = ("answer_timeout", "idle_connections")  # connections and pools have them for as long as they last
        if any(getattr(before, name) != getattr(settings.adaptor, name) for name in lasting):
            for peer in self._peers.values():
                old, peer.pool = peer.pool, Pool(settings.adaptor.idle_connections)
                old.close()

    def table(self) -> Table:
        """address.text as of now."""
        return self._addresses.table()

    def table_for(self, tickets: Sequence[str]) -> Table:
        """address.text as of a moment ago; as of now for tickets that were not in it then."""
        table = self._addresses.table(LOOK)
        for ticket in tickets:
            if ticket not in table.by_ticket:
                return self._addresses.table()
        return table

    def judge(self, tickets: Sequence[str], table: Table) -> tuple[Verdict, Entry | None, str]:
        """The verdict on a request's tickets; see `ticket.judge`. Raises KeyFileError."""
        verdict, holder, ticket = judge(tickets, table, self._signed)
        if verdict is Verdict.FORGED:
            self._count_forged()
        return verdict, holder, ticket

    def choose(self, table: Table, avoid: Collection[str], visitor: str = "") -> Entry | None:
        """An AppServer that takes new visitors; None when there is none but those to avoid, by their tickets.

        `visitor`: what tells apart one who has lost their holder, so that their parallel requests meet again.
        """
        entries = [
            entry for entry in table.ok if entry.ticket not in avoid and self.load(entry).said_dying != table.serial
        ]
        if not entries:
            return None
        now = time.monotonic()
        reached = [entry for entry in entries if now >= self.load(entry).avoided_until]
        entries = reached or entries
        entries = [entry for entry in entries if entry.weight] or entries
        if visitor:
            return same_for(visitor, entries)
        return self._policy(entries, lambda entry: self.load(entry).measure(entry, now))

    def load(self, entry: Entry) -> Load:
        """What this process knows of an AppServer's load."""
        return self._peer(entry).load

    def ask(self, entry: Entry, method: str, common: bytes, verdict: Verdict, body: Body, serial: int) -> Relayed:
        """One exchange with one AppServer, its answer taken over as far as the bound allows. Blocks.

        Raises ExchangeFailed, KeyFileError, and VisitorGone while a large body is streamed.
        """
        peer = self._peer(entry)
        head = common + (peer.ends.get(verdict) or self._end(peer, entry, verdict))
        load, pool = peer.load, peer.pool
        load.begin()
        connection = None
        try:
            connection = pool.take() or self._connect(entry)
            answer = exchange(connection, method, head, body)
            own = answer.own
            if "lb-status" not in own:
                raise ExchangeFailed(Failure.NOT_HTTP, f"{entry.address}: a stranger answers, no AppServer")
            load.answered(own.get("lb-load", ""), time.monotonic())
            if own["lb-status"] == "DYING":
                load.said_dying = serial
            taken = answer.take(self._settings.answer_memory)
            if "lb-refused" in own:
                if answer.complete and answer.reusable:
                    pool.give(connection)
                    connection = None
                raise ExchangeFailed(_FAILURES.get(own["lb-refused"], Failure.NOT_HTTP), str(entry.identity))
        except BaseException as error:
            if isinstance(error, ExchangeFailed) and error.failure in _MISSES:
                load.missed(time.monotonic())
            load.end()
            if connection is not None:
                connection.close()
            if isinstance(error, OSError):  # of waiting, or of reading the spool: no AppServer is to blame
                raise ExchangeFailed(Failure.OURS, error.strerror or str(error)) from None
            raise
        relayed = Relayed(load, pool, answer, taken)
        if answer.over:
            relayed.close()
        return relayed

    def _connect(self, entry: Entry) -> Connection:
        try:
            connection = connect(
                entry.address,
                self._unix_socket(entry.identity.slot),
                self._settings.connect_timeout,
                self._settings.answer_timeout,
            )
            if self._short:
                self._short = False
                log.warning("lbadaptor: connections can be made again")
            return connection
        except OurOwnFault as error:
            if not self._short:  # once, until it is over
                self._short = True
                log.error("lbadaptor: %s", error)
            raise ExchangeFailed(Failure.OURS, str(error)) from None
        except ConnectTimeout as error:
            raise ExchangeFailed(Failure.CONNECT_TIMEOUT, str(error)) from None
        except OSError as error:
            raise ExchangeFailed(Failure.UNREACHABLE, f"{entry.address}: {texts.what(error)}") from None

    def _peer(self, entry: Entry) -> Peer:
        return self._peers.get(entry.ticket) or Peer(0)  # it left a moment ago

    def _on_table(self, table: Table) -> None:
        """A new address.text: forget who left, make ready for who came."""
        self._on_change()
        before, new = self._peers, (self._settings.idle_connections, self._threads)
        self._peers = {entry.ticket: before.get(entry.ticket) or Peer(*new) for entry in table.entries}
        for ticket in before.keys() - self._peers.keys():
            before[ticket].pool.close()

    def _signed(self, ticket: str) -> bool:
        return self._keyring().signed(ticket)

    def _keyring(self) -> Keys:
        keys = self._keys
        if keys is None:
            keys = self._keys = read_keys(self._key_file)
        return keys

    def _end(self, peer: Peer, entry: Entry, verdict: Verdict) -> bytes:
        try:
            key = self._keyring().caller_key(entry.ticket)
        except KeyFileError:
            keys = self._keys = read_keys(self._key_file)  # it may have got a new key since
            key = keys.caller_key(entry.ticket)
        return peer.ends.setdefault(verdict, forward.end(key, entry.identity.generation, verdict))

    def _count_forged(self) -> None:
        self._forged = count = self._forged + 1  # another thread may count at the same moment
        if str(count).strip("0") == "1":  # the 1st, 10th, 100th …
            log.warning("lbadaptor: %d forged tickets so far", count)
        if count == 1:
            log.warning(
                "lbadaptor: no key in %s signed what came in the cookie `%s`: a visitor made it up, or another "
                "application on this host name has the same ticket_cookie (give each its own), or the key file was "
                "replaced",
                self._key_file,
                self._ticket_cookie,
            )


class Relayed:
    """An answer with what was taken over of its body; iterating gives all of it. Close it unless it is over."""

    def __init__(self, load: Load, pool: Pool, answer: Response, taken: list[bytes]) -> None:
        self.answer = answer
        self.taken = taken
        self._load: Load | None = load
        self._pool = pool

    def __iter__(self) -> Iterator[bytes]:
        yield from self.taken
        yield from self.answer.blocks

    def close(self) -> None:
        """The answer is done with: its connection is kept or closed.

        Of a request whose answer is complete all is sent, for the application may go on reading. Blocks meanwhile.
        """
        load, self._load = self._load, None
        if load is not None:
            usable = False
            try:
                usable = self.answer.finish()
            finally:
                load.end()
                if usable:
                    self._pool.give(self.answer.connection)
                else:
                    self.answer.connection.close()
