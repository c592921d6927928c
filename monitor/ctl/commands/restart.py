"""`lbctl restart`: order a release, or that one AppServer is replaced, and wait until it is done."""

from __future__ import annotations

import sys
import time
from typing import Any

import click

from monitor.contract import client
from monitor.contract.orders import ORDERS
from monitor.ctl.commands import base, order, which_monitor
from monitor.ctl.commands.which_monitor import Which
from monitor.ctl.terminal import progress


def run(which: Which, slot: int | None, now: bool, no_wait: bool, wait: float | None) -> int:
    """The exit status; 1 when not all are replaced. Blocks until they are. Raises LbadaptorError."""
    if no_wait and wait is not None:
        raise click.UsageError("--no-wait and --wait exclude each other")
    path = which_monitor.control_socket(which)
    before = {} if slot is None else client.ask(path)
    print(order.give(which, "restart", slot, now=now), flush=True)
    if no_wait:
        return 0

    def look() -> dict[str, Any]:
        status = client.ask(path)
        return status if slot is None else progress.of_slot(status, slot, progress.generation(before, slot))

    bar = sys.stdout.isatty()
    limit = float("inf") if wait is None else wait
    return progress.follow(look, progress.writer(bar), time.sleep, bar=bar, limit=limit)


command = order.of(
    ORDERS["restart"],
    run,
    [
        click.Option(["--no-wait"], is_flag=True, help="Do not wait until all are replaced."),
        base.wait("Wait so long at most; the release goes on after that."),
    ],
)
