"""The benchmark's story: set chains up, measure them in turn, take them down; judge, print, write.

make bench                      everything
make bench QUICK=1              what the targets need, with fewer and shorter runs
.venv/bin/python -m tests.bench --pages-only    docs/bench.md anew, from what the last run found
.venv/bin/python -m tests.bench --chains gateway,granian --connections 16    a look: nothing is judged or written
"""

from __future__ import annotations

import argparse
import signal
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

from tests.apache.cluster import short_folder

from . import load, page, results, scale, spread, survival
from .chain import Chain
from .chains import ALONE, ARRIVING, CHAINS, OWN, SCALE
from .load import LoadFailed
from .measure import REFRESH, WHAT, Cell, Figures, Sample, measure, prove
from .targets import ALL as CONNECTIONS
from .targets import KEPT, targets

OTHER_CONNECTIONS = (4, 64)
"""For pages that have none of their own:"""
AT = {"small": CONNECTIONS, "first": (1, 4, 16, 64), "wait": (4, 16, 64)}
FULL = (5, 2.0, 30.0)
QUICK = (5, 1.0, 20.0)
"""Rounds; seconds of a run; seconds for which the monitor is watched."""
LOOK = (3, 2.0)


def main() -> int:
    """The exit status: 0, all answers were right; 1, some were not; 2, it could not be measured."""
    options = _options()
    every = [*ALONE, *CHAINS, *SCALE]
    if options.pages_only:
        page.write(results.read(every))
        return 0
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, lambda *_: sys.exit(130))
    if load.absent():
        print(load.absent(), file=sys.stderr)
        return 2
    if options.chains:
        return _look(options)
    begin = time.monotonic()
    rounds, seconds, watched = QUICK if options.quick else FULL
    rounds, seconds = options.rounds or rounds, options.seconds or seconds
    machine = results.machine()
    needed = {*KEPT, *(cell for aim in targets(machine["processor"]) for cell in aim.cells)}
    figures, grown = Figures(), dict[str, float]()
    absent = {chain.name: why for chain in every if (why := chain.absent())}
    for name, why in absent.items():
        print(f"absent: {name}: {why}")
    for group in (ALONE, CHAINS, SCALE):
        chains = [chain for chain in group if chain.name not in absent]
        cells = _cells(chains, group is SCALE, options.quick, needed)
        used = [chain for chain in chains if any(cell.chain == chain.name for cell in cells)]
        look = (lambda used: grown.update(scale.apache_memory(used))) if group is SCALE else (lambda used: None)
        run(used, cells, rounds, max(seconds, REFRESH) if group is SCALE else seconds, figures, absent, look)
    if not options.quick:
        arriving = [Cell(connections, ARRIVING, chain.name) for connections in AT["first"] for chain in OWN]
        run(OWN, arriving, rounds, seconds, figures, absent)
        _memory([chain for chain in page.COMPARED if chain.name not in absent], absent, grown)
    with short_folder() as folder:
        grown |= scale.reload(folder)
    with short_folder() as folder:
        _say(f"{scale.APPSERVERS} AppServers under one monitor, for {watched:.0f} s")
        try:
            grown |= scale.monitor(folder, watched)
        except LoadFailed as error:  # a target that is not reached, and no reason to lose all else
            print(error, file=sys.stderr)
    try:
        grown |= spread.measure(spread.QUICK if options.quick else spread.FULL, _say)
    except LoadFailed as error:
        print(error, file=sys.stderr)
    grown |= survival.measure(survival.QUICK if options.quick else survival.FULL, say=_say)[0]
    took = time.monotonic() - begin
    told = results.Results(figures, grown, absent, every, options.quick, took, machine)
    told.write()
    if not options.quick:
        page.write(results.read(every))  # as rounded there
    print(told.table())
    return 1 if told.wrong() else 0


