"""The machines of a demo as lines on a screen: what HAProxy says of each, and what its own monitor says. Pure."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from monitor.ctl.terminal import leaving
from monitor.ctl.terminal.screen import ALARM, HEADING, WARNING, Line
from monitor.ctl.terminal.table import aligned

COLUMNS = ("machine", "HAProxy", "weight", "requests/s", "AppServers", "sessions", "Apache", "why")
_NUMBERS = (2, 3, 5)
"""Columns of numbers."""
_ANSWERS = tuple(f"hrsp_{kind}" for kind in ("1xx", "2xx", "3xx", "4xx", "5xx", "other"))

_AGENTS = re.compile(r"via agent : \w+ \((.*)\)", re.DOTALL)
"""What HAProxy makes of the agent's reason."""


@dataclass(frozen=True)
class Row:
    """A machine now."""

    name: str
    stats: dict[str, str]
    """what HAProxy tells of it; empty where HAProxy does not answer"""
    status: dict[str, Any]
    """what its monitor tells; empty where that does not answer"""
    apache: str
    """its process"""
    rate: float = 0.0
    """requests a second"""

    @property
    def words(self) -> tuple[str, str]:
        """What of it is worth a line where there is no screen."""
        return self.stats.get("status", ""), _appservers(self.status)


def answers(stats: dict[str, str]) -> int:
    """How many answers HAProxy has had from a machine."""
    return sum(int(stats.get(name) or 0) for name in _ANSWERS)


def table(rows: Sequence[Row]) -> list[Line]:
    """A heading, and a line for each."""
    lines = aligned([COLUMNS, *map(_cells, rows)], _NUMBERS)
    return list(zip(lines, [HEADING, *map(_style, rows)], strict=True))


def _style(row: Row) -> str:
    state = row.stats.get("status", "")
    if state.startswith("UP"):
        return ""
    return WARNING if "DRAIN" in state else ALARM


def _cells(row: Row) -> tuple[str, ...]:
    return (
        row.name,
        row.stats.get("status") or "no answer",
        row.stats.get("weight", ""),
        f"{row.rate:.1f}",
        _appservers(row.status),
        str(row.status["machine"]["sessions"]) if row.status else "",
        row.apache,
        _why(row.stats),
    )


def _appservers(status: dict[str, Any]) -> str:
    if not status:
        return "the monitor does not answer"
    servers = status["appservers"]
    text = f"{sum(server['state'] == 'OK' for server in servers)} of {status['servers']} OK"
    machine = status["machine"]
    return text + (f", {leaving.EMPTY}" if machine["empty"] else ", leaving" if machine["leaving"] else "")


def _why(stats: dict[str, str]) -> str:
    """The health check where it fails, else the agent's word."""
    check, agent = (stats.get(name, "").removeprefix("* ") for name in ("check_status", "agent_status"))
    if check and not check.startswith("L7OK"):
        return f"health check: {check} {stats.get('last_chk', '')}".rstrip()
    said = _AGENTS.sub(r"\1", stats.get("last_agt", ""))
    return said if agent.startswith("L7") else f"agent: {agent} {said}".rstrip()
