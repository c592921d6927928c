"""What a run found: results.json, and tables for people."""

from __future__ import annotations

import json
import os
import platform
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from .chain import Chain
from .measure import Cell, Figures, Sample
from .targets import judge, targets

FILE = Path(__file__).with_name("results.json")


@dataclass(frozen=True)
class Results:
    """Everything that one run found."""

    figures: Figures
    scale: Mapping[str, float]
    absent: Mapping[str, str]
    """chains that could not be set up, and why"""
    chains: Sequence[Chain]
    quick: bool
    seconds: float
    """how long the run took"""
    machine: Mapping[str, Any]
    """where it was measured"""

    @cached_property
    def targets(self) -> list[dict[str, Any]]:
        """Every target, judged by these figures."""
        aims = targets(self.machine["processor"])
        return [judge(aim, self.figures, self.scale, self.absent) for aim in aims]

    @property
    def where(self) -> str:
        """The machine, for people."""
        machine = self.machine
        return (
            f"{machine['processor']}, {machine['cores']} cores, Linux {machine['kernel']}, Python {machine['python']}"
        )

    def write(self) -> None:
        """Write results.json: every measurement, and `targets`."""
        content = {
            "machine": dict(self.machine),
            "quick": self.quick,
            "seconds": round(self.seconds),
            "targets": self.targets,
            "absent": dict(self.absent),
            "scale": {name: round(value, 3) for name, value in self.scale.items()},
            "chains": {chain.name: {"what": chain.what, "settings": chain.settings} for chain in self.chains},
        }
        samples = ",\n  ".join(json.dumps(sample.row(), ensure_ascii=False) for sample in self.figures.samples)
        text = json.dumps(content, indent=1, ensure_ascii=False)[:-2] + f',\n "samples": [\n  {samples}\n ]\n}}'
        beside = FILE.with_suffix(".new")
        beside.write_text(text + "\n")
        beside.rename(FILE)

    def wrong(self) -> int:
        """How many answers were not what they had to be."""
        return sum(sample.wrong for sample in self.figures.samples)

    def cells(self, page: str, names: Iterable[str]) -> list[Cell]:
        """The cells of a page that were measured, of the chains named, in their order."""
        measured = {sample.cell for sample in self.figures.samples}
        order = {name: place for place, name in enumerate(names)}
        found = [cell for cell in measured if cell.page == page and cell.chain in order]
        return sorted(found, key=lambda cell: (order[cell.chain], cell.connections))

    def table(self) -> str:
        """Every target with its ratio, and how many were reached."""
        width = max(len(str(line["name"])) for line in self.targets)
        rows = [f"{'target':{width}}  {'ratio':>8}  {'limit':>7}"]
        for line in self.targets:
            ratio = (
                "absent" if line["reached"] is None else "wrong" if line["ratio"] is None else f"{line['ratio']:.3g}"
            )
            verdict = {None: "", True: "reached", False: "NOT REACHED"}[line["reached"]]
            rows.append(f"{line['name']:{width}}  {ratio:>8}  {line['limit']:>7g}  {verdict}".rstrip())
        judged = [line["reached"] for line in self.targets if line["reached"] is not None]
        missing = len(self.targets) - len(judged)
        rows.append(f"{sum(judged)} of {len(judged)} reached, {missing} absent; {self.seconds / 60:.0f} minutes")
        return "\n".join(rows)


def read(chains: Sequence[Chain]) -> Results:
    """What the last run wrote into results.json. Raises OSError, ValueError."""
    content = json.loads(FILE.read_text())
    samples = []
    for row in content["samples"]:
        cell = Cell(row.pop("connections"), row.pop("page"), row.pop("chain"))
        samples.append(Sample(cell, **row))
    rest = (content[name] for name in ("quick", "seconds", "machine"))
    return Results(Figures(samples), content["scale"], content["absent"], chains, *rest)


def figures_table(figures: Figures, cells: Iterable[Cell]) -> str:
    """Medians with their spread, a cell a line."""
    rows = [
        f"{'chain':24} {'page':8} {'conn':>4}  {'µs of CPU a request':>24} {'req/s':>8} {'p50 µs':>8} {'p99 µs':>8}"
    ]
    for cell in cells:
        spread = figures.spread(cell)
        if spread is None:
            rows.append(f"{cell.chain:24} {cell.page:8} {cell.connections:4}  wrong answers")
            continue
        cost = f"{figures.median(cell):.1f} ({spread[0]:.1f}–{spread[1]:.1f})"
        rate, p50, p99 = (figures.median(cell, figure) for figure in ("rate", "p50", "p99"))
        parts = ", ".join(f"{name} {value:.0f}" for name, value in figures.parts(cell).items())
        row = f"{cell.chain:24} {cell.page:8} {cell.connections:4}  {cost:>24} {rate:8.0f} {p50:8.0f} {p99:8.0f}"
        rows.append(f"{row}  {parts}")
    return "\n".join(rows)


def machine() -> dict[str, Any]:
    """Where it was measured."""
    name = platform.processor() or platform.machine()
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            name = line.partition(":")[2].strip()
            break
    return {
        "processor": name,
        "cores": os.cpu_count(),
        "kernel": platform.release().partition("-")[0],
        "python": platform.python_version(),
    }
