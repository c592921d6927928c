"""`runtime.json` in the run folder: what was set at run time. The arbiter alone writes it.

It survives a restart of the monitor, and one of everything; not a reboot, because the run folder is in memory.
"""

from __future__ import annotations

from pathlib import Path

import msgspec

from lbadaptor.log import logs, texts
from monitor.arbiter.files.atomic_file import AtomicFile
from monitor.policy.run_time import RunTime

log = logs.logger("lbmonitor")

NAME = "runtime.json"
_MODE = 0o600
_MAX_BYTES = 1 << 20


class RunTimeFile:
    """Written whole or not at all."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._file = AtomicFile(path, _MODE)

    def read(self) -> RunTime:
        """What the monitor before was told; nothing where there is no file, or one that is not to be read."""
        try:
            with open(self._path, "rb") as file:
                return msgspec.json.decode(file.read(_MAX_BYTES), type=RunTime)
        except FileNotFoundError:
            return RunTime()
        except (OSError, msgspec.DecodeError) as error:
            log.error("%s: %s; what was set at run time is forgotten", self._path, texts.what(error))
            return RunTime()

    def intact(self) -> bool:
        """Whether it is as it was written last."""
        return self._file.intact()

    def write(self, run_time: RunTime) -> None:
        """Raises OSError; the old file stays then."""
        self._file.write(msgspec.json.format(msgspec.json.encode(run_time), indent=2) + b"\n")
