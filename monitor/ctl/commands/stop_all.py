"""Ending whatever runs from a run folder, with or without a monitor: `lbctl stop --all`."""

from __future__ import annotations

import contextlib
import os
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

from lbadaptor.appserver.process.messages import STOP
from lbadaptor.contract.address import Entry, Identity, parse
from lbadaptor.contract.errors import AddressFileError, KeyFileError, LbadaptorError
from lbadaptor.contract.settings import Settings
from lbadaptor.contract.ticket import read_keys
from lbadaptor.log import texts
from monitor.arbiter.files import run_folder
from monitor.arbiter.files.state_json import StateFile
from monitor.arbiter.processes.child import Child
from monitor.arbiter.processes.discovery import discover
from monitor.arbiter.processes.process_environment import lock_own_folders, old_own_folders, removal
from monitor.arbiter.processes.unrecorded import UnrecordedAppServers
from monitor.arbiter.systemd import Systemd
from monitor.contract.client import NOT_YOURS, NoAnswer
from monitor.contract.messages import Probed, Target
from monitor.contract.patience import exit_limit
from monitor.watcher.probe import Line


class LeftRunning(LbadaptorError):
    """What was to be ended runs on."""


MARGIN = 3.0
"""Seconds beyond those in which AppServers have to exit."""
POLL_INTERVAL = 0.05
"""Seconds between two looks at whether the monitor has ended."""
ANSWERS = 2
"""Answers of one process until it is known which one it is (`UnrecordedAppServers.answered`)."""


def run(settings: Settings) -> int:
    """The exit status. Blocks for twice `stop_grace`, about, at most. Raises LbadaptorError."""
    _refuse_other_users(settings.run_folder)
    # As ExecStopPost of a systemd unit: `end` takes twice the grace at most.
    Systemd(os.environ).extend(2 * _grace(settings) + MARGIN)
    left, killed = end(settings)
    print(f"nothing runs from {settings.run_folder} any more; AppServers left over: {left}, killed: {killed}")
    return 0


def _refuse_other_users(run_folder: Path) -> None:
    """Another user can neither read state.json nor signal the AppServers, and would find nothing to end.

    Raises NoAnswer.
    """
    try:
        owner = os.stat(run_folder).st_uid
    except FileNotFoundError:
        return
    except OSError as error:
        raise NoAnswer(f"{run_folder}: {texts.what(error)}") from None
    if os.geteuid() not in (0, owner):
        raise NoAnswer(f"{run_folder}: {NOT_YOURS}")


def end(settings: Settings) -> tuple[int, int]:
    """End the monitor, if there is one, and every AppServer. How many AppServers were left over; how many had to
    be killed. Raises LeftRunning. Blocks for twice `stop_grace`, about, at most."""
    grace = _grace(settings)
    _end_monitor(settings.run_folder, grace)
    children = list(_living(settings))
    for child in children:
        child.signal(STOP)
    deadline = time.monotonic() + grace
    for child in children:
        child.wait(max(0.0, deadline - time.monotonic()))
    killed = [child for child in children if not child.released]
    for child in killed:
        child.kill_group()
        child.wait(MARGIN)
    remove_own_folders(settings)
    return len(children), len(killed)


def _grace(settings: Settings) -> float:
    """Seconds to wait for the monitor's end, and again for that of AppServers which are left."""
    return exit_limit(settings.monitor.stop_grace, settings.sessions_survive) + MARGIN


def remove_own_folders(settings: Settings) -> None:
    """Remove the folders that AppServers which are gone had for themselves. Blocks while it does."""
    with contextlib.suppress(OSError):
        descriptor, alone = lock_own_folders(settings)
        for folder in old_own_folders(settings, ()) if alone else ():
            subprocess.run(removal(folder), check=False)
        if descriptor >= 0:
            os.close(descriptor)


def _end_monitor(folder: Path, grace: float) -> None:
    """Ask the monitor that has the run folder to end, and wait until it has. Raises LeftRunning.

    It is the process that the file names, and not another one with the same pid: start time and lock tell.
    """
    deadline = time.monotonic() + grace
    asked = False
    try:
        while run_folder.running(folder):
            pid, started = run_folder.owner(folder)
            if not asked and pid:
                asked = True
                monitor = Child.adopt(pid, started)
                monitor.signal(STOP)
                monitor.release()
            if time.monotonic() >= deadline:
                raise LeftRunning(f"the monitor (pid {pid or 'unknown'}) still runs from {folder}; nothing was ended")
            time.sleep(POLL_INTERVAL)
    except ProcessLookupError:
        return  # it ends just now, or is another process
    except OSError as error:
        raise LeftRunning(f"{error.filename or folder}: {texts.what(error)}; nothing was ended") from None


def _living(settings: Settings) -> Iterator[Child]:
    """The AppServers that live: those of state.json, those of address.text, and those found at their sockets.

    Blocks for a few probes of each that state.json does not record.
    """
    recorded = set()
    for known in StateFile(settings.run_folder / "state.json").read():
        recorded.add(known.identity)
        with contextlib.suppress(OSError):
            yield Child.adopt(known.pid, known.started)
    named: tuple[Entry, ...] = ()
    with contextlib.suppress(OSError, UnicodeDecodeError, AddressFileError):
        named = parse(settings.address_file.read_text("utf-8")).entries
    try:
        keys = read_keys(settings.key_file)
    except KeyFileError:
        return
    slots = {identity.slot for identity in recorded} | {entry.identity.slot for entry in named}
    unrecorded = UnrecordedAppServers(
        [entry for entry in named if entry.identity not in recorded],
        keys,
        fall=1,
        unix_socket=settings.unix_socket,
        found=discover(settings, keys, slots, ports=True),
        run_folder=str(settings.run_folder.absolute()),
    )
    try:
        for target in unrecorded.targets():
            if (child := _process(unrecorded, target, settings.monitor.probe_timeout)) is not None:
                yield child
    finally:
        unrecorded.close()


def _process(unrecorded: UnrecordedAppServers, target: Target, timeout: float) -> Child | None:
    """The process that answers there; None where none does, or where it cannot be told which one it is."""
    with contextlib.closing(Line(target, timeout)) as line, contextlib.suppress(OSError):
        for _ in range(ANSWERS):
            answer = line.probe()
            if not isinstance(answer, Probed) or Identity(target.slot, target.generation) not in unrecorded.entries:
                return None
            if (child := unrecorded.answered(answer)) is not None:
                return child
    return None
