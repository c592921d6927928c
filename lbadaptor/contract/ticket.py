"""Tickets, and the keys that sign them. Pure, except for the functions that read and make the key file.

Each application has a key file with one master secret on each line, from the oldest to the newest. The newest one
signs; signatures of the others are accepted. A key that is only believed, because not all machines know it yet,
stands first. From the master secrets come

- tickets: `slot.generation.signature`, the value of the `__PRT__` cookie;
- two keys for each AppServer: the caller's key, which an adaptor sends to it, and the probe's key, which the monitor
  sends to it;
- the mask that hides the machine's number in a generation (`generation`).

Only the monitor and the adaptors read the file. An AppServer gets only its own ticket and its own two keys, so the
application in it can forge nothing.
"""

from __future__ import annotations

import grp
import hashlib
import hmac
import os
import pwd
import re
import secrets
import stat
from collections.abc import Callable, Sequence
from enum import Enum
from functools import partial
from pathlib import Path

from itsdangerous import BadSignature, Signer

from lbadaptor.contract.address import Entry, Identity, Table
from lbadaptor.contract.errors import KeyFileError
from lbadaptor.contract.generation import NUMBERS, number_of

MAX_LENGTH = 128
"""Bytes. A longer ticket is FORGED, and no signature is computed for it."""

MAX_VERIFIED = 8
"""Tickets of one request whose signatures are verified. Browsers send one for each path and domain."""

_SHAPE = re.compile(r"\d{1,6}\.\d{1,16}\.[A-Za-z0-9_-]{43}", re.ASCII)
SHORTEST_KEY = 32
"""Characters."""
_SALT = b"lbadaptor.ticket"
"""Part of every signature: with another one, the tickets that visitors have and the keys of running AppServers would
be wrong."""


class Verdict(Enum):
    """The verdict on the tickets of a request."""

    NONE = "none"
    """there is none"""
    HELD = "held"
    """the holder is in address.text"""
    LOST = "lost"
    """signed with one of our keys, but the holder is gone"""
    FORGED = "forged"
    """signed with none of our keys; treated as NONE"""


class Keys:
    """The master secrets of one application, oldest to newest."""

    def __init__(self, masters: Sequence[str]) -> None:
        if not masters:
            raise KeyFileError("no key")
        self._masters = tuple(masters)
        self._signers = tuple(
            Signer(master, salt=_SALT, key_derivation="hmac", digest_method=hashlib.sha256) for master in masters
        )

    def ticket(self, identity: Identity) -> str:
        """Sign a ticket with the newest key."""
        return self._signers[-1].sign(str(identity)).decode("ascii")

    def signed(self, ticket: str) -> bool:
        """Whether one of our keys signed it."""
        return self._index(ticket) is not None

    def caller_key(self, ticket: str) -> str:
        """The key that an adaptor sends to this AppServer. Raises KeyFileError if none of ours signed the ticket."""
        return self._derive("caller", ticket)

    def probe_key(self, ticket: str) -> str:
        """The key that the monitor sends to this AppServer. Raises KeyFileError if none of ours signed the ticket."""
        return self._derive("probe", ticket)

    def mask(self, slot: int, ms: int) -> int:
        """What hides the machine's number in a new generation: 0 to 999, by the newest key."""
        return _mask(self._masters[-1], slot, ms)

    def number_in(self, ticket: str) -> int | None:
        """The number of the machine that gave this ticket; None: none of our keys signed it, or it has none."""
        index = self._index(ticket)
        if index is None:
            return None
        slot, generation = map(int, identity_of(ticket).split("."))
        return number_of(generation, slot, partial(_mask, self._masters[index]))

    def _index(self, ticket: str) -> int | None:
        if len(ticket) <= MAX_LENGTH and _SHAPE.fullmatch(ticket):
            for index in range(len(self._signers) - 1, -1, -1):
                try:
                    self._signers[index].unsign(ticket)
                except BadSignature:
                    continue
                return index
        return None

    def _derive(self, purpose: str, ticket: str) -> str:
        # From the key that signed the ticket, so that an older AppServer keeps its keys when the file gets a new
        # line.
        index = self._index(ticket)
        if index is None:
            raise KeyFileError(f"no key of the key file signed the ticket of AppServer {identity_of(ticket)}")
        text = f"lbadaptor.{purpose}.{identity_of(ticket)}"
        return hmac.new(self._masters[index].encode(), text.encode(), hashlib.sha256).hexdigest()


def _mask(master: str, slot: int, ms: int) -> int:
    made = hmac.digest(master.encode(), f"lbadaptor.number.{slot}.{ms}".encode(), "sha256")
    return int.from_bytes(made[:8], "big") % NUMBERS


