"""`lbctl sessions`: how many sessions there are, where, and when the last one ends."""

from __future__ import annotations

import json
from typing import Any

from monitor.contract import client
from monitor.contract.client import NoAnswer
from monitor.ctl.commands import base, which_monitor
from monitor.ctl.commands.base import Command, flag
from monitor.ctl.commands.which_monitor import Which
from monitor.ctl.terminal.table import aligned
from monitor.ctl.terminal.times import duration

COLUMNS = ("slot", "state", "sessions", "oldest", "last to end", "saved", "not saved")


def run(which: Which, slot: int | None, as_json: bool) -> int:
    """The exit status. Raises LbadaptorError."""
    status = client.ask(which_monitor.control_socket(which))
    servers = [one for one in status["appservers"] if slot is None or one["slot"] == slot]
    if slot is not None and not servers:
        raise NoAnswer(f"there is no AppServer in slot {slot}")
    print(json.dumps([_facts(one) for one in servers], indent=2) if as_json else shown(servers))
    return 0


def _facts(server: dict[str, Any]) -> dict[str, Any]:
    kept = server.get("kept") or {}
    return {
        **{name: server.get(name) for name in ("slot", "state", "sessions", "oldest_session", "longest_session")},
        "saved": kept.get("saved", 0),
        "unsaved": kept.get("unsaved", {}),
        "waiting": kept.get("waiting"),
    }


def shown(servers: list[dict[str, Any]]) -> str:
    """For people."""
    facts = [_facts(server) for server in servers]
    rows = []
    for one in facts:
        oldest, last = (
            duration(one[name]) if one["sessions"] and one[name] else ""
            for name in ("oldest_session", "longest_session")
        )
        unsaved = ", ".join(f"{why} {count}" for why, count in sorted(one["unsaved"].items()))
        rows.append((str(one["slot"]), one["state"], str(one["sessions"]), oldest, last, str(one["saved"]), unsaved))
    total = sum(one["sessions"] for one in facts)
    waiting = [one["waiting"] for one in facts if one["waiting"] is not None]
    more = f"; waiting in files for their visitors: {max(waiting)}" if waiting else ""
    return "\n".join((*aligned([COLUMNS, *rows]), "", f"sessions: {total}{more}"))


command = Command(
    "sessions",
    "show how many sessions each AppServer holds, since when, and until when",
    run,
    [base.slot(required=False), flag("json", "print this as JSON, for programs; seconds", "as_json")],
    ["lbctl sessions", "lbctl sessions 2"],
)
