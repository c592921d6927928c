"""Every figure of the last run and the targets, for those who work on lbadaptor: RESULTS.md, TARGETS.md."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from . import page_survival, spread
from .chain import PAGES_AND_MIX, Chain
from .chains import ALONE, ARRIVING, CHAINS, DEFAULT, SCALE
from .markdown import table
from .measure import WHAT, Cell
from .page_details import memory, own
from .results import Results
from .servers import settings
from .targets import GRANIAN


def results_page(told: Results) -> str:
    text = [
        "# Results of the benchmark",
        "Written by `make bench`; do not edit. [What it means for users](../../docs/bench.md), [targets](TARGETS.md)."
        f" Machine: {told.where}. Figures are medians, with the least and the greatest in brackets.",
        "## Chains",
        "A visitor's request to the one of 4 processes that holds their session.",
        _tables(told, CHAINS, DEFAULT, (*PAGES_AND_MIX, "first", ARRIVING)),
        "## Servers alone",
        "One process, no Apache.",
        _tables(told, ALONE, "gateway", PAGES_AND_MIX),
        "## Scale",
        _cells(told, "small", SCALE, "entries-4"),
        own(told.scale),
        "## Memory",
        "All processes of a chain, none other being up, after a short load.",
        table(["chain", "PSS, MB"], [[chain.what, f"{mb:.1f}"] for chain, mb in memory(told.scale)]),
        "## How new sessions are spread",
        table(spread.HEADS, spread.rows(told.scale)),
        *page_survival.sections(told.scale),
        "## Settings",
        "Every httpd: "
        + ", ".join(settings(4))
        + "; no access log. Every backend has a port of its own on loopback, ours a Unix socket besides.",
        table(["chain", "settings"], [[chain.what, _state(chain, told.absent)] for chain in (*ALONE, *CHAINS)]),
    ]
    return "\n\n".join(text) + "\n"


def targets_page(told: Results) -> str:
    makers = {"AMD": "AMD's EPYC", "Intel": "Intel's Xeon"}
    text = [
        "# Targets of the benchmark",
        "Written by `make bench` from `tests/bench/targets.py`; do not edit. Each is a ratio, ours ÷ theirs, that"
        f" must not exceed a limit. Machine: {told.where}. *default* is lbadaptor as people get it, in both lanes."
        " Before granian its limit is "
        + ", ".join(f"{limit:g} on a processor like {makers[maker]}" for maker, limit in GRANIAN.items())
        + ". [What was aimed at before](HISTORY.md).",
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
    return table(["target", "ratio", "at most", "reached"], rows)


def _tables(told: Results, chains: Sequence[Chain], ours: str, pages: Sequence[str]) -> str:
    """One for each page that was measured."""
    names = [chain.name for chain in chains]
    measured = [page for page in pages if told.cells(page, names)]
    return "\n\n".join(
        f"### {WHAT[page][0].upper()}{WHAT[page][1:]}\n\n{_cells(told, page, chains, ours)}" for page in measured
    )


def _cells(told: Results, page: str, chains: Sequence[Chain], ours: str) -> str:
    """The last column: ours ÷ this chain."""
    what = {chain.name: chain.what for chain in chains}
    rows = []
    for cell in told.cells(page, what):
        cost, least_most = told.figures.median(cell), told.figures.spread(cell)
        row = [what[cell.chain], str(cell.connections)]
        if cost is None or least_most is None:
            rows.append([*row, "wrong answers", "", "", "", "", ""])
            continue
        rate, p50, p99 = (told.figures.median(cell, figure) or 0.0 for figure in ("rate", "p50", "p99"))
        parts = ", ".join(f"{name} {value:.0f}" for name, value in told.figures.parts(cell).items())
        ratio = told.figures.ratio(Cell(cell.connections, page, ours), cell)
        row += [f"{cost:.0f} ({least_most[0]:.0f}–{least_most[1]:.0f})", parts, f"{rate:.0f}"]
        rows.append([*row, f"{p50 / 1000:.2f}", f"{p99 / 1000:.2f}", "" if ratio is None else f"{ratio:.2f}"])
    heads = ["", "connections", "cost, µs", "of which", "requests/s", "p50, ms", "p99, ms", f"{ours} ÷ this"]
    return table(heads, rows)
