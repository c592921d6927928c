"""`lbctl check`: one line and an exit status for Nagios, Icinga and the like (monitoring-plugins' guidelines)."""

from __future__ import annotations

import time
from enum import IntEnum
from typing import Any

from lbadaptor.contract.errors import SettingsError
from lbadaptor.log import texts
from monitor.contract import client
from monitor.contract.client import NoAnswer, NotAllowed
from monitor.ctl.commands import which_monitor
from monitor.ctl.commands.base import Command
from monitor.ctl.commands.which_monitor import Which
from monitor.ctl.terminal.times import duration

STALE = 15.0
"""Seconds: a status that is older comes from a monitor that does not get on."""


class Level(IntEnum):
    """The exit statuses of a plugin."""

    OK = 0
    WARNING = 1
    CRITICAL = 2
    UNKNOWN = 3


def run(which: Which) -> int:
    """The exit status."""
    try:
        level, text = judge(client.ask(which_monitor.control_socket(which)), time.time())
    except (NotAllowed, SettingsError) as error:
        level, text = Level.UNKNOWN, str(error)
    except NoAnswer as error:
        level, text = Level.CRITICAL, str(error)
    print(f"{level.name}: {texts.clean(text)}")
    return level


def judge(status: dict[str, Any], now: float) -> tuple[Level, str]:
    """How good a status is, and why, with performance data. `now` is unix seconds."""
    servers, wanted = status["appservers"], status["servers"]
    good = sum(server["state"] == "OK" and not server["standby"] for server in servers)
    sessions = sum(server["sessions"] for server in servers)
    age = now - status.get("time", now)
    faults = []
    if age > STALE:
        faults.append(f"the monitor has reported nothing for {duration(age)}")
    if status["stopping"]:
        faults.append("everything is being ended")
    for server in servers:
        if server["state"] in ("FAILING", "BACKOFF"):
            faults.append(
                f"slot {server['slot']} is {server['state']}" + (f" ({server['why']})" * bool(server["why"]))
            )
    if status["release"].startswith("failed: "):
        faults.append(f"the release has {status['release']}")
    faults += status.get("problems", ())
    machine = status.get("machine", {})
    leaving, empty = machine.get("leaving", False), machine.get("empty", False)
    level = Level.WARNING if faults or (good < wanted and not leaving) else Level.OK
    if age > STALE or not (good or empty):
        level = Level.CRITICAL
    said = [f"{good} of {wanted} AppServers OK, {texts.count(sessions, 'session')}", *faults]
    if leaving:
        said.append("this machine is leaving, and empty" if empty else "this machine is leaving")
    text = "; ".join(said)
    return level, f"{text.replace('|', '/')} | servers={good} sessions={sessions}"


command = Command(
    "check",
    "say in one line whether all is well, for a monitoring system",
    run,
    examples=["lbctl check", "lbctl check --socket /run/lbadaptor/status.sock"],
    more="The exit status is 0 (OK), 1 (WARNING), 2 (CRITICAL) or 3 (UNKNOWN), as Nagios and Icinga have it.",
)
