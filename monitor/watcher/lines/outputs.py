"""Where lines go: to standard error, to the journal, or to a file. None of them waits for a reader for long."""

from __future__ import annotations

import contextlib
import os
import socket
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Protocol

from lbadaptor.log import loggers, logs, texts, writer
from lbadaptor.log.once import Once
from monitor.watcher.lines.line import Line, as_dated_text, as_json, as_text

log = logs.logger("lbmonitor.watcher")

BATCH = 64
"""Lines that are written at once, at most."""
BATCH_BYTES = 32 << 10
"""Their bytes, about: less than the backlog of standard error."""
JOURNAL = Path("/run/systemd/journal/socket")
_FILE_MODE = 0o640


class Output(Protocol):
    def put(self, lines: Sequence[Line]) -> int:
        """Write some of the lines. Returns how many; 0: none now. Never raises."""

    @property
    def done(self) -> bool:
        """Whether all that was put has been written."""

    def close(self) -> None: ...


class StandardError:
    """The log of this program, which does not wait either."""

    def __init__(self, output: writer.Output, json: bool) -> None:
        self._output = output
        self._encode = as_json if json else as_text

    @property
    def done(self) -> bool:
        self._output.flush()
        return not self._output.backlog

    def put(self, lines: Sequence[Line]) -> int:
        if not self.done:
            return 0
        data, count = _batch(lines, lambda line: f"{self._mark(line)}{self._encode(line)}\n")
        self._output.write(data)
        return count

    def _mark(self, line: Line) -> str:
        return f"<{line.priority}>" if self._output.journal else ""

    def close(self) -> None:
        """Nothing: it is this program's."""


class Journal:
    """The journal's own protocol (systemd.io/JOURNAL_NATIVE_PROTOCOL): a line has fields, by which it can be found.

    A line that it does not take goes to `otherwise`. Raises OSError.
    """

    done = True

    def __init__(self, otherwise: StandardError, json: bool, path: Path) -> None:
        self._otherwise = otherwise
        self._encode = as_json if json else as_text
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)
        try:
            self._socket.connect(os.fspath(path))
        except OSError:
            self._socket.close()
            raise

    def put(self, lines: Sequence[Line]) -> int:
        for count, line in enumerate(lines[:BATCH]):
            try:
                self._socket.send(self._datagram(line))
            except BlockingIOError:
                return count
            except OSError:
                return count + self._otherwise.put(lines[count : count + 1])
        return min(len(lines), BATCH)

    def _datagram(self, line: Line) -> bytes:
        fields = [
            f"MESSAGE={self._encode(line)}",
            f"PRIORITY={line.priority}",
            "SYSLOG_IDENTIFIER=lbmonitor",
            f"LBADAPTOR_SLOT={line.name.who}",
            f"LBADAPTOR_GENERATION={line.name.generation}",
        ]
        return "".join(f"{field}\n" for field in fields).encode("utf-8", "backslashreplace")

    def close(self) -> None:
        self._socket.close()


class File:
    """A file, which is opened again when it was moved away. It may be on a disk that is slow or full."""

    def __init__(self, path: Path, json: bool) -> None:
        self._path = path
        self._encode = as_json if json else as_dated_text
        self._descriptor = -1
        self._rest = b""
        """what was taken, and is not written yet"""
        self._problem = Once()

    @property
    def done(self) -> bool:
        return not self._rest

    def put(self, lines: Sequence[Line]) -> int:
        count = 0
        try:
            self._open()
            self._write(self._rest)
            data, count = _batch(lines, lambda line: f"{self._encode(line)}\n")
            self._write(data)
        except OSError as error:
            why = texts.what(error)
            if self._problem.first(why):
                log.error("[log] file %s: %s; the AppServers' lines wait, and it is tried again", self._path, why)
        else:
            if self._problem.over():
                log.info("the AppServers' lines go to %s again", self._path)
        return count

    def _open(self) -> None:
        """Raises OSError."""
        with contextlib.suppress(FileNotFoundError):
            if self._descriptor >= 0 and os.path.samestat(os.fstat(self._descriptor), os.stat(self._path)):
                return
        self.close()
        flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_NONBLOCK | os.O_CLOEXEC
        self._descriptor = os.open(self._path, flags, _FILE_MODE)

    def _write(self, data: bytes) -> None:
        """Raises OSError; what is left of the data is in `_rest` then."""
        self._rest = data
        while self._rest:
            self._rest = self._rest[os.write(self._descriptor, self._rest) :]

    def close(self) -> None:
        if self._descriptor >= 0:
            os.close(self._descriptor)
        self._descriptor = -1


def output(file: str, json: bool) -> Output:
    """What the settings ask for: a file, or (empty) standard error, and the journal where that is standard error."""
    if file:
        return File(Path(file), json)
    written = loggers.program.output
    otherwise = StandardError(written, json)
    if written.journal:
        with contextlib.suppress(OSError):
            return Journal(otherwise, json, JOURNAL)
    return otherwise


def _batch(lines: Sequence[Line], encode: Callable[[Line], str]) -> tuple[bytes, int]:
    """The data of some lines, and how many they are."""
    data = b""
    for count, line in enumerate(lines):
        if count == BATCH or len(data) > BATCH_BYTES:
            return data, count
        data += encode(line).encode("utf-8", "backslashreplace")
    return data, len(lines)
