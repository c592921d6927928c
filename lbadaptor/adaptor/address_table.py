"""address.text as an adaptor sees it: read when it has changed; the last good table is kept."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable
from pathlib import Path

from lbadaptor.contract.address import MAX_BYTES, Table, parse
from lbadaptor.contract.errors import AddressFileError
from lbadaptor.log import logs, texts
from lbadaptor.log.once import Once

log = logs.logger("lbadaptor")

STALE = 45.0
"""Seconds. The monitor rewrites the file every 15 s at least, so an older file shows that the monitor is gone."""


class AddressTable:
    """The table of AppServers. To check whether the file has changed costs one stat. Any thread may use it.

    `on_change` is called with each new table, before any request goes by it.
    """

    def __init__(self, path: Path, on_change: Callable[[Table], None]) -> None:
        self._path = str(path)
        self._on_change = on_change
        self._table = Table()
        self._stamp: tuple[int, int, int] | None = None
        """of the file that was read last: time, inode and size"""
        self._lock = threading.Lock()
        self._problems = Once()
        self._checked = float("-inf")
        """monotonic seconds"""
        self.abandoned = False
        """at the last look nobody had written the file for STALE seconds, or it was not there"""

    def table(self, max_age: float = 0.0) -> Table:
        """The last good table; empty if there never was one. Never raises.

        The file is checked, unless it was checked in the last `max_age` seconds.
        """
        now = time.monotonic()
        if now - self._checked >= max_age:
            self._check()
            self._checked = now  # not earlier: while one thread reads the new table, no other may go by the old one
        return self._table

    def _check(self) -> None:
        try:
            status = os.stat(self._path)
        except OSError as error:
            self.abandoned = True
            self._warn(f"{self._path}: {texts.what(error)}; is the monitor running?")
            return
        self.abandoned = time.time() - status.st_mtime > STALE
        stamp = (status.st_mtime_ns, status.st_ino, status.st_size)
        if stamp != self._stamp:
            self._read(stamp)
        elif self.abandoned:
            self._warn(f"{self._path} is older than {STALE:.0f} s: the monitor is gone; going on with its last table")

    def _read(self, stamp: tuple[int, int, int]) -> None:
        with self._lock:
            if stamp == self._stamp:
                return
            try:
                with open(self._path, "rb") as file:
                    data = file.read(MAX_BYTES + 1)
                if len(data) > MAX_BYTES:
                    raise AddressFileError(1, f"more than {MAX_BYTES} bytes")
                table = parse(data.decode(), self._table)
            except OSError as error:
                self._warn(f"{self._path}: {texts.what(error)}")
                return  # perhaps only for want of a descriptor: the next request tries again
            except UnicodeDecodeError as error:
                self._warn(f"{self._path}: byte {error.start} is not UTF-8; going on with the last good table")
            except AddressFileError as error:
                self._warn(f"{self._path}, {error}; going on with the last good table")
            else:
                self._on_change(table)
                self._table = table
                self._problems.over()
            self._stamp = stamp

    def _warn(self, text: str) -> None:
        """Log a problem once, until there is another one or none."""
        if self._problems.first(text):
            log.warning("lbadaptor: %s", text)
