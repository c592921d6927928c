"""What the next monitor has to know of the AppServers of this one: `state.json` in the run folder.

It says of each which process it is (pid, start time, boot), where it listens, and what was decided about it.
The intent is written before the fork, with pid 0: an AppServer that the arbiter had no time to write down has
had no handover either, and ends by itself.
"""

from __future__ import annotations

import contextlib
from pathlib import Path

import msgspec
from msgspec import Struct

from lbadaptor.contract.address import Address, Identity
from lbadaptor.log import logs, texts
from monitor.arbiter.files.atomic_file import AtomicFile
from monitor.contract.processes import boot_id
from monitor.policy.problems import Problems
from monitor.policy.record import Record
from monitor.policy.states import Life

log = logs.logger("lbmonitor")


class Known(Struct, frozen=True):
    """One AppServer. Times are monotonic seconds, which go on until the next boot."""

    slot: int
    generation: int
    pid: int
    started: int
    """clock ticks between boot and its start: pid and this are its identity (proc_pid_stat(5))"""
    host: str
    port: int
    life: str
    before_failing: str
    leaving: list[str]
    undrained: bool
    since: float
    born: float
    standby: bool = False
    ready_at: float | None = None
    """None: it has not been ready yet"""
    own_folder: str = ""
    ticket_cookie: str = ""
    """the name under which it hands out its ticket; empty: unknown"""
    needs_more: bool = False
    """`hard_memory` is no limit for it"""

    @classmethod
    def of(
        cls, record: Record, pid: int, started: int, address: Address, own_folder: str, ticket_cookie: str = ""
    ) -> Known:
        """What is to be known of an AppServer. `pid` 0: it is about to be forked."""
        return cls(
            *record.identity,
            pid=pid,
            started=started,
            host=address.host,
            port=address.port,
            life=record.life.value,
            before_failing=record.before_failing.value,
            leaving=sorted(record.leaving),
            undrained=record.undrained,
            since=record.since,
            born=record.born,
            standby=record.standby,
            ready_at=record.ready_at,
            own_folder=own_folder,
            ticket_cookie=ticket_cookie,
            needs_more=record.needs_more,
        )

    @property
    def record(self) -> Record:
        """For the plan of the monitor that comes after."""
        return Record(
            *self.identity,
            since=self.since,
            born=self.born,
            standby=self.standby,
            ready_at=self.ready_at,
            life=Life(self.life),
            before_failing=Life(self.before_failing),
            leaving=set(self.leaving),
            undrained=self.undrained,
            needs_more=self.needs_more,
        )

    @property
    def identity(self) -> Identity:
        return Identity(self.slot, self.generation)

    @property
    def address(self) -> Address:
        return Address(self.host, self.port)


class _State(Struct, frozen=True):
    boot: str
    last_generation: int
    appservers: list[Known]


class StateFile:
    """Written whole or not at all; read once, by the monitor that comes after."""

    def __init__(self, path: Path, problems: Problems | None = None) -> None:
        self.last_generation = 0
        self._problems = Problems() if problems is None else problems
        self._path = path
        self._file = AtomicFile(path, 0o600)
        self._boot = boot_id()
        self._written: bytes = b""

    def read(self) -> list[Known]:
        """What the monitor before wrote; nothing when there was none, or the machine was rebooted since."""
        try:
            state = msgspec.json.decode(self._path.read_bytes(), type=_State)
        except FileNotFoundError:
            return []
        except (OSError, msgspec.DecodeError) as error:
            log.error("%s: %s; going by address.text", self._path, texts.what(error))
            return []
        self.last_generation = state.last_generation
        if state.boot != self._boot:
            log.info("%s is from before a reboot", self._path)
            return []
        return state.appservers

    def write(self, appservers: list[Known], last_generation: int) -> None:
        """Write it where it says something else, or is not what was written last.

        A failure is said once, and tried again with the next call.
        """
        data = msgspec.json.encode(_State(self._boot, last_generation, appservers))
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
        """There is nothing left to know."""
        with contextlib.suppress(OSError):
            self._path.unlink(missing_ok=True)
