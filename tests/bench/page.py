"""What one run found, as pages: docs/bench.md for people who ask what it costs them, its plots, and all the rest."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from . import spread
from .chain import Chain
from .chains import ALONE, ARRIVING, CHAINS, DEFAULT, FRONTED, OWN
from .load import VISITORS
from .markdown import figure, table
from .measure import Cell
from .page_details import details_page
from .page_results import results_page, targets_page
from .plot import Panel, bars, lines, panels
from .results import FILE, Results
from .servers import APACHE_THREADS, CHECKOUT, THREADS
from .targets import ALL as CONNECTIONS

DOCS = CHECKOUT / "docs"
PLOTTED = 16
"""Connections, where a plot or a table shows one number of them."""
BARS = f"Cost of a request: CPU time at {PLOTTED} connections, µs"
BARS_ALONE = f"Cost of a request in one server process: CPU time at {PLOTTED} connections, µs"
LINES = "Cost of a request, by the number of connections"
PANELS = f"Throughput (more is better), latency and memory (less is better), {PLOTTED} connections"
PARTS = {
    "appservers": "the application's processes",
    "backend": "the application's processes",
    "httpd": "Apache",
    "haproxy": "HAProxy",
    "httpd, backends": "not told apart",
    "httpd, Passenger, backends": "not told apart",
}
"""The parts of a chain, as a plot names them."""
OTHERS_AT = 4
"""Connections, where the page is not the one of 100 bytes."""
WAITING_AT = 64
"""Connections, where the application waits."""
WHERE_IT_WAITS = {"balancer-granian": "balancer-granian-threads", "haproxy-granian": "haproxy-granian-threads"}
"""The chain that a row tells of where the application waits: the same with more threads."""
COMPARED = tuple(
    chain for chain in CHAINS if chain.name not in ("balancer-gateway", FRONTED, *WHERE_IT_WAITS.values())
)
COMPARED_ALONE = tuple(chain for chain in ALONE if chain.name not in ("gateway-bare", "granian-threads"))
"""What somebody might use."""
IN_SHORT = {
    "balancer-granian": "mod_proxy_balancer + granian",
    "mod_wsgi-daemon": "mod_wsgi's daemon mode",
    "passenger": "Passenger",
    "balancer-waitress": "mod_proxy_balancer + waitress",
}
CHOICE = """
**Does a visitor have to come back to the same process?** If not, and you use Apache, take mod_wsgi's daemon mode: it
is simple, and it is one package. If you need neither Apache nor sticky sessions, HAProxy in front of granian costs
least here.

**If visitors have to come back**, every other row can do that. The rows differ in what happens to sessions:

- mod_proxy_balancer, mod_proxy_uwsgi, HAProxy and Passenger keep visitors at their process while it lives. They do
  not know whether a process still holds sessions. So when a process ends, at a release for example, the sessions in
  it end, unless you wait for as long as you guess that they need.
