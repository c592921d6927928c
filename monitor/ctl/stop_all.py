"""Ending whatever runs from a run folder, with or without a monitor: `lbctl stop --all`."""

from __future__ import annotations

import contextlib
import os
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

from lbadaptor.appserver.process.messages import STOP
from lbadaptor.contract.address import Entry, parse
from lbadaptor.contract.errors import AddressFileError, KeyFileError, LbadaptorError
from lbadaptor.contract.settings import Settings
from lbadaptor.contract.ticket import read_keys
from lbadaptor.log import texts
from monitor.arbiter.files import run_folder
from monitor.arbiter.files.state_json import StateFile, start_time
from monitor.arbiter.processes.child import Child
from monitor.arbiter.processes.discovery import discover
from monitor.arbiter.processes.process_environment import lock_own_folders, old_own_folders, removal
from monitor.contract.messages import Probed, Target
from monitor.contract.peers import belongs
from monitor.watcher.probe import Line


class LeftRunning(LbadaptorError):
    """What was to be ended runs on."""


MARGIN = 5.0
"""Seconds beyond the AppServers' own grace."""
LOOK = 0.05


def end(settings: Settings) -> tuple[int, int]:
    """End the monitor, if there is one, and every AppServer. How many AppServers were left over; how many had to
    be killed. Raises LeftRunning. Blocks for twice `stop_grace`, about, at most."""
    grace = settings.monitor.stop_grace + MARGIN
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

    It is who the file says, and no process that has got its pid since: the start time tells, and the lock.
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
            time.sleep(LOOK)
    except ProcessLookupError:
        return  # it ends just now, or is another process
    except OSError as error:
        raise LeftRunning(f"{error.filename or folder}: {texts.what(error)}; nothing was ended") from None


def _living(settings: Settings) -> Iterator[Child]:
    """The AppServers that live: those of state.json, and those that show the right key: of address.text, or found at
    their sockets. A pid that one of these tells is the kernel's word, too (`peers`)."""
    found = set()
    for known in StateFile(settings.run_folder / "state.json").read():
        found.add(known.identity)
        try:
            yield Child.adopt(known.pid, known.started)
        except OSError:
            continue
    entries: tuple[Entry, ...] = ()
    with contextlib.suppress(OSError, UnicodeDecodeError, AddressFileError):
        entries = parse(settings.address_file.read_text("utf-8")).entries
    try:
        keys = read_keys(settings.key_file)
    except KeyFileError:
        return
    slots = {identity.slot for identity in found} | {entry.identity.slot for entry in entries}
    lost = discover(settings, keys, slots, ports=True)
    folder = str(settings.run_folder.absolute())
    for entry in (*entries, *lost):
        if entry.identity in found:
            continue
        try:
            unix_socket = settings.unix_socket(entry.identity.slot)
            target = Target(*entry.identity, *entry.address, keys.probe_key(entry.ticket), unix_socket)
            with contextlib.closing(Line(target, settings.monitor.probe_timeout)) as line:
                answer = line.probe()
            if not isinstance(answer, Probed) or not answer.vitals.pid:
                continue
            child = Child.adopt(answer.vitals.pid, start_time(answer.vitals.pid))
            if entry in lost and not belongs(child.pid, folder):
                child.release()  # another monitor's, with the same keys
                continue
            yield child
        except (OSError, KeyFileError):
            continue
