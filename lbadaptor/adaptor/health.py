"""The health page of one of several machines: for HAProxy, or another balancer that asks by HTTP.

It has two addresses, because two things may be true at a time: no new visitor is to come here, and those who have a
session here still reach it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable
from http import HTTPStatus

from lbadaptor.contract.address import Table
from lbadaptor.contract.headers import HOLDERS_PATH


def answer(
    start_response: Callable[..., object],
    path: str,
    table: Table,
    leaving: bool,
    more: Iterable[tuple[str, str]] = (),
) -> list[bytes]:
    """200 or 503, with the reason, by the AppServers in `table`. Waits for nothing. `more`: further headers."""
    good, why = holders(table) if path == HOLDERS_PATH else new_visitors(table, leaving)
    status = HTTPStatus.OK if good else HTTPStatus.SERVICE_UNAVAILABLE
    text = f"{why}\n".encode()
    headers = [("Content-Type", "text/plain; charset=utf-8"), ("Content-Length", str(len(text)))]
    start_response(f"{status.value} {status.phrase}", [*headers, ("Cache-Control", "no-store"), *more])
    return [text]


def new_visitors(table: Table, leaving: bool) -> tuple[bool, str]:
    """Whether new visitors may come, and why, in words."""
    if leaving:
        return False, "drain: this machine is leaving"
    if not table.ok:
        return False, f"no AppServer takes new visitors{_states(table)}"
    return True, f"up{_states(table)}"


def holders(table: Table) -> tuple[bool, str]:
    """Whether those who have a session here can reach it, and why, in words."""
    if not table.entries:
        return False, "down: no AppServer serves"
    return True, f"up{_states(table)}"


def _states(table: Table) -> str:
    """How many AppServers are in which state: `: OK 3, DYING 1`."""
    found = Counter(entry.state.value for entry in table.entries)
    return f": {', '.join(f'{state} {count}' for state, count in found.items())}" if found else ""
