"""The sole writer of address.text, and of the callers' keys for Apache's fast lane."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path

from lbadaptor.contract.address import Entry, State, Table, parse, write
from lbadaptor.contract.errors import AddressFileError, KeyFileError
from lbadaptor.log import logs, texts
from monitor.arbiter.files.atomic_file import AtomicFile
from monitor.policy.problems import Problems

log = logs.logger("lbmonitor")

SESSIONS_INTERVAL = 2.0
"""Seconds between two writes, at least, where nothing but session counts and weights has changed."""
_MODE = 0o640


class CallerKeys:
    """callerkeys.text: which key opens which AppServer, for those whose holders may be sent to it by Apache itself.

    `key` gives the caller's key of a ticket; it raises KeyFileError for one that is none of ours.
    """

    def __init__(self, path: Path, group: int | None, key: Callable[[str], str]) -> None:
        self._file = AtomicFile(path, _MODE, group)
        self._key = key
        self._keys: dict[str, str] = {}
        self._written = ""
        self._written_at = float("-inf")

    def keep(self, entries: tuple[Entry, ...], now: float = 0.0, heartbeat: float = float("inf")) -> None:
        """Write the file where it says something else, or has been still for `heartbeat` seconds: mod_rewrite keeps
        in memory what it was asked for, made-up tickets too, until then. `now` is monotonic seconds.

        Raises OSError; the file before stays whole then.
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
            return ""  # the key that signed its ticket has been taken away: no adaptor reaches it either


class Publisher:
    """Writes address.text whole or not at all, so that no reader ever sees half of it.

    `group` is Apache's, by number; None leaves the monitor's own.
    """

    def __init__(
        self,
        path: Path,
        group: int | None,
        caller_keys: CallerKeys | None = None,
        problems: Problems | None = None,
    ) -> None:
        self.entries: tuple[Entry, ...] | None = None
        """what the file says; None before the first write"""
        self.written_at = float("-inf")
        """monotonic seconds"""
        self._path = path
        self._file = AtomicFile(path, _MODE, group)
        self._caller_keys = caller_keys
        self._writer = f"monitor {os.getpid()} on {os.uname().nodename}"
        self.before: tuple[Entry, ...] = ()
        """what the file said before the first write"""
        self._problems = Problems() if problems is None else problems
        self._serial, self.last_generation = self._previous()

    def keep(self, entries: tuple[Entry, ...], now: float, heartbeat: float) -> None:
        """Write the table where the file says something else, or has been still for `heartbeat` seconds.

        A failure is said once, and tried again with the next call. `now` is monotonic seconds.
        """
        still = now - self.written_at
        due = still >= heartbeat or (still >= SESSIONS_INTERVAL and entries != self.entries)
        if self._caller_keys is not None:  # first: whom address.text names can be sent to
            keep = self._caller_keys.keep
            self._try(
                "callerkeys.text", "who came last is not in the fast lane", lambda: keep(entries, now, heartbeat)
            )
        if self.entries is None or due or not _same_but_sessions(entries, self.entries) or not self._file.intact():
            self._try("address.text", "adaptors go on with the last one", lambda: self.publish(entries))

    def touch(self) -> None:
        """Write it with the next `keep` in any case: adaptors look at the settings when it changes."""
        self.written_at = float("-inf")

    def publish(self, entries: tuple[Entry, ...]) -> None:
        """Write the table. Raises OSError; the file before stays whole then."""
        text = write(
            Table(self._serial + 1, entries), self._writer, time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
        )
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
        """Serial and highest generation of the file that is there, so that both go on rising."""
        try:
            table = parse(self._path.read_text("utf-8"))
        except (OSError, UnicodeDecodeError, AddressFileError):
            return 0, 0
        self.before = table.entries
        return table.serial, max((entry.identity.generation for entry in table.entries), default=0)


def _same_but_sessions(one: tuple[Entry, ...], other: tuple[Entry, ...]) -> bool:
    """Whether the same AppServers may be sent the same visitors."""
    return [(entry.identity, entry.state) for entry in one] == [(entry.identity, entry.state) for entry in other]