def run(
    chains: Sequence[Chain],
    cells: Sequence[Cell],
    rounds: int,
    seconds: float,
    figures: Figures,
    absent: dict[str, str],
    look: Callable[[Sequence[Chain]], None] = lambda chains: None,
) -> None:
    """Measure cells in turn, with all chains up; who does not start is `absent`, too. `look` at them at the end."""
    by_name = {chain.name: chain for chain in chains}
    with short_folder() as folder:
        try:
            for chain in chains:
                _say(f"starting {chain.what}")
                _start(chain, folder, absent)
            cells = [cell for cell in cells if cell.chain not in absent]
            chains = [chain for chain in chains if chain.name not in absent]
            for chain in chains:
                prove(chain)
            for number in range(rounds):
                for done, cell in enumerate(cells, 1):
                    _say(f"round {number + 1} of {rounds}, {done} of {len(cells)}: {cell.chain}, {cell.page}")
                    sample = measure(by_name[cell.chain], cell, number, seconds)
                    figures.samples.append(sample)
                    if sample.wrong:
                        _tell(by_name[cell.chain], sample)
            look(chains)
        finally:
            signal.signal(signal.SIGINT, signal.SIG_IGN)  # who presses Ctrl-C twice waits all the same
            _say("ending them")
            for chain in by_name.values():
                chain.order_to_stop()
            for chain in by_name.values():
                chain.stop()
            signal.signal(signal.SIGINT, signal.default_int_handler)
            _say("")


def _memory(chains: Sequence[Chain], absent: dict[str, str], grown: dict[str, float]) -> None:
    """What each chain takes when no other one is up, after some load."""
    for chain in chains:
        cells = [Cell(64, "small", chain.name), Cell(16, "large", chain.name)]
        run([chain], cells, 1, LOOK[1], Figures(), absent, lambda used: grown.update(scale.memory(used)))


def _start(chain: Chain, folder: Path, absent: dict[str, str]) -> None:
    """Start a chain. Of others', one that does not start is absent. Raises LoadFailed where it is ours."""
    try:
        chain.start(folder)
    except LoadFailed as error:
        if chain.own:
            raise
        absent[chain.name] = f"it does not start: {error}"
        print(f"absent: {chain.name}: {absent[chain.name]}")
        chain.stop()


def _tell(chain: Chain, sample: Sample) -> None:
    """Of wrong answers, at once."""
    where = f"{chain.name}, {sample.cell.page}, {sample.cell.connections} connections"
    print(f"{where}: {sample.wrong} of {sample.requests} are wrong: {sample.example}", file=sys.stderr)
    print(chain.said()[-1000:], file=sys.stderr)


def _cells(chains: Iterable[Chain], scale: bool, quick: bool, needed: set[Cell]) -> list[Cell]:
    """What is measured in each round, so that those that are compared come one after the other."""
    cells = {cell for cell in needed for chain in chains if cell.chain == chain.name}
    if not quick:
        for chain in chains:
            for page in ("small",) if scale else chain.pages:
                at = (16, 64) if scale else AT.get(page, OTHER_CONNECTIONS)
                cells |= {Cell(connections, page, chain.name) for connections in at}
    return sorted(cells, key=lambda cell: (cell.page, cell.connections, cell.chain))


def _look(options: argparse.Namespace) -> int:
    chains = [chain for chain in (*ALONE, *CHAINS, *SCALE) if chain.name in options.chains]
    cells = [
        Cell(connections, page, chain.name)
        for page in options.pages
        for connections in options.connections
        for chain in chains
        if page in chain.pages or (page == ARRIVING and chain in OWN)
    ]
    figures = Figures()
    run(chains, cells, options.rounds or LOOK[0], options.seconds or LOOK[1], figures, {})
    print(results.figures_table(figures, cells))
    return 1 if any(sample.wrong for sample in figures.samples) else 0


def _say(what: str) -> None:
    if sys.stderr.isatty():
        print(f"\r\x1b[K{what}", end="", file=sys.stderr, flush=True)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.bench", description="Ours and what people use today.")
    parser.add_argument(
        "--quick", action="store_true", help="only what the targets need, with fewer and shorter runs"
    )
    parser.add_argument(
        "--pages-only", action="store_true", help="measure nothing; write docs/bench.md anew from results.json"
    )

    def words(text: str) -> list[str]:
        return text.split(",")

    def numbers(text: str) -> list[int]:
        return [int(word) for word in text.split(",")]

    names = ", ".join(chain.name for chain in (*ALONE, *CHAINS, *SCALE))
    parser.add_argument("--chains", type=words, help=f"a look at these only, nothing judged or written: {names}")
    parser.add_argument("--pages", type=words, default=["small"], help=", ".join(WHAT))
    parser.add_argument("--connections", type=numbers, default=list(CONNECTIONS))
    parser.add_argument("--rounds", type=int, help="of measurements, each in turn")
    parser.add_argument("--seconds", type=float, help="of a measurement")
    return parser.parse_args()


if __name__ == "__main__":
    try:
        sys.exit(main())
    except LoadFailed as error:
        sys.exit(f"{error}")
    except KeyboardInterrupt:
        sys.exit(130)
