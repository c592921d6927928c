"""`lbctl drain`: drain one AppServer, or the whole machine, and wait until that is empty."""

from __future__ import annotations

import sys
import time
from functools import partial
from pathlib import Path
from typing import Any

import click

from monitor.contract import client
from monitor.contract.client import NoAnswer
from monitor.contract.orders import ORDERS
from monitor.ctl.commands import base, order, which_monitor
from monitor.ctl.commands.which_monitor import Which
from monitor.ctl.terminal import leaving, progress

PATIENCE = 30.0
"""Seconds for which the monitor need not answer, while it is upgraded or started anew."""


def run(which: Which, slot: int | None, wait: float | None, **options: bool) -> int:
    """The exit status; 1 when the machine is not empty in time. Blocks for `wait` seconds. Raises LbadaptorError."""
    if wait is not None and not options["all"]:
        raise click.UsageError("--wait goes with --all")
    print(order.give(which, "drain", slot, **options), flush=True)
    if wait is None:
        return 0
    path = which_monitor.control_socket(which)
    bar = sys.stdout.isatty()
    return leaving.follow(partial(_look, path), progress.writer(bar), time.sleep, bar=bar, limit=wait)


def _look(path: Path) -> dict[str, Any]:
    """The status, over a restart of the monitor too. Raises NoAnswer after PATIENCE."""
    until = time.monotonic() + PATIENCE
    while True:
        try:
            return client.ask(path)
        except NoAnswer:
            if time.monotonic() >= until:
                raise
        time.sleep(progress.POLL_INTERVAL)


command = order.of(
    ORDERS["drain"],
    run,
    [base.wait("With --all: wait so long at most until the machine is empty; it goes on leaving after that.")],
)
