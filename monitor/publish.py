"""The sole writer of address.text."""

from __future__ import annotations

import logging
import os
import time
from pathlib import Path

from lbadaptor.address import Entry, Table, parse, write
from lbadaptor.errors import AddressFileError
from monitor.wholefile import WholeFile

log = logging.getLogger("lbmonitor")

LEAST_STEP = 1_000
"""Nanoseconds between the mtimes of two writes: a reader that looks at nothing else must see each."""
SESSIONS_INTERVAL = 2.0
"""Seconds between two writes, at least, where nothing but session counts and weights has changed."""


class Publisher:
    """Writes address.text whole or not at all, so that no reader ever sees half of it.

    `group` is Apache's, by number; None leaves the monitor's own.
    """

    def __init__(self, path: Path, group: int | None) -> None:
        self.entries: tuple[Entry, ...] | None = None
        """what the file says; None before the first write"""
        self.written_at = float("-inf")
        """monotonic seconds"""
        self._path = path
        self._file = WholeFile(path, 0o640, group)
        self._writer = f"monitor {os.getpid()} on {os.uname().nodename}"
        self.before: tuple[Entry, ...] = ()
        """what the file said before the first write"""
        self._said = ""
        self._serial, self.last_generation, self._last_mtime = self._previous()

    def keep(self, entries: tuple[Entry, ...], now: float, heartbeat: float) -> None:
        """Write the table where the file says something else, or has been still for `heartbeat` seconds.

        A failure is said once, and tried again with the next call. `now` is monotonic seconds.
        """
        still = now - self.written_at
        due = still >= heartbeat or (still >= SESSIONS_INTERVAL and entries != self.entries)
        if self.entries is not None and not due and _same_but_sessions(entries, self.entries) and self._file.intact():
            return
        try:
            self.publish(entries)
            self._said = ""
        except OSError as error:
            why = f"address.text cannot be written: {error.strerror}; adaptors go on with the last one"
            if why != self._said:
                self._said = why
                log.error("%s", why)

    def publish(self, entries: tuple[Entry, ...]) -> None:
        """Write the table. Raises OSError; the file before stays whole then."""
        text = write(
            Table(self._serial + 1, entries), self._writer, time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
        )
        mtime = max(time.time_ns(), self._last_mtime + LEAST_STEP)
        self._file.write(text.encode(), mtime)
        self._last_mtime = mtime
        self._serial += 1
        self.entries = entries
        self.written_at = time.monotonic()

    def _previous(self) -> tuple[int, int, int]:
        """Serial, highest generation and mtime of the file that is there, so that all three go on rising."""
        mtime = 0
        try:
            mtime = self._path.stat().st_mtime_ns
            table = parse(self._path.read_text("utf-8"))
        except (OSError, UnicodeDecodeError, AddressFileError):
            return 0, 0, mtime
        self.before = table.entries
        return table.serial, max((entry.identity.generation for entry in table.entries), default=0), mtime


def _same_but_sessions(one: tuple[Entry, ...], other: tuple[Entry, ...]) -> bool:
    """Whether the same AppServers may be sent the same visitors."""
    return [(entry.identity, entry.state) for entry in one] == [(entry.identity, entry.state) for entry in other]
