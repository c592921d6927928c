"""docs/bench.md and its plots, from what one run found."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from .chains import ALONE, CHAINS, PAGES_AND_MIX, SCALE, Chain
from .load import VISITORS
from .measure import WHAT, Cell
from .plot import bars, lines
from .results import Results, machine
from .servers import CHECKOUT, settings
from .targets import ALL as CONNECTIONS

DOCS = CHECKOUT / "docs"
PLOTTED = 16
"""Connections, where a plot shows one number of them."""
SCALE_WORDS = {
    "reload_ms": "reload of 1,000 entries, ms",
    "reloads_unchanged": "reloads at 1,000 looks at an unchanged file",
    "adaptor_mb": "the adaptor in an Apache process, beyond bare mod_wsgi, MB",
    "appserver_mb": "an AppServer beyond Python's own server with the same application, MB",
    "arbiter_mb": "the arbiter of 100 AppServers, MB",
    "watcher_mb": "its watcher, MB",
    "monitor_percent": "both together, 100 AppServers probed each second, % of a core",
}


def write(told: Results) -> None:
    """Write the page and its plots."""
    where = machine()
    text = [
        "# The benchmark",
        "Made by `make bench`; do not edit. All that is compared ran side by side in one run, in turn, in several"
        " rounds. **Cost** is processor time, user and system, of all processes of the chain, for one request; it is"
        " what to compare by. Figures are medians, with the least and the greatest in brackets. wrk asked, over"
        f" kept-alive connections, for {VISITORS} visitors with a session each, and every answer was checked.",
        f"Machine: {where['processor']}, {where['cores']} cores, Linux {where['kernel']}, Python {where['python']}."
        " Absolute figures move with the machine.",
        "## Targets",
        _targets(told.targets),
        "## Chains",
        "A visitor's request to the one of 4 processes that holds their session; answers of 100 bytes.",
        _plot(told, "bench-chains", f"Cost of a request, {PLOTTED} connections", CHAINS),
        _plot_lines(told, "bench-connections", "Cost of a request over connections", CHAINS),
        _tables(told, CHAINS, "ours"),
        "## Servers alone",
        "One process, no Apache.",
        _plot(told, "bench-alone", f"Cost of a request, {PLOTTED} connections", ALONE),
        _tables(told, ALONE, "gateway"),
        "## Scale",
        _table(told, "small", SCALE, "entries-4"),
        _rows(
            ["what", "measured"],
            [[words, f"{told.scale[key]:.2f}"] for key, words in SCALE_WORDS.items() if key in told.scale],
        ),
        "## Settings",
        "Every httpd: "
        + ", ".join(settings(4))
        + "; no access log. Every backend has a port of its own on loopback, ours a Unix socket besides.",
        _rows(["chain", "settings"], [[chain.what, _state(chain, told.absent)] for chain in (*ALONE, *CHAINS)]),
    ]
    (DOCS / "bench.md").write_text("\n\n".join(text) + "\n")


def _state(chain: Chain, absent: Mapping[str, str]) -> str:
    return f"**absent**: {absent[chain.name]}" if chain.name in absent else chain.settings


def _targets(targets: Sequence[Mapping[str, object]]) -> str:
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


def _plot(told: Results, name: str, title: str, chains: Sequence[Chain]) -> str:
    rows = []
    for chain in chains:
        cell = Cell(PLOTTED, "small", chain.name)
        if told.figures.median(cell) is not None:
            rows.append((chain.what, told.figures.parts(cell)))
    return _save(name, title, bars(title, rows, "µs")) if rows else ""


def _plot_lines(told: Results, name: str, title: str, chains: Sequence[Chain]) -> str:
    rows = []
    for chain in chains:
        costs = {number: told.figures.median(Cell(number, "small", chain.name)) for number in CONNECTIONS}
        found = {number: cost for number, cost in costs.items() if cost is not None}
        if found:
            rows.append((chain.what, found))
    return _save(name, title, lines(title, rows, CONNECTIONS, "µs")) if rows else ""


def _save(name: str, title: str, plot: str) -> str:
    (DOCS / f"{name}.svg").write_text(plot)
    return f"![{title}]({name}.svg)"


def _rows(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    return "\n".join(f"| {' | '.join(row)} |" for row in (heads, ["---"] * len(heads), *rows))