- lbadaptor knows which sessions live in a process. The process ends when they have ended, or
  [its sessions go on in another one](howto/survive.md).
  [What releases and kills do to sessions](bench-details.md#what-becomes-of-sessions-when-processes-end).

**By default, or in the Python lane alone?** By default Apache itself forwards most requests, in the
[fast lane](howto/fast-lane.md). The Python lane alone needs fewer of Apache's modules and no generated file, and
costs more. Take it if something in Apache's configuration speaks against the fast lane; `lbctl apache-config` tells.

**Does the cost matter to you?** Look at *computes 2 ms* below: most rows hardly differ. Where the application itself
takes milliseconds for a page, as most applications do, everything else is a small part of the cost. The difference
matters for many short answers.

**Does the memory matter to you?** lbadaptor itself takes more than the others: Python runs in Apache's processes,
too, and the monitor is two more processes. But the application measured here is tiny. Each process holds all of
yours, in every row, and that is usually most of the memory. With lbadaptor the processes can
[share what was imported](design/preload.md).

**Which processor do you have?** On a slower one with smaller caches, as on many rented machines with Intel's Xeon, a
row with much Python in it costs more beside one with granian, which is compiled. `make bench` tells for yours.
""".strip()


def write(told: Results) -> None:
    """Write the pages and the plots."""
    for file, text in pages(told).items():
        file.write_text(text)


def pages(told: Results) -> dict[Path, str]:
    """Every file, plots included, with its text."""
    return {
        DOCS / "bench-chains.svg": _bars(told, COMPARED, BARS),
        DOCS / "bench-figures.svg": _panels(told),
        DOCS / "bench-connections.svg": _lines(told),
        DOCS / "bench-alone.svg": _bars(told, COMPARED_ALONE, BARS_ALONE),
        DOCS / "bench.md": _page(told),
        DOCS / "bench-details.md": details_page(told, f"![{BARS_ALONE}](bench-alone.svg)"),
        FILE.with_name("RESULTS.md"): results_page(told),
        FILE.with_name("TARGETS.md"): targets_page(told),
    }


def _page(told: Results) -> str:
    text = [
        "# What a request costs",
        "lbadaptor beside what you could use instead. Each row serves the same application in 4 processes. Unless it"
        " says *not sticky*, a visitor's request goes to the process that holds their session. **Cost** is the"
        " processor time that one request takes in all processes on its way: Apache's (or HAProxy's) and the"
        f" application's. Measured on: {told.where}. Compare the rows with each other; on another machine all figures"
        " differ.",
        _in_short(told),
        f"![{BARS}](bench-chains.svg)",
        f"![{PANELS}](bench-figures.svg)",
        f"![{LINES}](bench-connections.svg)",
        "## When to take which",
        CHOICE,
        "## Figures",
        f"Short answers (100 bytes), {PLOTTED} connections where nothing else is said, the least cost first:",
        _short(told),
        f"Other requests: cost over {OTHERS_AT} connections, and what {WAITING_AT} connections get of an application"
        " that waits 20 ms. granian has 1 thread for short requests, as its documentation advises, and"
        f" {THREADS} where the application waits. A dash means that it was not measured.",
        _others(told),
        *_first(told),
        *_spread(told),
        "## How it was measured",
        "All rows were measured in one run, in turn, in several rounds; figures are medians. The load generator wrk"
        f" sent requests over kept-alive connections, for {VISITORS} visitors with a session each, and every answer"
        " was checked. Memory is that of all processes of a row (PSS), measured while no other row was running;"
        f" Apache had 4 processes of {APACHE_THREADS} threads in each row. [Details](bench-details.md) has more"
        " figures; `tests/bench/RESULTS.md` has every one with its spread, and the settings of each row. `make bench`"
        " measures on your machine and writes this page.",
    ]
    return "\n\n".join(filter(None, text)) + "\n"


def _in_short(told: Results) -> str:
    """How much dearer or cheaper the default is than others."""
    found = []
    for name, what in IN_SHORT.items():
        ratio = told.figures.ratio(Cell(PLOTTED, "small", DEFAULT), Cell(PLOTTED, "small", name))
        if ratio is not None:
            found.append(f"{ratio:.2f} times what it costs with {what}")
    if not found:
        return ""
    *most, last = found
    return f"In short: here a request costs with lbadaptor {', '.join(most)}{' and ' if most else ''}{last}."


def _short(told: Results) -> str:
    found = []
    for chain in COMPARED:
        cell = Cell(PLOTTED, "small", chain.name)
        cost, rate, p99 = (told.figures.median(cell, figure) for figure in ("cpu", "rate", "p99"))
        if cost is not None and rate is not None and p99 is not None:
            lonely = told.figures.median(Cell(1, "small", chain.name))
            memory = told.scale.get(f"memory_mb {chain.name}")
            row = [_name(chain), f"{cost:.0f}", figure(lonely), f"{rate:.0f}", f"{p99 / 1000:.1f}", figure(memory)]
            found.append((cost, row))
    rows = [row for _, row in sorted(found)]
    heads = ["", "cost, µs", "at 1 connection, µs", "requests/s", "99 % are answered within, ms", "memory, MB"]
    return table(heads, rows)


def _others(told: Results) -> str:
    rows = []
    for chain in COMPARED:
        costs = [told.figures.median(Cell(OTHERS_AT, page, chain.name)) for page in ("large", "upload", "compute")]
        waiting = Cell(WAITING_AT, "wait", WHERE_IT_WAITS.get(chain.name, chain.name))
        rate, p99 = told.figures.median(waiting, "rate"), told.figures.median(waiting, "p99")
        if any(costs):
            waits = [figure(rate), figure(None if p99 is None else p99 / 1000)]
            rows.append([_name(chain), *map(figure, costs), *waits])
    heads = ["", "100 kB, µs", "upload of 1 MB, µs", "computes 2 ms, µs"]
    return table([*heads, "waits 20 ms: requests/s", "99 % within, ms"], rows)


def _first(told: Results) -> list[str]:
    """Visitors who come for the first time."""
    rows = []
    for chain in OWN:
        costs = [told.figures.median(Cell(PLOTTED, page, chain.name)) for page in ("small", "first", ARRIVING)]
        if costs[1] is not None:
            rows.append([_name(chain), *map(figure, costs)])
    if not rows:
        return []
    return [
        "## Visitors without a session",
        f"Robots, and people who come for the first time. Cost of a request in µs, {PLOTTED} connections:",
        table(["", "with a session", "without a cookie", "without a cookie, begins a session"], rows),
    ]


def _spread(told: Results) -> list[str]:
    rows = spread.rows(told.scale)
    return ["## How new sessions are spread", spread.result(told.scale), table(spread.HEADS, rows)] if rows else []


def _name(chain: Chain) -> str:
    return f"**{chain.what}**" if chain.own else chain.what


OURS = frozenset(chain.what for chain in (*ALONE, *CHAINS) if chain.own)


def _bars(told: Results, chains: Sequence[Chain], title: str) -> str:
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
    return bars(title, {what: parts for _, what, parts in rows}, "µs", OURS) if rows else ""


def _panels(told: Results) -> str:
    """In the order of the bars."""
    found = []
    for chain in COMPARED:
        cell = Cell(PLOTTED, "small", chain.name)
        if cost := told.figures.median(cell):
            found.append((cost, chain, cell))
    order = [(chain, cell) for _, chain, cell in sorted(found, key=lambda one: one[0])]
    rates = {chain.what: told.figures.median(cell, "rate") or 0.0 for chain, cell in order}
    p99s = {chain.what: (told.figures.median(cell, "p99") or 0.0) / 1000 for chain, cell in order}
    memory = {chain.what: mb for chain, _ in order if (mb := told.scale.get(f"memory_mb {chain.name}")) is not None}
    columns = [Panel("requests a second", rates), Panel("99 % answered within, ms", p99s, ".1f")]
    if memory:
        columns.append(Panel("memory, MB", memory))
    return panels(PANELS, list(rates), columns, OURS) if order else ""


def _lines(told: Results) -> str:
    rows = {}
    for chain in COMPARED:
        costs = {number: told.figures.median(Cell(number, "small", chain.name)) for number in CONNECTIONS}
        found = {number: cost for number, cost in costs.items() if cost is not None}
        if found:
            rows[chain.what] = found
    return lines(LINES, rows, CONNECTIONS, ("connections", "µs of CPU a request"), OURS) if rows else ""
