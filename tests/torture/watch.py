"""Threads that observe the test: one reads address.text, one measures the processes, one reads the monitor's log."""

from __future__ import annotations

import contextlib
import os
import threading
import time
from collections.abc import Callable
from pathlib import Path

from lbadaptor.contract.address import parse
from lbadaptor.contract.errors import AddressFileError

from .records import Name, Records, Sample, Seen
from .stage import LogTail, Stage

READ_PAUSE = 0.002
SAMPLE_PAUSE = 0.5
TAIL_PAUSE = 0.02

_PAGE = os.sysconf("SC_PAGE_SIZE")


class Watch:
    """Adds to the records from `start` to `stop`."""

    def __init__(self, stage: Stage, records: Records) -> None:
        self._stage = stage
        self._records = records
        self._over = threading.Event()
        self._tail = LogTail(stage.monitor_log, records.said)
        works = (self._read, READ_PAUSE), (self._measure, SAMPLE_PAUSE), (self._tail.look, TAIL_PAUSE)
        self._threads = [threading.Thread(target=self._repeat, args=work) for work in works]
        self._last: bytes | None = b""

    def start(self) -> None:
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        self._over.set()
        for thread in self._threads:
            thread.join()
        self._tail.look()

    def _repeat(self, look: Callable[[], None], pause: float) -> None:
        try:
            while not self._over.wait(pause):
                look()
        except Exception as error:
            self._records.test_errors.append(f"{look.__qualname__}: {error!r}")

    def _read(self) -> None:
        """Read address.text."""
        self._records.looks += 1
        try:
            data: bytes | None = self._stage.address_file.read_bytes()
        except FileNotFoundError:
            data = None
        if data == self._last:
            return
        self._last = data
        now = time.time()
        if data is None:
            self._records.tables.append(Seen(now, error="there is none"))
            return
        try:
            table = parse(data.decode())
        except (AddressFileError, UnicodeDecodeError) as error:
            self._records.tables.append(Seen(now, error=str(error)))
            return
        states = {Name(*entry.identity): entry.state.value for entry in table.entries}
        self._records.tables.append(Seen(now, table.serial, states))

    def _measure(self) -> None:
        """Memory and descriptors of the processes that must not grow."""
        now = time.time()
        for role, process in self._stage.roles():
            with contextlib.suppress(OSError):
                folder = Path(f"/proc/{process.pid}")
                resident = int((folder / "statm").read_text().split()[1]) * _PAGE
                descriptors = len(os.listdir(folder / "fd"))
                self._records.samples.append(Sample(now, role, process, resident, descriptors))
