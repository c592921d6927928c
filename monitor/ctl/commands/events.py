"""`lbctl events`: what happened and why; without a monitor too, as long as its run folder is there."""

from __future__ import annotations

import json
import os
import re
import sys
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import click
import msgspec

from lbadaptor.log import texts
from monitor.contract import client, events
from monitor.contract.client import NoAnswer
from monitor.ctl.commands import base, which_monitor
from monitor.ctl.commands.base import Command, flag
from monitor.ctl.commands.which_monitor import Which
from monitor.ctl.terminal.times import moment

POLL_INTERVAL = 1.0
"""Seconds between two looks of `--follow`."""
_UNITS = {"": 1.0, "s": 1.0, "min": 60.0, "m": 60.0, "h": 3600.0, "d": 86400.0}


def _ago(text: str) -> float:
    found = re.fullmatch(r"([0-9]{1,9}(?:\.[0-9]{1,3})?) ?(s|min|m|h|d|)", text)
    if found is None:
        raise click.BadParameter(f"a time such as 90s, 15min, 2h or 7d is wanted, not {text!r}")
    return float(found[1]) * _UNITS[found[2]]


def run(which: Which, since: float, slot: int | None, follow: bool, as_json: bool) -> int:
    """The exit status. With `follow` it blocks until Ctrl-C. Raises LbadaptorError."""
    path = which_monitor.control_socket(which)
    after = time.time() - since
    happened = _ask(path, after)
    silent = False
    while True:
        after = happened[-1]["time"] if happened else after
        _show(happened, slot, as_json)
        if not follow:
            return 0
        time.sleep(POLL_INTERVAL)
        try:
            happened, silent = _ask(path, after), False
        except NoAnswer as error:
            if not silent:
                print(f"lbctl: {error}; asked again", file=sys.stderr)
            happened, silent = [], True


def _ask(path: Path, after: float) -> list[dict[str, Any]]:
    """What happened after a moment. Where no monitor answers, what its file says."""
    try:
        return client.events(path, after)
    except NoAnswer:
        if not os.access(path.with_name(events.NAME), os.R_OK):
            raise
        found: list[dict[str, Any]] = msgspec.to_builtins(events.read(path.parent, after))
        return found


def _show(happened: Iterable[dict[str, Any]], slot: int | None, as_json: bool) -> None:
    for one in happened:
        if slot is None or one.get("slot") == slot:
            print(json.dumps(one) if as_json else line(one), flush=True)


def line(happened: dict[str, Any]) -> str:
    """An event for people."""
    subject = f"slot {happened['slot']}" if "slot" in happened else "-"
    facts = []
    if happened.get("pid"):
        facts.append(f"pid {happened['pid']}")
    if sessions := happened.get("sessions", 0):
        lost = happened.get("lost", 0)
        facts.append(
            f"{lost} of {texts.count(sessions, 'session')} lost" if lost else texts.count(sessions, "session")
        )
    told = ": ".join(filter(None, (", ".join(facts), texts.clean(happened.get("why", "")))))
    return f"{moment(happened['time'])}  {subject:8} {texts.clean(happened['event']):16}  {told}".rstrip()


command = Command(
    "events",
    "show what happened to AppServers and monitor, and why",
    run,
    [
        click.Option(
            ["--since"],
            type=_ago,
            default="1d",
            show_default=True,
            metavar="TIME",
            help="How far back: 90s, 15min, 2h or 7d.",
        ),
        click.Option(["--slot"], type=base.slot_number, metavar="SLOT", help="Of one slot alone."),
        flag("follow", "go on until Ctrl-C, and show each event when it happens"),
        flag("json", "print each event as a line of JSON, for programs", "as_json"),
    ],
    ["lbctl events --since 2h", "lbctl events --slot 2 --since 7d", "lbctl events --follow"],
)
