"""The requests at work, as people are shown them."""

from __future__ import annotations

from typing import Any

from monitor.ctl.terminal.times import duration

STUCK = 10.0
"""Seconds at work after which a request may be stuck."""


Named = tuple[int, dict[str, Any]]
"""A slot, and what the AppServer there tells of a request at work."""


def oldest(status: dict[str, Any]) -> list[Named]:
    """The requests at work that the AppServers have named, the oldest first."""
    found = [(server["slot"], one) for server in status["appservers"] for one in server.get("at_work") or ()]
    return sorted(found, key=lambda named: -named[1]["seconds"])


def name(request: dict[str, Any]) -> str:
    """Method, path, and the id if it has one."""
    given = f" ({request['id']})" if request.get("id") else ""
    return f"{request['method']} {request['path']}{given}"


def note(status: dict[str, Any]) -> str:
    """A line on those that may be stuck; empty: there are none."""
    stuck = [(slot, one) for slot, one in oldest(status) if one["seconds"] > STUCK]
    if not stuck:
        return ""
    slot, first = stuck[0]
    return (
        f"note: requests at work for more than {STUCK:g} s: {len(stuck)} (see `lbctl top`). "
        f"The oldest: {name(first)} in slot {slot}, for {duration(first['seconds'])}."
    )
