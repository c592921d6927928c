"""docs/bench-details.md: what somebody may ask beyond docs/bench.md."""

from __future__ import annotations

from collections.abc import Mapping

from . import page_survival
from .chain import Chain
from .chains import CHAINS, DEFAULT, FRONTED
from .markdown import figure, table
from .measure import Cell
from .results import Results

OWN = {
    "reload_ms": "read address.text with 1,000 AppServers, ms",
    "first_read_ms": "read it for the first time, ms",
    "reload_few_changed_ms": "read it when 1 % of its lines have changed, ms",
    "reloads_unchanged": "reads of an unchanged address.text at 1,000 looks",
    "adaptor_mb": "the adaptor in an Apache process, beyond mod_wsgi without one, MB",
    "appserver_mb": "an AppServer, beyond Python's own server with the same application, MB",
    "arbiter_mb": "the monitor's arbiter with 100 AppServers, MB",
    "watcher_mb": "the monitor's watcher, MB",
    "monitor_percent": "the monitor with 100 AppServers, probed each second, % of a core",
}
MIX_AT = 4
"""Connections."""


def details_page(told: Results, alone: str) -> str:
    """`alone`: the plot of one server process, as Markdown."""
    text = [
        "# What a request costs: details",
        f"More figures of the run that [What a request costs](bench.md) is about. Measured on: {told.where}.",
        "## What lbadaptor itself takes",
        own(told.scale),
        *page_survival.sections(told.scale),
        "## Short answers beside slow ones",
        f"Answers of 100 bytes over {MIX_AT} connections, while 4 other connections wait 200 ms for each of theirs.",
        _mix(told),
        *_fronted(told),
        "## The server alone",
        "One process and no Apache: the AppServer of lbadaptor beside other WSGI servers.",
        alone,
    ]
    return "\n\n".join(text) + "\n"


def own(scale: Mapping[str, float]) -> str:
    """The table of what is ours alone."""
    rows = [[words, f"{scale[key]:.1f}"] for key, words in OWN.items() if key in scale]
    return table(["what", "measured"], rows)


def memory(scale: Mapping[str, float]) -> list[tuple[Chain, float]]:
    """MB of each chain that was measured, the least first."""
    found = [(chain, scale[key]) for chain in CHAINS if (key := f"memory_mb {chain.name}") in scale]
    return sorted(found, key=lambda one: one[1])


def _fronted(told: Results) -> list[str]:
    """With and without HAProxy; nothing where that was not measured."""
    rows = []
    for cell in told.cells("small", [FRONTED]):
        alone = told.figures.median(Cell(cell.connections, "small", DEFAULT))
        parts = (told.figures.median(cell, part) for part in ("haproxy", "httpd"))
        rows.append([str(cell.connections), *map(figure, (alone, told.figures.median(cell), *parts))])
    if not rows:
        return []
    return [
        "## With HAProxy in front",
        "One of [several machines](howto/machines.md), with the HAProxy in front of them: what a request costs in"
        " both together. HAProxy opens a connection to Apache for each request"
        " ([why](design/haproxy.md)).",
        table(["connections", "lbadaptor, µs", "HAProxy + lbadaptor, µs", "HAProxy's part", "Apache's part"], rows),
    ]


def _mix(told: Results) -> str:
    rows = []
    for cell in told.cells("mix", (what := {chain.name: chain.what for chain in CHAINS})):
        if cell.connections == MIX_AT:
            p99 = told.figures.median(cell, "p99")
            cost = figure(told.figures.median(cell))
            rows.append([what[cell.chain], cost, figure(None if p99 is None else p99 / 1000, ".1f")])
    return table(["", "cost, µs", "99 % are answered within, ms"], rows)
