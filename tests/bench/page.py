"""What one run found, for people: docs/bench.md with its plots; RESULTS.md and TARGETS.md beside this file."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from . import page_survival
from .chains import ALONE, CHAINS, PAGES_AND_MIX, SCALE, Chain
from .load import VISITORS
from .measure import WHAT, Cell
from .plot import bars, lines
from .results import FILE, Results
from .servers import CHECKOUT, settings
from .targets import ALL as CONNECTIONS

DOCS = CHECKOUT / "docs"
PLOTTED = 16
"""Connections, where a plot or a table shows one number of them."""
BARS = f"Cost of a request (100 bytes), {PLOTTED} connections"
BARS_ALONE = f"Cost of a request (100 bytes) in one server process, {PLOTTED} connections"
LINES = "Cost of a request (100 bytes), by the number of connections"
PARTS = {
    "appservers": "the application's processes",
    "backend": "the application's processes",
    "httpd": "Apache",
    "haproxy": "HAProxy",
    "httpd, backends": "all processes together",
    "httpd, Passenger, backends": "all processes together",
}
"""The parts of a chain, as a plot names them."""
OTHERS_AT = 4
"""Connections, where the page is not the one of 100 bytes."""
COMPARED = tuple(chain for chain in CHAINS if chain.name != "balancer-gateway")
COMPARED_ALONE = tuple(chain for chain in ALONE if chain.name != "gateway-bare")
"""What somebody might use."""
COLUMNS = {
    "large": "100 kB",
    "upload": "upload of 1 MB",
    "compute": "computes 2 ms",
    "wait": "waits 20 ms",
    "mix": "100 bytes, beside slow ones",
}
SCALE_WORDS = {
    "reload_ms": "read address.text with 1,000 AppServers, ms",
    "reloads_unchanged": "reads of an unchanged address.text at 1,000 looks",
    "adaptor_mb": "the adaptor in an Apache process, beyond mod_wsgi without one, MB",
    "appserver_mb": "an AppServer, beyond Python's own server with the same application, MB",
    "arbiter_mb": "the monitor's arbiter with 100 AppServers, MB",
    "watcher_mb": "the monitor's watcher, MB",
    "monitor_percent": "the monitor with 100 AppServers, probed each second, % of a core",
}
CHOICE = """
**Does a visitor have to come back to the same process?** If not, and you use Apache, take mod_wsgi's daemon mode: it
is simple, and it is one package. If you need neither Apache nor sticky sessions, HAProxy in front of granian costs
least here.

**If visitors have to come back**, every other row of the first table can do that. The rows differ in what happens to
sessions:

- mod_proxy_balancer, mod_proxy_uwsgi, HAProxy and Passenger keep visitors at their process while it lives. They do
  not know whether a process still holds sessions. So when a process ends, at a release for example, the sessions in
  it end, unless you wait for as long as you guess that they need.
- lbadaptor knows which sessions live in a process. The process ends when they have ended.

**Python lane or fast lane?** The Python lane needs mod_wsgi and one `Include`. The
[fast lane](howto/fast-lane.md) needs some of Apache's modules and a generated file besides. It takes GET and HEAD of
visitors who have a ticket, and costs less. Begin with the Python lane.

