"""address.text: the list of AppServers. Pure: reads a text into a table, and writes a table as text.

Each line is one AppServer. The first two columns are what Apache's `RewriteMap txt:` reads: key and value; it ignores
the rest of the line. `#` begins a comment line. The first line is a comment with the version of the format, the
serial of the table, its writer and the number of entries::

    # address.text 1 · serial 42 · monitor 4711 on web1 · 2026-11-22T10:00:00Z · entries 1
    # ticket   address  state  slot  generation  weight  sessions
    0.1763805600123.kX93…  127.0.0.1:9000  OK  0  1763805600123  100  41

With `[machine] number` the first line also tells the `Given` of this machine, before the number of entries.
"""

from __future__ import annotations

import re
import socket
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from enum import Enum
from typing import NamedTuple

from msgspec import Struct

from lbadaptor.contract.errors import AddressFileError

VERSION = 1
MAX_PORT = 65535
COLUMNS = ("ticket", "address", "state", "slot", "generation", "weight", "sessions")
MAX_BYTES = 4 * 1024 * 1024
"""No address.text is larger: 1,000 AppServers need about 150 KB."""

_HEADER = re.compile(
    r"# address\.text (?P<version>\d{1,9})\b"
    r"(?:.*?· serial (?P<serial>\d{1,19})\b)?"
    r"(?:.*· machine (?P<number>\d{1,3}), newest (?P<newest>\d{1,16})"
    r" from (?P<since>\d{1,16}) to (?P<until>\d{1,16})\b)?"
    r"(?:.*· entries (?P<entries>\d{1,9})$)?",
    re.ASCII,
)


class State(Enum):
    """Which requests an AppServer in address.text may get."""

    OK = "OK"
    """all"""
    DYING = "DYING"
    """those of visitors whose session it has"""
    FAILING = "FAILING"
    """Its probes fail. It gets no new visitors, and a few requests with its ticket."""


_STATES = {state.value: state for state in State}
_WRITTEN = re.compile(
    r"((0|[1-9]\d{0,18})\.(0|[1-9]\d{0,18})\.[!-~]*) +"  # the ticket: slot and generation come again below
    r"(?:([a-zA-Z0-9.-]+)|\[([0-9a-f:.]+)\]):(\d{1,5}) +"
    rf"({'|'.join(_STATES)}) +\2 +\3 +(\d{{1,19}}) +(\d{{1,19}})",
    re.ASCII,
).fullmatch
"""A line as `write` writes it."""


class Address(NamedTuple):
    """Where an AppServer listens."""

    host: str
    port: int

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"

    @classmethod
    def parse(cls, text: str) -> Address:
        """Read `host:port` or `[v6]:port`. Raises ValueError."""
        host, _, port = text.rpartition(":")
        if host.startswith("[") and host.endswith("]"):
            host = host[1:-1]
        elif ":" in host:
            raise ValueError(f"{text!r}: an IPv6 address stands in brackets")
        if not host or not (port.isascii() and port.isdigit() and len(port) <= 5) or int(port) > MAX_PORT:
            raise ValueError(f"{text!r} is not host:port")
        return cls(host, int(port))


def canonical(address: str) -> str:
    """The one spelling of an IP address, by which two can be compared; any other text as it is. Never raises."""
    for family in (socket.AF_INET, socket.AF_INET6):
        try:
            found = socket.inet_ntop(family, socket.inet_pton(family, address))
        except (OSError, ValueError):
            continue
        return found.removeprefix("::ffff:") if "." in found else found  # IPv4 as a socket of IPv6 shows it
    return address


class Identity(NamedTuple):
    """Names one AppServer. The slot alone does not: the next AppServer in a slot has none of the sessions."""

    slot: int
    generation: int

    def __str__(self) -> str:
        return f"{self.slot}.{self.generation}"


class Entry(Struct, frozen=True, gc=False):
    """One line of address.text. A Struct, because the adaptor makes thousands at once: a dataclass takes longer."""

    ticket: str
    address: Address
    state: State
    identity: Identity
    weight: int = 100
    sessions: int = 0


class Given(NamedTuple):
    """Which generations a machine that has a number has given: those of `since` to `until` (unix time in ms) are not
    above `newest`. Its clock has gone evenly meanwhile."""

    number: int
    newest: int
    since: int
    until: int


@dataclass(frozen=True)
class Table:
    """The content of address.text."""

    serial: int = 0
    entries: tuple[Entry, ...] = ()
    by_line: Mapping[str, Entry] = field(default_factory=dict, repr=False, compare=False)
    """the entries by their lines; empty if these have to be read again each time"""
    given: Given | None = None
    """None: of a machine without a number"""
    by_ticket: dict[str, Entry] = field(init=False, repr=False, compare=False)
    ok: tuple[Entry, ...] = field(init=False, repr=False, compare=False)
    """the entries in state OK"""

    def __post_init__(self) -> None:
        object.__setattr__(self, "by_ticket", {entry.ticket: entry for entry in self.entries})
        object.__setattr__(self, "ok", tuple(entry for entry in self.entries if entry.state is State.OK))

    def named(self, identity: str) -> Entry | None:
        """The entry of the AppServer that this text names, as `slot.generation` and in no other spelling."""
        return next((entry for entry in self.entries if str(entry.identity) == identity), None)


