"""`lbctl top`: requests a second, how long they last, and which ones are at work since when; on the whole screen."""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import Any

import click

from monitor.contract import client
from monitor.contract.client import NoAnswer
from monitor.ctl.commands import which_monitor
from monitor.ctl.commands.base import Command, flag
from monitor.ctl.commands.which_monitor import Which
from monitor.ctl.terminal import keys, screen
from monitor.ctl.terminal.load import shown
from monitor.ctl.terminal.rates import Interval
from monitor.ctl.terminal.screen import ALARM

INTERVAL = 2.0
"""Seconds between two looks, unless asked otherwise."""
MOST_PATIENCE = 3.0
"""Seconds after the interval for which one table waits for AppServers that have not been probed again."""
_PAUSE = 0.1


def run(which: Which, interval: float, once: bool) -> int:
    """The exit status. On a terminal it blocks until q or Ctrl-C, over a restart of the monitor too.

    Raises LbadaptorError.
    """
    path = which_monitor.control_socket(which)
    rates = Interval()
    status = client.ask(path)
    rates.look(status)
    if once or not sys.stdout.isatty():
        print("\n".join(line for line, _ in shown(_later(path, rates, interval), rates)))
        return 0
    _draw(path, rates, interval, status)
    return 0


def _later(path: Path, rates: Interval, interval: float) -> dict[str, Any]:
    """The status after an interval, in which all AppServers were probed once more if they can be."""
    time.sleep(interval)
    until = time.monotonic() + MOST_PATIENCE
    status = client.ask(path)
    while not rates.look(status) and time.monotonic() < until:
        time.sleep(_PAUSE)
        status = client.ask(path)
    return status


def _draw(path: Path, rates: Interval, interval: float, status: dict[str, Any]) -> None:
    """Until q is pressed."""
    with keys.taken(), screen.whole() as draw:
        lines = shown(status, rates, screen.height())
        while True:
            draw(lines)
            if keys.pressed(interval) in ("q", "Q"):
                return
            try:
                status = client.ask(path)
                rates.look(status)
                lines = shown(status, rates, screen.height())
            except NoAnswer as error:
                lines = [(f"{error}; asked again", ALARM)]


command = Command(
    "top",
    "show requests a second, how long they last, and which are at work since when",
    run,
    [
        click.Option(
            ["--interval"],
            type=click.FloatRange(0.1, 3600.0),
            default=INTERVAL,
            show_default=True,
            metavar="SECONDS",
            help="The pause between two looks.",
        ),
        flag("once", "print one table after one interval; also where standard output is no terminal"),
    ],
    ["lbctl top", "lbctl top --interval 10", "lbctl top --once"],
    more="On a terminal: again and again, until q or Ctrl-C.",
)