**Does the cost matter to you?** Look at *computes 2 ms* in the second table: most rows hardly differ. Where the
application itself takes milliseconds for a page, as most applications do, everything else is a small part of the
cost. The difference matters for many short answers.
""".strip()


def write(told: Results) -> None:
    """Write the pages and the plots."""
    for file, text in pages(told).items():
        file.write_text(text)


def pages(told: Results) -> dict[Path, str]:
    """Every file, plots included, with its text."""
    files = {
        DOCS / f"{name}.svg": plot
        for name, plot in (
            ("bench-chains", _bars(told, COMPARED)),
            ("bench-connections", _lines(told, COMPARED)),
            ("bench-alone", _bars(told, COMPARED_ALONE, BARS_ALONE)),
        )
    }
    files[DOCS / "bench.md"] = _page(told)
    files[FILE.with_name("RESULTS.md")] = _results(told)
    files[FILE.with_name("TARGETS.md")] = _targets(told)
    return files


def _machine(told: Results) -> str:
    where = told.machine
    return f"{where['processor']}, {where['cores']} cores, Linux {where['kernel']}, Python {where['python']}"


def _page(told: Results) -> str:
    text = [
        "# What a request costs",
        "This page compares lbadaptor with what you might use instead. Each row serves the same application in 4"
        " processes; except where it says *not sticky*, a visitor's request goes to the process that holds their"
        " session. **Cost** is the processor time that one request takes in all processes on its way: Apache's (or"
        f" HAProxy's) and the application's. Measured on: {_machine(told)}. Compare the rows with each other; on"
        " another machine all figures differ.",
        f"![{BARS}](bench-chains.svg)",
        f"![{LINES}](bench-connections.svg)",
        "*All processes together*: Apache's processes and the application's were not measured apart.",
        "## When to take which",
        CHOICE,
        "## Figures",
        f"Short answers (100 bytes), {PLOTTED} connections, the least cost first:",
        _short(told),
        f"Cost in µs of other requests, {OTHERS_AT} connections. A dash means that it was not measured.",
        _others(told),
        "## What lbadaptor itself takes",
        _scale(told),
        *page_survival.sections(told.scale),
        "## The server alone",
        "One process and no Apache: the AppServer of lbadaptor beside other WSGI servers.",
        f"![{BARS_ALONE}](bench-alone.svg)",
        "## How it was measured",
        "All rows were measured in one run, in turn, in several rounds; figures are medians. The load generator wrk"
        f" sent requests over kept-alive connections, for {VISITORS} visitors with a session each, and every answer"
        " was checked. `tests/bench/RESULTS.md` has every figure with its spread, and the settings of each row."
        " `make bench` measures on your machine and writes this page.",
    ]
    return "\n\n".join(text) + "\n"


def _short(told: Results) -> str:
    found = []
    for chain in COMPARED:
        cell = Cell(PLOTTED, "small", chain.name)
        cost, rate, p99 = (told.figures.median(cell, figure) for figure in ("cpu", "rate", "p99"))
        if cost is not None and rate is not None and p99 is not None:
            found.append((cost, [_name(chain), f"{cost:.0f}", f"{rate:.0f}", f"{p99 / 1000:.1f}"]))
    rows = [row for _, row in sorted(found)]
    return _rows(["", "cost, µs", "requests/s", "99 % are answered within, ms"], rows)


def _others(told: Results) -> str:
    rows = []
    for chain in COMPARED:
        costs = [told.figures.median(Cell(OTHERS_AT, page, chain.name)) for page in COLUMNS]
        if any(costs):
            rows.append([_name(chain), *("–" if cost is None else f"{cost:.0f}" for cost in costs)])
    return _rows(["", *COLUMNS.values()], rows)


def _name(chain: Chain) -> str:
    return f"**{chain.what}**" if chain.own else chain.what


def _scale(told: Results) -> str:
    rows = [[words, f"{told.scale[key]:.1f}"] for key, words in SCALE_WORDS.items() if key in told.scale]
    return _rows(["what", "measured"], rows)


def _results(told: Results) -> str:
    text = [
        "# Results of the benchmark",
        "Written by `make bench`; do not edit. [What it means for users](../../docs/bench.md), [targets](TARGETS.md)."
        f" Machine: {_machine(told)}. Figures are medians, with the least and the greatest in brackets.",
        "## Chains",
        "A visitor's request to the one of 4 processes that holds their session.",
        _tables(told, CHAINS, "ours"),
        "## Servers alone",
        "One process, no Apache.",
        _tables(told, ALONE, "gateway"),
        "## Scale",
        _table(told, "small", SCALE, "entries-4"),
        _scale(told),
        *page_survival.sections(told.scale),
        "## Settings",
        "Every httpd: "
        + ", ".join(settings(4))
        + "; no access log. Every backend has a port of its own on loopback, ours a Unix socket besides.",
        _rows(["chain", "settings"], [[chain.what, _state(chain, told.absent)] for chain in (*ALONE, *CHAINS)]),
    ]
    return "\n\n".join(text) + "\n"


def _targets(told: Results) -> str:
    text = [
        "# Targets of the benchmark",
        "Written by `make bench` from `tests/bench/targets.py`; do not edit. Each is a ratio, ours ÷ theirs, that"
        f" must not exceed a limit. Machine: {_machine(told)}.",
        _judged(told.targets),
    ]
    return "\n\n".join(text) + "\n"


def _state(chain: Chain, absent: Mapping[str, str]) -> str:
    return f"**absent**: {absent[chain.name]}" if chain.name in absent else chain.settings


def _judged(targets: Sequence[Mapping[str, object]]) -> str:
    words = {None: "absent", True: "yes", False: "**no**"}
    rows = []
    for line in targets:
        ratio, reached = line["ratio"], line["reached"]
        shown = "–" if ratio is None else f"{ratio:.3g}"
        rows.append(
            [str(line["name"]), shown, f"{line['limit']:g}", words[reached if isinstance(reached, bool) else None]]
        )
    return _rows(["target", "ratio", "at most", "reached"], rows)


def _tables(told: Results, chains: Sequence[Chain], ours: str) -> str:
    tables = [f"### {WHAT[page].capitalize()}\n\n{_table(told, page, chains, ours)}" for page in PAGES_AND_MIX]
    return "\n\n".join(tables)


def _table(told: Results, page: str, chains: Sequence[Chain], ours: str) -> str:
    """The last column: ours ÷ this chain."""
    what = {chain.name: chain.what for chain in chains}
    rows = []
    for cell in told.cells(page, what):
        cost, spread = told.figures.median(cell), told.figures.spread(cell)
        row = [what[cell.chain], str(cell.connections)]
        if cost is None or spread is None:
            rows.append([*row, "wrong answers", "", "", "", "", ""])
            continue
        rate, p50, p99 = (told.figures.median(cell, figure) or 0.0 for figure in ("rate", "p50", "p99"))
        parts = ", ".join(f"{name} {value:.0f}" for name, value in told.figures.parts(cell).items())
        ratio = told.figures.ratio(Cell(cell.connections, page, ours), cell)
        row += [f"{cost:.0f} ({spread[0]:.0f}–{spread[1]:.0f})", parts, f"{rate:.0f}"]
        rows.append([*row, f"{p50 / 1000:.2f}", f"{p99 / 1000:.2f}", "" if ratio is None else f"{ratio:.2f}"])
    heads = ["", "connections", "cost, µs", "of which", "requests/s", "p50, ms", "p99, ms", f"{ours} ÷ this"]
    return _rows(heads, rows)


def _bars(told: Results, chains: Sequence[Chain], title: str = BARS) -> str:
    """The least cost first, as in the table."""
    rows = []
    for chain in chains:
        cell = Cell(PLOTTED, "small", chain.name)
        if cost := told.figures.median(cell):
            found = told.figures.parts(cell)
            # The median of a sum is not the sum of the medians: the bar is as long as the table says.
            scale = cost / (sum(found.values()) or 1.0)
            parts: dict[str, float] = {}
            for name in sorted(found, key=list(PARTS).index):
                parts[PARTS[name]] = parts.get(PARTS[name], 0.0) + scale * found[name]
            rows.append((cost, chain.what, parts))
    rows.sort(key=lambda row: row[0])
    return bars(title, [(what, parts) for _, what, parts in rows], "µs") if rows else ""


def _lines(told: Results, chains: Sequence[Chain]) -> str:
    rows = []
    for chain in chains:
        costs = {number: told.figures.median(Cell(number, "small", chain.name)) for number in CONNECTIONS}
        found = {number: cost for number, cost in costs.items() if cost is not None}
        if found:
            rows.append((chain.what, found))
    return lines(LINES, rows, CONNECTIONS, "µs") if rows else ""


def _rows(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    return "\n".join(f"| {' | '.join(row)} |" for row in (heads, ["---"] * len(heads), *rows))
