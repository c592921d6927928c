"""The settings that an adaptor goes by: those that the monitor has accepted; without a monitor, the file's own."""

from __future__ import annotations

import os
from pathlib import Path

from lbadaptor.contract.errors import SettingsError
from lbadaptor.contract.settings import snapshot
from lbadaptor.contract.settings.snapshot import Snapshot
from lbadaptor.log import logs, texts

log = logs.logger("lbadaptor")


class AcceptedSettings:
    """Of one lbadaptor.toml. One thread at a time may use it."""

    def __init__(self, config: Path) -> None:
        self._config = config
        self._path: Path | None = None
        """of settings.json"""
        self._stamp: tuple[int, int, int] | None = None
        self._said = ""

    def first(self) -> Snapshot:
        """What to go by at the start. Raises SettingsError where there is neither a good file nor a settings.json."""
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
        """What to go by from now on; None: as before. Costs one stat where nothing changed. Never raises."""
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
            return None  # no monitor has run yet, or one of a release that writes none
        except (OSError, SettingsError) as error:
            self._say(f"{path}: {texts.what(error)}")
            return None
        if not found.is_of(self._config):
            self._say(f"{path} is of {' or '.join(dict.fromkeys(found.config))}, not of {self._config}")
            return None
        self._stamp = stamp
        self._said = ""
        return found

    def _say(self, what: str) -> None:
        """Say what is wrong, once until it is another thing."""
        if what != self._said:
            self._said = what
            log.warning("lbadaptor: %s; going on without it", what)
