"""Ending whatever runs from a run folder, with or without a monitor: `lbctl stop --all`."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Iterator
from pathlib import Path

from lbadaptor.address import parse
from lbadaptor.appserver.handover import STOP
from lbadaptor.errors import AddressFileError, KeyFileError
from lbadaptor.settings import Settings
from lbadaptor.ticket import read_keys
from monitor import runfolder
from monitor.child import Child
from monitor.messages import Probed, Target
from monitor.probe import Line
from monitor.state import StateFile, start_time

MARGIN = 5.0
"""Seconds beyond the AppServers' own grace."""
LOOK = 0.05


def end(settings: Settings) -> tuple[int, int]:
    """End the monitor, if there is one, and every AppServer. How many AppServers were left over; how many had to
    be killed. Blocks for twice `stop_grace`, about, at most."""
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
    return len(children), len(killed)


def _end_monitor(folder: Path, grace: float) -> None:
    """Ask the monitor that has the run folder to end, and wait until it has."""
    try:
        descriptor = runfolder.opened(folder)
    except OSError:
        return
    try:
        deadline = time.monotonic() + grace
        asked = False
        while not runfolder.locked(descriptor) and time.monotonic() < deadline:
            if not asked and (pid := runfolder.owner(folder)):
                asked = True
                os.kill(pid, STOP)
            time.sleep(LOOK)
    except ProcessLookupError:
        return
    finally:
        os.close(descriptor)


def _living(settings: Settings) -> Iterator[Child]:
    """The AppServers that live: those of state.json, and those of address.text that show the right key."""
    found = set()
    for known in StateFile(settings.run_folder / "state.json").read():
        found.add(known.identity)
        try:
            yield Child.adopt(known.pid, known.started)
        except OSError:
            continue
    try:
        entries = parse(settings.address_file.read_text("utf-8")).entries
        keys = read_keys(settings.key_file)
    except (OSError, UnicodeDecodeError, AddressFileError, KeyFileError):
        return
    for entry in entries:
        if entry.identity in found:
            continue
        try:
            target = Target(*entry.identity, *entry.address, keys.probe_key(entry.ticket))
            with contextlib.closing(Line(target, settings.monitor.probe_timeout)) as line:
                answer = line.probe()
            if isinstance(answer, Probed):
                yield Child.adopt(answer.vitals.pid, start_time(answer.vitals.pid))
        except (OSError, KeyFileError):
            continue
