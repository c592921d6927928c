"""Writes settings.json: the settings that adaptors use. Nothing else writes it."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable
from pathlib import Path

from lbadaptor.contract.errors import SettingsError
from lbadaptor.contract.settings import Settings, snapshot
from lbadaptor.log import texts
from monitor.arbiter.files.atomic_file import AtomicFile
from monitor.policy.problems import Problems

_MODE = 0o640


class SettingsFile:
    """`group` is Apache's, by number; `config` is the lbadaptor.toml that the settings come from."""

    def __init__(self, path: Path, group: int | None, config: Path, problems: Problems | None = None) -> None:
        self._path = path
        self._file = AtomicFile(path, _MODE, group)
        self._config = config
        self._written = b""
        self._problems = Problems() if problems is None else problems
        self.before = self._before()
        """the names of ticket cookies in the file of the previous monitor"""

    def write(self, settings: Settings, ticket_cookies: Iterable[str], leaving: bool = False) -> bool:
        """Write it if its content changes; whether it was written. `ticket_cookies`: of living AppServers, besides
        that of the settings. `leaving`: the whole machine is drained.

        Raises OSError; the old file stays then.
        """
        names = list(dict.fromkeys((settings.application.ticket_cookie, *ticket_cookies)))
        data = snapshot.encode(settings, names, self._config, leaving)
        if data == self._written and self._file.intact():
            return False
        self._file.write(data)
        self._written = data
        return True

    def keep(self, settings: Settings, ticket_cookies: Iterable[str], leaving: bool = False) -> bool:
        """The same, but a failure is logged once, and tried again with the next call."""
        try:
            written = self.write(settings, ticket_cookies, leaving)
        except OSError as error:
            self._problems.begin(
                "settings.json",
                f"{self._path} cannot be written: {texts.what(error)}; adaptors go on with the last one",
            )
            return False
        self._problems.end("settings.json", f"{self._path} is written again")
        return written

    def delete(self) -> None:
        """Everything has ended: adaptors that start now use lbadaptor.toml itself."""
        with contextlib.suppress(OSError):
            self._path.unlink(missing_ok=True)

    def _before(self) -> tuple[str, ...]:
        try:
            found = snapshot.read(self._path)
        except (OSError, SettingsError):
            return ()
        return found.ticket_cookies if found.is_of(self._config) else ()
