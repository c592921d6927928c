"""The AppServers as this Apache process knows them: table, keys, loads, idle connections; and asking one."""

from __future__ import annotations

import logging
import socket
import time
from collections.abc import Collection, Iterator, Sequence

from lbadaptor import headers, request
from lbadaptor.address import Entry, Identity, Table
from lbadaptor.addressfile import AddressFile
from lbadaptor.balance import POLICIES, Load, same_for
from lbadaptor.body import Body
from lbadaptor.errors import KeyFileError, OurOwnFault
from lbadaptor.failover import REFUSALS, Failure
from lbadaptor.pool import ConnectTimeout, Pool, connect
from lbadaptor.relay import Answer, ExchangeFailed, exchange
from lbadaptor.settings import Settings
from lbadaptor.ticket import Keys, Verdict, judge, read_keys

log = logging.getLogger("lbadaptor")

_MISSES = frozenset((Failure.UNREACHABLE, Failure.CONNECT_TIMEOUT, Failure.SILENT))
"""What makes this process avoid an AppServer for a moment."""
_FAILURES = {**REFUSALS, headers.KEY_REFUSED: Failure.FORBIDDEN}


class Fleet:
    """One for each application, shared by all threads of an Apache process."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings.adaptor
        self._policy = POLICIES[settings.adaptor.policy]
        self._key_file = settings.key_file
        self._keys: Keys | None = None
        self._caller_keys: dict[str, str] = {}
        self._pool = Pool(settings.adaptor.idle_connections)
        self._loads: dict[Identity, Load] = {}
        self._addresses = AddressFile(settings.address_file, self._on_table)
        self._forged = 0

    def table(self) -> Table:
        """address.text as of now."""
        return self._addresses.table()

    def judge(self, tickets: Sequence[str], table: Table) -> tuple[Verdict, Entry | None, str]:
        """The verdict on a request's tickets; see `ticket.judge`. Raises KeyFileError."""
        verdict, holder, ticket = judge(tickets, table, lambda ticket: self._keyring().signed(ticket))
        if verdict is Verdict.FORGED:
            self._count_forged()
        return verdict, holder, ticket

    def choose(self, table: Table, avoid: Collection[Identity], visitor: str = "") -> Entry | None:
        """An AppServer that takes new visitors; None when there is none but those to avoid.

        `visitor`: what tells apart one who has lost their holder, so that their parallel requests meet again.
        """
        entries = [
            entry for entry in table.ok if entry.identity not in avoid and self.load(entry).said_dying != table.serial
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
        return self._loads.get(entry.identity) or Load()

    def ask(self, entry: Entry, method: str, common: str, verdict: Verdict, body: Body, serial: int) -> Relayed:
        """One exchange with one AppServer, its answer taken over as far as the bound allows. Blocks.

        Raises ExchangeFailed, KeyFileError, and VisitorGone while a large body is streamed.
        """
        head = request.head(common, self._caller_key(entry), entry.identity.generation, verdict)
        load = self.load(entry)
        load.begin()
        connection = None
        try:
            connection = self._pool.take(entry.identity) or self._connect(entry)
            answer = exchange(connection, method, head, body)
            if "lb-status" not in answer.own:
                raise ExchangeFailed(Failure.NOT_HTTP, f"{entry.address}: a stranger answers, no AppServer")
            load.answered()
            self._heed(answer, load, serial)
            taken = answer.take(self._settings.answer_memory)
            refused = answer.own.get("lb-refused")
            if refused is None:
                return Relayed(self, entry, load, answer, taken)
            if answer.complete and answer.reusable:
                self._pool.give(entry.identity, connection)
                connection = None
            raise ExchangeFailed(_FAILURES.get(refused, Failure.NOT_HTTP), str(entry.identity))
        except BaseException as error:
            if isinstance(error, ExchangeFailed) and error.failure in _MISSES:
                load.missed(time.monotonic())
            load.end()
            if connection is not None:
                connection.close()
            raise

    def release(self, entry: Entry, load: Load, answer: Answer) -> None:
        """The answer is done with: its connection is kept or closed."""
        load.end()
        if answer.complete and answer.reusable:
            self._pool.give(entry.identity, answer.connection)
        else:
            answer.connection.close()

    def _connect(self, entry: Entry) -> socket.socket:
        try:
            return connect(entry.address, self._settings.connect_timeout, self._settings.answer_timeout)
        except OurOwnFault as error:
            log.error("lbadaptor: %s", error)
            raise ExchangeFailed(Failure.OURS, str(error)) from None
        except ConnectTimeout as error:
            raise ExchangeFailed(Failure.CONNECT_TIMEOUT, str(error)) from None
        except OSError as error:
            raise ExchangeFailed(Failure.UNREACHABLE, f"{entry.address}: {error.strerror}") from None

    def _heed(self, answer: Answer, load: Load, serial: int) -> None:
        """Remember what the AppServer says of itself on every answer."""
        if answer.own.get("lb-status") == "DYING":
            load.said_dying = serial
        reported = answer.own.get("lb-load")
        if reported:
            load.report(reported, time.monotonic())

    def _on_table(self, table: Table) -> None:
        """A new address.text: forget who left, make ready for who came."""
        identities = [entry.identity for entry in table.entries]
        tickets = {entry.ticket for entry in table.entries}
        self._pool.keep_only(identities)
        self._loads = {identity: self._loads.get(identity) or Load() for identity in identities}
        self._caller_keys = {ticket: key for ticket, key in self._caller_keys.copy().items() if ticket in tickets}

    def _keyring(self) -> Keys:
        keys = self._keys
        if keys is None:
            keys = self._keys = read_keys(self._key_file)
        return keys

    def _caller_key(self, entry: Entry) -> str:
        key = self._caller_keys.get(entry.ticket)
        if key is None:
            try:
                key = self._keyring().caller_key(entry.ticket)
            except KeyFileError:
                keys = self._keys = read_keys(self._key_file)  # it may have got a new key since
                key = keys.caller_key(entry.ticket)
            self._caller_keys[entry.ticket] = key
        return key

    def _count_forged(self) -> None:
        self._forged += 1
        if str(self._forged).strip("0") == "1":  # the 1st, 10th, 100th …
            log.warning("lbadaptor: %d forged tickets so far", self._forged)


class Relayed:
    """An answer with what was taken over of its body; iterating gives the whole body. Close it."""

    def __init__(self, fleet: Fleet, entry: Entry, load: Load, answer: Answer, taken: list[bytes]) -> None:
        self.answer = answer
        self.taken = taken
        self._fleet = fleet
        self._entry = entry
        self._load = load
        self._open = True

    @property
    def status(self) -> str:
        """As start_response wants it."""
        return f"{self.answer.status} {self.answer.reason}"

    def __iter__(self) -> Iterator[bytes]:
        yield from self.taken
        yield from self.answer.blocks

    def close(self) -> None:
        if self._open:
            self._open = False
            self._fleet.release(self._entry, self._load, self.answer)
