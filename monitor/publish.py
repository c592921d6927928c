"""The sole writer of address.text."""

from __future__ import annotations

import logging
import os
import time
from pathlib import Path

from lbadaptor.address import Entry, Table, parse, write
from lbadaptor.errors import AddressFileError

log = logging.getLogger("lbmonitor")

LEAST_STEP = 1_000
"""Nanoseconds between the mtimes of two writes: a reader that looks at nothing else must see each."""
SESSIONS_INTERVAL = 2.0
"""Seconds between two writes, at least, where nothing but session counts and weights has changed."""


class Publisher:
    """Writes address.text by temporary file and rename, so that no reader ever sees half of it.

    `group` is Apache's, by number; None leaves the monitor's own.
    """

    def __init__(self, path: Path, group: int | None) -> None:
        self.entries: tuple[Entry, ...] | None = None
        """what the file says; None before the first write"""
        self.written_at = float("-inf")
        """monotonic seconds"""
        self._path = path
        self._beside = path.with_name(f".{path.name}.new")
        self._group = group
        self._writer = f"monitor {os.getpid()} on {os.uname().nodename}"
        self.before: tuple[Entry, ...] = ()
        """what the file said before the first write"""
        self._stamp: tuple[int, int] | None = None
        self._said = ""
        self._serial, self.last_generation, self._last_mtime = self._previous()

    def keep(self, entries: tuple[Entry, ...], now: float, heartbeat: float) -> None:
        """Write the table where the file says something else, or has been still for `heartbeat` seconds.

        A failure is said once, and tried again with the next call. `now` is monotonic seconds.
        """
        still = now - self.written_at
        due = still >= heartbeat or (still >= SESSIONS_INTERVAL and entries != self.entries)
        if self.entries is not None and not due and _same_but_sessions(entries, self.entries) and self.intact():
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
        descriptor = os.open(self._beside, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o640)
        with open(descriptor, "w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            if self._group is not None:
                os.fchown(descriptor, -1, self._group)
            os.fchmod(descriptor, 0o640)
            mtime = max(time.time_ns(), self._last_mtime + LEAST_STEP)
            os.utime(descriptor, ns=(mtime, mtime))
            status = os.fstat(descriptor)
        os.rename(self._beside, self._path)
        self._stamp = status.st_ino, status.st_mtime_ns
        self._last_mtime = mtime
        self._serial += 1
        self.entries = entries
        self.written_at = time.monotonic()

    def intact(self) -> bool:
        """Whether the file is the one that was written last: not deleted, not edited by hand."""
        try:
            status = os.stat(self._path)
        except OSError:
            return False
        return (status.st_ino, status.st_mtime_ns) == self._stamp

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