def parse(text: str, before: Table | None = None) -> Table:
    """Read address.text. Raises AddressFileError, with the number of the line, if any of it is malformed.

    A text was half written if it is empty, ends without a newline, or has fewer entries than its header says.

    Entries are taken from the table `before` where their lines are the same. The result is the same as without it.
    """
    if not text:
        raise AddressFileError(1, "empty: half written")
    lines = text.split("\n")
    if lines.pop() != "":
        raise AddressFileError(len(lines) + 1, "the last line is not ended: half written")
    serial, given, expected = _header(lines[0]) if lines else (0, None, None)
    by_line = _read_fast(lines, before.by_line if before else {})
    entries = tuple(by_line.values()) or tuple(_read(lines))
    if expected is not None and expected != len(entries):
        raise AddressFileError(len(lines) + 1, f"entries: {len(entries)}; the header says {expected}: half written")
    return Table(serial, entries, by_line, given)


def write(table: Table, writer: str, time: str) -> str:
    """The text of a table. `writer` and `time` (UTC) are for people."""
    rows = [
        (
            entry.ticket,
            str(entry.address),
            entry.state.value,
            str(entry.identity.slot),
            str(entry.identity.generation),
            str(entry.weight),
            str(entry.sessions),
        )
        for entry in table.entries
    ]
    titles = ("# " + COLUMNS[0], *COLUMNS[1:])
    widths = [max(map(len, column)) for column in zip(titles, *rows, strict=True)]
    body = ("  ".join(map(str.ljust, row, widths)).rstrip() for row in (titles, *rows))
    given = ""
    if table.given is not None:
        number, newest, since, until = table.given
        given = f" · machine {number}, newest {newest} from {since} to {until}"
    header = f"# address.text {VERSION} · serial {table.serial} · {writer} · {time}{given} · entries {len(rows)}"
    return "\n".join((header, *body, ""))


def free_slots(taken: Iterable[int], limit: int) -> list[int]:
    """The free slots below `limit`, lowest first."""
    used = set(taken)
    return [slot for slot in range(limit) if slot not in used]


def _header(line: str) -> tuple[int, Given | None, int | None]:
    """The serial (or 0), what the machine has given, and the number of entries (or None), as the first line says."""
    found = _HEADER.match(line)
    if not found:
        return 0, None, None
    if int(found["version"]) != VERSION:
        raise AddressFileError(1, f"version {found['version']}; this program reads version {VERSION}")
    given = Given(*(int(found[name]) for name in Given._fields)) if found["number"] else None
    return int(found["serial"] or 0), given, int(found["entries"]) if found["entries"] else None


def _read_fast(lines: list[str], known: Mapping[str, Entry]) -> dict[str, Entry]:
    """By its line, what `_read` finds in each line; nothing at all unless every line is as `write` writes it.

    An Apache process serves nobody meanwhile, because this holds the interpreter lock.
    """
    written = [line for line in lines if not line.startswith("#")]
    by_line = {line: known.get(line) or _written_entry(line) for line in written}
    entries = {line: entry for line, entry in by_line.items() if entry is not None}
    slots = {entry.identity.slot for entry in entries.values()}
    addresses = {entry.address for entry in entries.values()}
    return entries if len(entries) == len(slots) == len(addresses) == len(written) else {}


def _written_entry(line: str) -> Entry | None:
    """The entry in a line as `write` writes it; None: `_entry` has to look at it, or to name what is wrong."""
    found = _WRITTEN(line)
    if not found:
        return None
    ticket, slot, generation, host, v6, port, state, weight, sessions = found.groups()
    address = Address(host or v6, int(port))
    if address.port > MAX_PORT:
        return None
    identity = Identity(int(slot), int(generation))
    return Entry(ticket, address, _STATES[state], identity, int(weight), int(sessions))


def _read(lines: Iterable[str]) -> Iterator[Entry]:
    """The entries in the lines. Raises AddressFileError."""
    seen: dict[str, int] = {}
    for number, line in enumerate(lines, 1):
        if not line.strip() or line.startswith("#"):
            continue
        entry = _entry(line, number)
        for key in (f"slot {entry.identity.slot}", f"address {entry.address}"):
            if key in seen:
                raise AddressFileError(number, f"{key} stands in line {seen[key]} too")
            seen[key] = number
        yield entry


def _entry(line: str, number: int) -> Entry:
    fields = line.split()
    if len(fields) != len(COLUMNS):
        raise AddressFileError(number, f"columns: {len(fields)}, not {len(COLUMNS)} ({' '.join(COLUMNS)})")
    ticket, address, state, *numbers = fields
    for name, value in zip(COLUMNS[3:], numbers, strict=True):
        if not (value.isascii() and value.isdigit() and len(value) <= 19):
            raise AddressFileError(number, f"{name} {value!r} is not a whole number")
    slot, generation, weight, sessions = map(int, numbers)
    identity = Identity(slot, generation)
    if not ticket.startswith(f"{identity}."):
        raise AddressFileError(number, f"the ticket does not belong to slot {slot}, generation {generation}")
    try:
        where = Address.parse(address)
    except ValueError as error:
        raise AddressFileError(number, str(error)) from None
    try:
        return Entry(ticket, where, State(state), identity, weight, sessions)
    except ValueError:
        known = ", ".join(state.value for state in State)
        raise AddressFileError(number, f"state {state!r} is none of {known}") from None
