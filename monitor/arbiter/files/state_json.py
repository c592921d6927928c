"""`state.json` in the run folder: what the next monitor has to know of the AppServers of this one.

It holds each `Life` whole, but for what a monitor has to see for itself (`Supervision`). A life is written before its
process is forked, with pid 0: an AppServer whose pid was never written has not been told what to serve either, and
ends by itself.

The format is that of every release so far: each reads what another has written, as an upgrade or a return to the
release before requires. Fields that a release does not know are left out; those that are missing have their defaults.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable
from pathlib import Path

import msgspec
from msgspec import Struct

from lbadaptor.log import logs, texts
from monitor.arbiter.files.atomic_file import AtomicFile
from monitor.contract.processes import boot_id
from monitor.policy.life import Life, Supervision
from monitor.policy.problems import Problems

log = logs.logger("lbmonitor")


class _Content(Struct, frozen=True):
    boot: str
    last_generation: int
    appservers: list[Life]


_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder(_Content).decode


class StateFile:
    """Written whole or not at all; read once, by the next monitor."""

    def __init__(self, path: Path, problems: Problems | None = None) -> None:
        self.last_generation = 0
        self._problems = Problems() if problems is None else problems
        self._path = path
        self._file = AtomicFile(path, 0o600)
        self._boot = boot_id()
        self._written: bytes = b""

    def read(self) -> list[Life]:
        """The lives that the monitor before wrote; none when there is no file, or the machine was rebooted since."""
        try:
            content = _decode(self._path.read_bytes())
        except FileNotFoundError:
            return []
        except (OSError, msgspec.DecodeError) as error:
            log.error("%s: %s; going by address.text", self._path, texts.what(error))
            return []
        self.last_generation = content.last_generation
        if content.boot != self._boot:
            log.info("%s is from before a reboot", self._path)
            return []
        return content.appservers

    def write(self, lives: Iterable[Life], last_generation: int) -> None:
        """Write the file if its content has changed, or if the file is not what was written last.

        A failure is logged once; the next call tries again.
        """
        appservers = [msgspec.structs.replace(life, supervision=Supervision()) for life in lives]
        data = _encode(_Content(self._boot, last_generation, appservers))
        if data == self._written and self._file.intact():
            return
        try:
            self._file.write(data)
        except OSError as error:
            self._problems.begin(
                "state.json",
                f"{self._path} cannot be written: {texts.what(error)}; a monitor that comes after goes by "
                "address.text",
            )
        else:
            self._written = data
            self._problems.end("state.json", f"{self._path} is written again")

    def delete(self) -> None:
        """No AppServer is left."""
        with contextlib.suppress(OSError):
            self._path.unlink(missing_ok=True)
