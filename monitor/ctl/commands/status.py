"""`lbctl status`: show the AppServers, once or again and again."""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path

import click

from monitor.contract import client
from monitor.contract.client import NoAnswer
from monitor.ctl.commands import which_monitor
from monitor.ctl.commands.base import Command, flag
from monitor.ctl.commands.which_monitor import Which
from monitor.ctl.terminal import keys, screen
from monitor.ctl.terminal.table import table

INTERVAL = 1.0
"""Seconds between two looks of `--watch`."""


def run(which: Which, as_json: bool, watch: bool) -> int:
    """The exit status. With `watch` it blocks until q or Ctrl-C. Raises LbadaptorError."""
    path = which_monitor.control_socket(which)
    if watch:
        if as_json:
            raise click.UsageError("--watch and --json exclude each other")
        return _watch(path)
    status = client.ask(path)
    print(json.dumps(status, indent=2) if as_json else table(status))
    return 0


def _watch(path: Path) -> int:
    """Show it until q or Ctrl-C, over a restart of the monitor too; where that is no terminal, one after another."""
    if not sys.stdout.isatty():
        while True:
            print(_shown(path), end="\n\n", flush=True)
            time.sleep(INTERVAL)
    with keys.taken(), screen.whole() as draw:
        while True:
            draw((line, "") for line in _shown(path).splitlines())
            if keys.pressed(INTERVAL) in ("q", "Q"):
                return 0


def _shown(path: Path) -> str:
    try:
        return table(client.ask(path))
    except NoAnswer as error:
        return f"{error}; asked again"


command = Command(
    "status",
    "show the AppServers, one on a line",
    run,
    [
        flag("json", "print everything as JSON, for programs", "as_json"),
        flag("watch", "show it again every second, until q or Ctrl-C"),
    ],
    ["lbctl status", "lbctl status --watch", "lbctl status --json | jq '.appservers[].sessions'"],
)
