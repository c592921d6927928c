"""Hardships that a test brings about."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Callable

import pytest
from monitor_fixture import Site

from lbadaptor.contract.address import Identity

# What an ordinary user has by nature, root gets so (setpriv(1)): permissions count, and so do limits on processes.
HEEDS_MODES = () if os.geteuid() else ("setpriv", "--bounding-set=-dac_override,-dac_read_search")


def identities(site: Site) -> set[Identity]:
    return {entry.identity for entry in site.table.entries}


def kill(site: Site, slot: int) -> Callable[[], object]:
    """SIGKILL for the AppServer of a slot; returns what waits for its next life."""
    old = site.entry(slot)
    assert old is not None
    os.kill(site.get(slot).content["pid"], signal.SIGKILL)
    return lambda: site.wait_reborn(old)


def pause(site: Site, seconds: float) -> None:
    """Let the time pass that a test is about; the monitor must not end in it."""
    assert site.monitor is not None
    with pytest.raises(subprocess.TimeoutExpired):
        site.monitor.wait(seconds)
