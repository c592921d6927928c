"""Writes address.text, and along with it callerkeys.text and available.text for Apache's fast lane.

Nothing else writes them.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path

from lbadaptor.contract.address import Entry, Given, State, Table, parse, write
from lbadaptor.contract.errors import AddressFileError, KeyFileError
from lbadaptor.log import logs, texts
from monitor.arbiter.files.atomic_file import AtomicFile
from monitor.arbiter.files.available_text import Available
from monitor.policy.problems import Problems

log = logs.logger("lbmonitor")

SESSIONS_INTERVAL = 2.0
"""Seconds between two writes, at least, if only session counts and weights have changed."""
_MODE = 0o640


class CallerKeys:
    """callerkeys.text: the caller's key of each AppServer to which Apache itself may send visitors with a ticket.

    `key` returns the caller's key of a ticket; it raises KeyFileError for a ticket that is not ours.
    """

    def __init__(self, path: Path, group: int | None, key: Callable[[str], str]) -> None:
        self._file = AtomicFile(path, _MODE, group)
        self._key = key
        self._keys: dict[str, str] = {}
        self._written = ""
        self._written_at = float("-inf")

    def keep(self, entries: tuple[Entry, ...], now: float = 0.0, heartbeat: float = float("inf")) -> None:
        """Write the file if its content changes, or if it was written `heartbeat` seconds ago.

        mod_rewrite keeps in memory whatever it looks up, forged tickets too, until the file is written again. `now`
        is monotonic seconds. Raises OSError; the old file stays then.
        """
        self._keys = {entry.ticket: self._keys.get(entry.ticket) or self._find(entry) for entry in entries}
        lines = [
            f"{entry.ticket}  {key}\n"
            for entry in entries
            if entry.state is not State.FAILING and (key := self._keys[entry.ticket])
        ]
        text = "".join(
            ("# What opens an AppServer: a secret of Apache's. Written along with address.text.\n", *lines)
        )
        if text != self._written or now - self._written_at >= heartbeat or not self._file.intact():
            self._file.write(text.encode())
            self._written, self._written_at = text, now

    def _find(self, entry: Entry) -> str:
        try:
            return self._key(entry.ticket)
        except KeyFileError:
            return ""  # the key that signed its ticket is no longer in the key file: no adaptor reaches it either


class Publisher:
    """Writes address.text. `group` is Apache's, by number; None leaves the monitor's own.

    `given`: what is to be said of generations; it is called with each write.
    """

    def __init__(
        self,
        path: Path,
        group: int | None,
        caller_keys: CallerKeys | None = None,
        problems: Problems | None = None,
        available: Available | None = None,
        given: Callable[[], Given | None] = lambda: None,
    ) -> None:
        self.entries: tuple[Entry, ...] | None = None
        """what the file contains; None before the first write"""
        self.written_at = float("-inf")
        """monotonic seconds"""
        self._path = path
        self._file = AtomicFile(path, _MODE, group)
        self._caller_keys = caller_keys
        self._available = available
        self._given = given
        self._writer = f"monitor {os.getpid()} on {os.uname().nodename}"
        self.before: tuple[Entry, ...] = ()
        """what the file contained before the first write"""
        self._problems = Problems() if problems is None else problems
        self._serial, self.last_generation = self._previous()

    def keep(self, entries: tuple[Entry, ...], now: float, heartbeat: float, first_visits: str = "") -> None:
        """Write the table if the file's content changes, or if it was written `heartbeat` seconds ago.

        `first_visits`: the ticket cookie with which these may take the fast lane; empty: they may not.

        A failure is logged once, and tried again with the next call. `now` is monotonic seconds.
        """
        age = now - self.written_at
        due = age >= heartbeat or (age >= SESSIONS_INTERVAL and entries != self.entries)
        if self._caller_keys is not None:  # first: then each AppServer that address.text names is in the fast lane
            keep = self._caller_keys.keep
            self._try(
                "callerkeys.text",
                "the newest AppServers are not in the fast lane",
                lambda: keep(entries, now, heartbeat),
            )
        if self.entries is None or due or not _same_states(entries, self.entries) or not self._file.intact():
            self._try("address.text", "adaptors go on with the last one", lambda: self.publish(entries))
        if (available := self._available) is None or self.entries is None or not _same_states(entries, self.entries):
            return  # a visitor whose AppServer is not in address.text would lose the session with the next request
        self._try(
            "available.text",
            "first visits go by the last one, and by the Python lane where an AppServer refuses them",
            lambda: available.keep(first_visits, entries, now, heartbeat),
        )

    def touch(self) -> None:
        """Write it with the next `keep` in any case: adaptors look at settings.json when it changes."""
        self.written_at = float("-inf")

    def publish(self, entries: tuple[Entry, ...]) -> None:
        """Write the table. Raises OSError; the old file stays then."""
        table = Table(self._serial + 1, entries, given=self._given())
        text = write(table, self._writer, time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()))
        self._file.write(text.encode())
        self._serial += 1
        self.entries = entries
        self.written_at = time.monotonic()

    def _try(self, name: str, consequence: str, write: Callable[[], None]) -> None:
        try:
            write()
        except OSError as error:
            self._problems.begin(name, f"{name} cannot be written: {texts.what(error)}; {consequence}")
        else:
            self._problems.end(name, f"{name} is written again")

    def _previous(self) -> tuple[int, int]:
        """Serial and highest generation of the file that is there: both go on from them."""
        try:
            table = parse(self._path.read_text("utf-8"))
        except (OSError, UnicodeDecodeError, AddressFileError):
            return 0, 0
        self.before = table.entries
        newest = table.given.newest if table.given is not None else 0
        return table.serial, max([newest, *(entry.identity.generation for entry in table.entries)])


def _same_states(one: tuple[Entry, ...], other: tuple[Entry, ...]) -> bool:
    """Whether both have the same AppServers in the same states."""
    return [(entry.identity, entry.state) for entry in one] == [(entry.identity, entry.state) for entry in other]
