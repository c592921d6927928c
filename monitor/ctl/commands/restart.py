"""`lbctl restart`: order a release, or that one AppServer is replaced, and wait until it is done."""

from __future__ import annotations

import contextlib
import sys
import time
from typing import Any

import click

from monitor.contract import client
from monitor.contract.orders import ORDERS
from monitor.ctl.commands import order, which_monitor
from monitor.ctl.commands.which_monitor import Which
from monitor.ctl.terminal import progress


def _seconds(text: str) -> float:
    with contextlib.suppress(ValueError):
        if 0 < (seconds := float(text)) < float("inf"):
            return seconds
    raise click.BadParameter(f"a number of seconds greater than 0 is wanted, not {text!r}")


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
    return progress.follow(look, _write if bar else _write_errors_apart, time.sleep, bar=bar, limit=limit)


def _write(text: str) -> None:
    print(text, end="", flush=True)


def _write_errors_apart(text: str) -> None:
    """What went wrong goes to standard error."""
    print(text, end="", flush=True, file=sys.stderr if text.startswith("lbctl: ") else sys.stdout)


command = order.of(
    ORDERS["restart"],
    run,
    [
        click.Option(["--no-wait"], is_flag=True, help="Do not wait until all are replaced."),
        click.Option(
            ["--wait"],
            type=_seconds,
            metavar="SECONDS",
            help="Wait so long at most; the release goes on after that.",
        ),
    ],
)
