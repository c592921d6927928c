"""address.text as an adaptor has it: read when it changed, the last good one kept."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable
from pathlib import Path

from lbadaptor.contract.address import MAX_BYTES, Table, parse
from lbadaptor.contract.errors import AddressFileError
from lbadaptor.log import logs, texts

log = logs.logger("lbadaptor")

STALE = 45.0
"""Seconds: the monitor rewrites the file every 15 at least, so an older one says that the monitor is gone."""


class AddressFile:
    """The table. To look whether it changed costs one stat; any thread may do it.

    `on_change` is called with each new table, before anybody else sees it.
    """

    def __init__(self, path: Path, on_change: Callable[[Table], None]) -> None:
        self._path = str(path)
        self._on_change = on_change
        self._table = Table()
        self._stamp: tuple[int, int, int] | None = None
        self._lock = threading.Lock()
        self._said = ""
        self._looked = float("-inf")

    def table(self, age: float = 0.0) -> Table:
        """The last good table; empty when there never was one. Never raises.

        It is looked at anew unless that was done in the last `age` seconds.
        """
        now = time.monotonic()
        if now - self._looked >= age:
            self._look()
            self._looked = now  # not before: while one thread reads the new table, no other goes by the old one
        return self._table

    def _look(self) -> None:
        try:
            status = os.stat(self._path)
        except OSError as error:
            self._say(f"{self._path}: {texts.what(error)}; is the monitor running?")
            return
        stamp = (status.st_mtime_ns, status.st_ino, status.st_size)
        if stamp != self._stamp:
            self._read(stamp)
        elif time.time() - status.st_mtime > STALE:
            self._say(f"{self._path} is older than {STALE:.0f} s: the monitor is gone; going on with its last word")

    def _read(self, stamp: tuple[int, int, int]) -> None:
        with self._lock:
            if stamp == self._stamp:
                return
            try:
                with open(self._path, "rb") as file:
                    data = file.read(MAX_BYTES + 1)
                if len(data) > MAX_BYTES:
                    raise AddressFileError(1, f"more than {MAX_BYTES} bytes")
                table = parse(data.decode())
            except OSError as error:
                self._say(f"{self._path}: {texts.what(error)}")
                return  # descriptors may have run out for a moment: look again at the next request
            except UnicodeDecodeError as error:
                self._say(f"{self._path}: byte {error.start} is not UTF-8; going on with the last good table")
            except AddressFileError as error:
                self._say(f"{self._path}, {error}; going on with the last good table")
            else:
                self._on_change(table)
                self._table = table
                self._said = ""
            self._stamp = stamp

    def _say(self, what: str) -> None:
        """Say what is wrong, once until it is another thing."""
        if what != self._said:
            self._said = what
            log.warning("lbadaptor: %s", what)
