"""Opens the files that get what AppServers say (`monitor.contract.captured`). Nothing else makes them."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

from lbadaptor.log import texts
from monitor.contract.captured import CapturedName
from monitor.policy.problems import Problems

_MODE = 0o640
_FOLDER_MODE = 0o750


class CapturedFiles:
    """Never raises."""

    def __init__(self, folder: Path, problems: Problems) -> None:
        self._folder = folder
        self._problems = problems

    def keep_folder(self) -> None:
        """Make the folder again where it was deleted: the watcher writes there, too. `open` says what is wrong."""
        if not self._folder.is_dir():
            with contextlib.suppress(OSError):
                self._folder.mkdir(mode=_FOLDER_MODE)

    def open(self, name: CapturedName) -> int | None:
        """A descriptor that appends; the caller closes it. None: there can be no file now, and the lines go to the
        monitor's standard error as they are."""
        flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
        try:
            self._folder.mkdir(mode=_FOLDER_MODE, exist_ok=True)
            descriptor = os.open(self._folder / str(name), flags, _MODE)
        except OSError as error:
            why = f"{texts.of_os_error(error)}: lines of new AppServers go to the monitor's standard error, untagged"
            self._problems.begin("captured files", why)
            return None
        self._problems.end("captured files", f"{self._folder} takes the lines of new AppServers again")
        return descriptor
