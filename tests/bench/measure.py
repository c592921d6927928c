"""One measurement: a chain, a page, a number of connections."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass, replace
from statistics import median
from typing import Any

from . import cost
from .chain import Chain
from .load import PAGES, LoadFailed, Wrk, write_plan

REFRESH = 2.0
"""Seconds between two writes of address.text, as of a monitor whose AppServers win and lose sessions."""
LONG_CONNECTIONS = 4
"""Of those who ask for the long page, in the mix."""
MIX = "mix"
WHAT = {
    **{name: page.what for name, page in PAGES.items()},
    MIX: "answers 100 bytes, while 4 connections wait 200 ms",
}


@dataclass(frozen=True, order=True)
class Cell:
    """What is measured again in every round."""

    connections: int
    page: str
    chain: str


@dataclass(frozen=True)
class Sample:
    """One measurement. Costs in µs of processor time a request, latencies in µs, rate in requests a second."""

    cell: Cell
    round: int
    cpu: float
    parts: dict[str, float]
    """the cost by part of the chain"""
    rate: float
    p50: float
    p99: float
    requests: int
    wrong: int
    example: str

    def row(self) -> dict[str, Any]:
        """For results.json."""
        row = asdict(self)
        return {**row.pop("cell"), **row}


def measure(chain: Chain, cell: Cell, number: int, seconds: float) -> Sample:
    """Blocks for `seconds`. Raises LoadFailed."""
    assert chain.built is not None
    page = "small" if cell.page == MIX else cell.page
    plans = [chain.built.servers[0].folder / f"{name}.lua" for name in (page, "long")]
    for plan, name in zip(plans, (page, "long"), strict=True):
        if not plan.exists():
            write_plan(plan, PAGES[name], chain.built.request, chain.visitors, chain.sticky)
    before = {part: cost.cpu(pids) for part, pids in chain.processes().items()}
    load = [Wrk(chain.built.port, plans[0], cell.connections, seconds)]
    try:
        if cell.page == MIX:
            load.append(Wrk(chain.built.port, plans[1], LONG_CONNECTIONS, seconds))
        chain.built.refresh()
        while not load[0].over(REFRESH):
            chain.built.refresh()
        runs = [wrk.told() for wrk in load]
    finally:
        for wrk in load:
            wrk.end()
    after = {part: cost.cpu(pids) for part, pids in chain.processes().items()}
    first, requests = runs[0], sum(run.requests for run in runs)
    parts = {part: cost.spent(before.get(part, {}), used) / max(1, requests) for part, used in after.items()}
    wrong = sum(run.failed for run in runs) or int(not requests)
    example = next((run.example or f"no answer: {run.broken}" for run in runs if run.failed), "")
    rate = first.requests / first.seconds
    return Sample(cell, number, sum(parts.values()), parts, rate, first.p50, first.p99, requests, wrong, example)


def prove(chain: Chain) -> None:
    """Show that wrong answers are found: of visitors who are at other processes than we say. Raises LoadFailed.

    It also warms the chain up: what happens at a process's first request is not measured.
    """
    assert chain.built is not None
    plan = chain.built.servers[0].folder / "false.lua"
    elsewhere = [replace(visitor, backend=f"{visitor.backend}0") for visitor in chain.visitors]
    write_plan(plan, PAGES["small"], chain.built.request, elsewhere, chain.sticky)
    wrk = Wrk(chain.built.port, plan, chain.warm_up, chain.warm_up / 64)
    try:
        run = wrk.told()
    finally:
        wrk.end()
    if not run.requests or run.wrong < run.requests:
        raise LoadFailed(f"{chain.name}: wrong answers are not found: {run}")


class Figures:
    """All samples of a run, to be asked for medians and ratios."""

    def __init__(self, samples: Iterable[Sample] = ()) -> None:
        self.samples: list[Sample] = list(samples)

    def of(self, cell: Cell, figure: str = "cpu") -> dict[int, float]:
        """A figure of a cell by round: `cpu`, `rate`, `p50`, `p99`, or the cost of a part by its name.

        Empty where any of its answers was wrong: a fast wrong answer is no figure.
        """
        samples = [sample for sample in self.samples if sample.cell == cell]
        if any(sample.wrong for sample in samples):
            return {}
        return {sample.round: self._figure(sample, figure) for sample in samples}

    @staticmethod
    def _figure(sample: Sample, figure: str) -> float:
        value: float = sample.parts.get(figure, 0.0) if figure in sample.parts else getattr(sample, figure)
        return value

    def median(self, cell: Cell, figure: str = "cpu") -> float | None:
        values = self.of(cell, figure)
        return median(values.values()) if values else None

    def spread(self, cell: Cell, figure: str = "cpu") -> tuple[float, float] | None:
        """The least and the greatest."""
        values = self.of(cell, figure).values()
        return (min(values), max(values)) if values else None

    def ratio(self, ours: Cell, theirs: Cell, figure: str = "cpu") -> float | None:
        """The median of ours ÷ theirs, each of one round; None where one of them was not measured."""
        a, b = self.of(ours, figure), self.of(theirs, figure)
        rounds = [number for number in a if b.get(number)]
        return median(a[number] / b[number] for number in rounds) if rounds else None

    def parts(self, cell: Cell) -> dict[str, float]:
        """The cost of each part of the chain, median."""
        names = {name for sample in self.samples if sample.cell == cell for name in sample.parts}
        return {name: round(self.median(cell, name) or 0.0, 1) for name in sorted(names)}
