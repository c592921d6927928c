"""Load and requests at work, as a screen of text: what `lbctl top` draws."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from typing import Any

from monitor.ctl.terminal import at_work, leaving
from monitor.ctl.terminal.at_work import Named
from monitor.ctl.terminal.rates import Interval, Rates, total, within
from monitor.ctl.terminal.screen import ALARM, FAINT, HEADING, WARNING, Line
from monitor.ctl.terminal.table import aligned
from monitor.ctl.terminal.times import duration

SHARES = {"p50": 0.5, "p95": 0.95, "p99": 0.99}
COLUMNS = ("slot", "state", "requests/s", *SHARES, "at work", "waiting", "sessions", "memory", "CPU")
NUMBERS = range(2, len(COLUMNS))
"""Columns of numbers."""
MOST_REQUESTS = 20
LEAST_REQUESTS = 5
"""Requests at work that are shown, and how many of them have their place even on a low screen."""
SLOW = 1.0
"""Seconds at work after which a request is slow."""


def shown(status: dict[str, Any], interval: Interval, height: int | None = None) -> list[Line]:
    """The screen, for so many lines; None: as many as it takes."""
    head = [(f"PROBLEM: {text}", ALARM) for text in status.get("problems", ())]
    head.append((_summary(status), ""))
    if machine := leaving.note(status):
        head.append((machine, WARNING if status["machine"]["leaving"] else ""))
    head.append(("", ""))
    servers, requests = _appservers(status["appservers"], interval), at_work.oldest(status)[:MOST_REQUESTS]
    if height is not None:
        servers, requests = _fit(servers, requests, height - len(head) - len(("blank", "heading")))
    return [*head, *servers, ("", ""), *_requests(requests)]


def _fit(servers: list[Line], requests: list[Named], height: int) -> tuple[list[Line], list[Named]]:
    """As many of both as have room. The first line on AppServers is a heading, the last one is on all of them."""
    requests = requests[: max(LEAST_REQUESTS, height - len(servers))]
    room = max(3, height - len(requests))
    if len(servers) > room:
        cut = len(servers) - room + 1
        left_out = f"… {cut} more, for which the screen is too low"
        servers = [*servers[: -cut - 1], (left_out, FAINT), servers[-1]]
    return servers, requests


def _appservers(servers: list[dict[str, Any]], interval: Interval) -> list[Line]:
    """A heading, a line for each, and one for all together."""
    rows = [_row(server, interval.of(server)) for server in servers]
    lines = aligned([COLUMNS, *rows, _all(servers, interval)], NUMBERS)
    return list(zip(lines, [HEADING, *map(_style, servers), HEADING], strict=True))


def _summary(status: dict[str, Any]) -> str:
    servers = status["appservers"]
    ok = sum(server["state"] == "OK" for server in servers)
    at = time.strftime("%H:%M:%S", time.localtime(status["time"]))
    text = f"{at} · monitor {status['pid']} · {ok} of {status['servers']} AppServers OK"
    if status["release"]:
        done, of = status["replaced"]
        text += f" · release: {done} of {of} replaced, {status['release']}"
    return text + (" · stopping" if status["stopping"] else "")


def _style(server: dict[str, Any]) -> str:
    if server["state"] in ("FAILING", "BACKOFF"):
        return ALARM
    full = server["threads"] is not None and server["in_flight"] >= server["threads"]
    return WARNING if full or server["state"] != "OK" else ""


def _row(server: dict[str, Any], rates: Rates | None) -> Sequence[str]:
    return (
        str(server["slot"]),
        server["state"],
        *_rated(rates),
        *_counted([server]),
        "" if server["memory"] is None else f"{server['memory'] / 1e6:.0f} MB",
        "" if rates is None else f"{rates.cpu:.0%}",
    )


def _all(servers: list[dict[str, Any]], interval: Interval) -> Sequence[str]:
    rates = [found for server in servers if (found := interval.of(server)) is not None]
    together = total(rates) if rates else None
    memory = sum(server["memory"] or 0 for server in servers)
    cpu = "" if together is None else f"{together.cpu:.0%}"
    return ("all", "", *_rated(together), *_counted(servers), f"{memory / 1e6:.0f} MB", cpu)


def _rated(rates: Rates | None) -> list[str]:
    if rates is None:
        return ["", *("" for _ in SHARES)]
    return [f"{rates.requests:.1f}", *(_lasted(within(rates.durations, share)) for share in SHARES.values())]


def _lasted(seconds: float | None) -> str:
    if seconds is None:
        return ""
    if math.isinf(seconds):
        return "very long"
    return f"{seconds:g} s" if seconds >= 1 else f"{seconds * 1000:g} ms"


def _counted(servers: list[dict[str, Any]]) -> list[str]:
    """At work of how many threads, waiting, sessions. AppServers of an older release do not tell who waits."""
    answering = [server for server in servers if server["in_flight"] is not None]
    waiting = sum(server.get("waiting") or 0 for server in answering)
    busy = sum(max(0, server["in_flight"] - (server.get("waiting") or 0)) for server in answering)
    threads = sum(server["threads"] for server in answering)
    told = any(server.get("waiting") is not None for server in answering)
    sessions = sum(server["sessions"] for server in servers)
    return [f"{busy}/{threads}" if answering else "", str(waiting) if told else "", str(sessions)]


def _requests(requests: list[Named]) -> list[Line]:
    """The oldest requests at work."""
    if not requests:
        return [("no request was at work when the AppServers were last asked", FAINT)]
    rows = [("slot", "at work for", "since", "request")]  # a narrow screen cuts off the last column
    rows += [(str(slot), _age(one["seconds"]), _since(one), at_work.name(one)) for slot, one in requests]
    styles = [
        ALARM if one["seconds"] > at_work.STUCK else WARNING if one["seconds"] > SLOW else "" for _, one in requests
    ]
    return list(zip(aligned(rows, [1]), [HEADING, *styles], strict=True))


def _age(seconds: float) -> str:
    return f"{seconds:.1f} s" if seconds < at_work.STUCK else duration(seconds)


def _since(request: dict[str, Any]) -> str:
    """The time of day; the date too for what is older than half a day."""
    form = "%H:%M:%S" if request["seconds"] < 43200 else "%Y-%m-%d %H:%M:%S"
    return time.strftime(form, time.localtime(request["since"]))
