"""The benchmark's story: set chains up, measure them in turn, take them down; judge, print, write.

    make bench                      everything
    make bench QUICK=1              what the targets need, with fewer and shorter runs
    .venv/bin/python -m tests.bench --chains gateway,granian --connections 16 --seconds 1    a look, nothing written
"""

from __future__ import annotations

import argparse
import signal
import sys

from tests.apache.cluster import short_folder

from . import load
from .chains import ALONE, CHAINS, SCALE, Chain
from .load import PAGES, LoadFailed
from .measure import MIX, Cell, Figures, measure

CONNECTIONS = (1, 2, 4, 16, 64)


def main() -> int:
    """The exit status: 0, all answers were right; 1, some were not; 2, it could not be measured."""
    options = _options()
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, lambda *_: sys.exit(130))
    if load.absent():
        print(load.absent(), file=sys.stderr)
        return 2
    chains = [chain for chain in (*ALONE, *CHAINS, *SCALE) if chain.name in options.chains]
    cells = [
        Cell(connections, page, chain.name)
        for page in options.pages
        for connections in options.connections
        for chain in chains
    ]
    figures = Figures()
    run(chains, cells, options.rounds, options.seconds, figures)
    for cell in cells:
        spread = figures.spread(cell)
        if spread is None:
            print(f"{cell.chain:20} {cell.page:8} {cell.connections:3}  -")
            continue
        print(
            f"{cell.chain:20} {cell.page:8} {cell.connections:3} {figures.median(cell):8.1f} µs "
            f"({spread[0]:.1f}–{spread[1]:.1f}) {figures.median(cell, 'rate'):8.0f}/s "
            f"{figures.median(cell, 'p50'):8.0f} {figures.median(cell, 'p99'):8.0f}  {figures.parts(cell)}"
        )
    return 0


def run(chains: list[Chain], cells: list[Cell], rounds: int, seconds: float, figures: Figures) -> None:
    """Measure cells in turn, with all chains up."""
    by_name = {chain.name: chain for chain in chains}
    with short_folder() as folder:
        try:
            for chain in chains:
                chain.start(folder)
            for number in range(rounds):
                for cell in cells:
                    sample = measure(by_name[cell.chain], cell, number, seconds)
                    figures.samples.append(sample)
                    if sample.wrong:
                        print(f"{cell}: {sample.wrong} wrong of {sample.requests}: {sample.example}", file=sys.stderr)
        finally:
            for chain in chains:
                chain.stop()


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.bench", description="Ours and what people use today.")
    parser.add_argument("--quick", action="store_true", help="what the targets need")

    def words(text: str) -> list[str]:
        return text.split(",")

    def numbers(text: str) -> list[int]:
        return [int(word) for word in text.split(",")]

    parser.add_argument("--chains", type=words, default=[chain.name for chain in ALONE])
    parser.add_argument("--pages", type=words, default=["small"], help=f"{', '.join([*PAGES, MIX])}")
    parser.add_argument("--connections", type=numbers, default=list(CONNECTIONS))
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=2.0)
    return parser.parse_args()


if __name__ == "__main__":
    try:
        sys.exit(main())
    except LoadFailed as error:
        sys.exit(f"{error}")
    except KeyboardInterrupt:
        sys.exit(130)