def identity_of(ticket: str) -> str:
    """The slot and generation that a ticket names. They are not checked."""
    return ticket.rpartition(".")[0]


def judge(tickets: Sequence[str], table: Table, signed: Callable[[str], bool]) -> tuple[Verdict, Entry | None, str]:
    """The verdict on the tickets of one request; the holder if it is HELD; the ticket that decided.

    A request may bring several tickets (two paths, two domains). All are considered: HELD wins, then LOST. `signed`
    verifies a signature. It is called only for tickets that the table does not know, and for MAX_VERIFIED of the
    right form at most, because each call computes a signature and a visitor may send thousands.
    """
    if not tickets:
        return Verdict.NONE, None, ""
    for ticket in tickets:
        holder = table.by_ticket.get(ticket)
        if holder is not None:
            return Verdict.HELD, holder, ticket
    asked: set[str] = set()
    for ticket in tickets:
        if ticket in asked or len(asked) == MAX_VERIFIED:
            continue
        if _SHAPE.fullmatch(ticket):  # otherwise `signed` computes no signature
            asked.add(ticket)
        if signed(ticket):
            return Verdict.LOST, None, ticket
    return Verdict.FORGED, None, tickets[0]


def read_keys(path: Path) -> Keys:
    """Read the key file. Raises KeyFileError."""
    try:
        text = path.read_text("ascii")
    except PermissionError as error:
        raise KeyFileError(f"key file {path}: {_why(error)}{_permissions(path)}") from None
    except (OSError, UnicodeDecodeError) as error:
        raise KeyFileError(f"key file {path}: {_why(error)}") from None
    masters = [line.strip() for line in text.splitlines() if line.strip() and not line.startswith("#")]
    for master in masters:
        if len(master) < SHORTEST_KEY:
            raise KeyFileError(f"key file {path}: a key is shorter than {SHORTEST_KEY} characters")
    if not masters:
        raise KeyFileError(f"key file {path} holds no key; delete it to have a new one made")
    return Keys(masters)


def new_key() -> str:
    """A new master secret."""
    return secrets.token_urlsafe(48)


def make_keys(path: Path, group: int | None = None) -> Keys:
    """Read the key file. Create it first if there is none: mode 0640, owned by the given group. Raises KeyFileError.

    It is created whole or not at all, even if two processes do so at once: written under another name, then linked.
    """
    if os.path.exists(path):  # unlike Path.exists, this never raises
        return read_keys(path)
    beside = path.with_name(f".{path.name}.{os.getpid()}.{secrets.token_hex(4)}")
    try:
        descriptor = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        try:
            with open(descriptor, "w", encoding="ascii") as file:
                file.write(new_key() + "\n")
                file.flush()
                if group is not None:
                    os.fchown(descriptor, -1, group)
                os.fchmod(descriptor, 0o640)
                os.fsync(descriptor)
            os.link(beside, path)
        finally:
            beside.unlink(missing_ok=True)
    except FileExistsError:
        pass  # another process was first: its file counts
    except OSError as error:
        raise KeyFileError(f"key file {path} cannot be made: {_why(error)}") from None
    return read_keys(path)


def unreadable_for(path: Path, group: int) -> str:
    """Why Apache, which runs in this group, cannot read the key file; empty if it can. Raises OSError."""
    found = path.stat()
    if found.st_mode & stat.S_IROTH or (found.st_gid == group and found.st_mode & stat.S_IRGRP):
        return ""
    return f"key file {path}: Apache, which runs in the group {_group(group)}, cannot read it{_remedy(path, group)}"


def _permissions(path: Path) -> str:
    """For a file that this process may not read: its owner, the user of this process, and the remedy."""
    me = f"this process runs as {_user(os.geteuid())} in the group {_group(os.getegid())}"
    for folder in reversed(path.absolute().parents):
        if not os.access(folder, os.X_OK, effective_ids=True):
            return f"; {me}, and may not enter {folder}"
    try:
        return f"; {me}{_remedy(path, os.getegid())}"
    except OSError:
        return f"; {me}"


def _remedy(path: Path, group: int) -> str:
    found = path.stat()
    return (
        f": it is of {_user(found.st_uid)}:{_group(found.st_gid)}, mode {stat.S_IMODE(found.st_mode):04o}; "
        f"`chgrp {_group(group)} {path} && chmod 0640 {path}` lets it be read"
    )


def _user(number: int) -> str:
    try:
        return pwd.getpwuid(number).pw_name
    except KeyError:
        return str(number)


def _group(number: int) -> str:
    try:
        return grp.getgrgid(number).gr_name
    except KeyError:
        return str(number)


def _why(error: OSError | UnicodeDecodeError) -> str:
    return error.strerror or str(error) if isinstance(error, OSError) else "not plain ASCII text"
