"""lbadaptor.toml as a whole: its sections (`sections`), and the paths and numbers that follow from them."""

from __future__ import annotations

import os
from pathlib import Path

from msgspec import Struct

from lbadaptor.contract.settings.sections.adaptor import AdaptorSettings
from lbadaptor.contract.settings.sections.application import Application
from lbadaptor.contract.settings.sections.appservers import AppServers
from lbadaptor.contract.settings.sections.files import Files
from lbadaptor.contract.settings.sections.log import Log
from lbadaptor.contract.settings.sections.machine import Machine
from lbadaptor.contract.settings.sections.monitor import Monitor
from lbadaptor.contract.settings.sections.sessions import NOTHING, Sessions

DEFAULT_FILE = Path("/etc/lbadaptor/lbadaptor.toml")
CAPTURED_FOLDER = "logs"
"""In the run folder: what the AppServers say."""
_LONGEST_SOCKET_PATH = 107
"""Bytes."""


class Settings(Struct, forbid_unknown_fields=True, frozen=True):
    """One lbadaptor.toml."""

    application: Application
    files: Files = Files()
    appservers: AppServers = AppServers()
    adaptor: AdaptorSettings = AdaptorSettings()
    monitor: Monitor = Monitor()
    sessions: Sessions = Sessions()
    log: Log = Log()
    machine: Machine = Machine()
    folder: str = ""
    """not a setting: the folder of the file, where relative paths begin"""

    @property
    def slots(self) -> int:
        return self.appservers.slots or 4 * (self.appservers.servers + self.appservers.standby)

    @property
    def max_dying(self) -> int:
        return self.monitor.max_dying or self.appservers.servers

    @property
    def run_folder(self) -> Path:
        return Path(self.folder, self.files.run_folder)

    @property
    def key_file(self) -> Path:
        return Path(self.folder, self.files.key_file)

    @property
    def session_folder(self) -> Path:
        """Absolute wherever `folder` is, as it is after `load`."""
        return Path(self.folder, self.sessions.folder)

    @property
    def sessions_survive(self) -> bool:
        return self.sessions.survive != NOTHING

    @property
    def address_file(self) -> Path:
        return self.run_folder / "address.text"

    @property
    def snapshot_file(self) -> Path:
        return self.run_folder / "settings.json"

    @property
    def caller_keys_file(self) -> Path:
        return self.run_folder / "callerkeys.text"

    @property
    def available_file(self) -> Path:
        return self.run_folder / "available.text"

    @property
    def sorry_page(self) -> Path | None:
        return Path(self.folder, self.adaptor.sorry_page) if self.adaptor.sorry_page else None

    @property
    def access_log(self) -> str:
        """Absolute wherever `folder` is, as it is after `load`. Empty: there is none."""
        return str(Path(self.folder, self.appservers.access_log)) if self.appservers.access_log else ""

    @property
    def control_socket(self) -> Path:
        return self.run_folder / "control.sock"

    @property
    def status_socket(self) -> Path:
        """For `status_group`: it takes no orders."""
        return self.run_folder / "status.sock"

    @property
    def captured_folder(self) -> Path:
        """What the AppServers say: a file for each."""
        return self.run_folder / CAPTURED_FOLDER

    @property
    def log_file(self) -> Path | None:
        return Path(self.folder, self.log.file) if self.log.file else None

    @property
    def socket_folder(self) -> Path:
        return self.run_folder.absolute() / "sockets"

    def unix_socket(self, slot: int) -> str:
        """Where the AppServer in a slot listens besides its port; empty: the path would be too long (unix(7))."""
        path = str(self.socket_folder / str(slot))
        return path if len(os.fsencode(path)) <= _LONGEST_SOCKET_PATH else ""

    @property
    def time_to_end_hung(self) -> float:
        """Seconds in which a hung AppServer is found and ended at the latest."""
        monitor = self.monitor
        return monitor.fall * (monitor.probe_interval + monitor.probe_timeout) + monitor.failing_limit


SECTIONS: dict[str, type[Struct]] = {
    "application": Application,
    "files": Files,
    "appservers": AppServers,
    "adaptor": AdaptorSettings,
    "monitor": Monitor,
    "sessions": Sessions,
    "log": Log,
    "machine": Machine,
}
