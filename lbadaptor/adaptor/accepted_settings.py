"""An adaptor's settings: what the monitor has accepted or, without a monitor, lbadaptor.toml itself."""

from __future__ import annotations

import os
from pathlib import Path

from lbadaptor.contract.errors import SettingsError
from lbadaptor.contract.settings import snapshot
from lbadaptor.contract.settings.snapshot import Snapshot
from lbadaptor.log import logs, texts
from lbadaptor.log.once import Once

log = logs.logger("lbadaptor")


class AcceptedSettings:
    """For one lbadaptor.toml. One thread at a time may use it."""

    def __init__(self, config: Path) -> None:
        self._config = config
        self._path: Path | None = None
        """of settings.json"""
        self._stamp: tuple[int, int, int] | None = None
        """of the settings.json that was read last: time, inode and size"""
        self._problems = Once()

    def first(self) -> Snapshot:
        """The settings to begin with. Raises SettingsError if neither lbadaptor.toml nor a settings.json is good."""
        settings, error, folders = snapshot.folders(self._config)
        for folder in folders:
            self._path = folder / snapshot.NAME
            found = self.changed()
            if found is not None:
                if error is not None:
                    log.warning("lbadaptor: %s; going by %s, which the monitor accepted before", error, self._path)
                return found
        if settings is None:
            assert error is not None
            raise SettingsError(f"{error}; and there is no {snapshot.NAME} of it that a monitor accepted before")
        return Snapshot(settings, (settings.application.ticket_cookie,))

    def changed(self) -> Snapshot | None:
        """The settings to go by from now on; None if nothing has changed, which costs one stat. Never raises."""
        path = self._path
        if path is None:
            return None
        try:
            status = os.stat(path)
            stamp = (status.st_mtime_ns, status.st_ino, status.st_size)
            if stamp == self._stamp:
                return None
            found = snapshot.read(path)
        except FileNotFoundError:
            return None  # no monitor has run yet, or it is of a release that writes no settings.json
        except (OSError, SettingsError) as error:
            self._warn(f"{path}: {texts.what(error)}; going on without it")
            return None
        if not found.is_of(self._config):
            configs = " or ".join(dict.fromkeys(found.config))
            self._warn(f"{path} is of {configs}, not of {self._config}; going on without it")
            return None
        self._stamp = stamp
        self._problems.over()
        return found

    def _warn(self, text: str) -> None:
        """Log a problem once, until there is another one or none."""
        if self._problems.first(text):
            log.warning("lbadaptor: %s", text)
