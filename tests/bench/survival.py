"""Sessions that outlive their process: what that is good for, and what it costs.

    .venv/bin/python -m tests.bench.survival                 everything
    .venv/bin/python -m tests.bench.survival kills --quick   a part (saving, release, kills, waiting), smaller numbers
    .venv/bin/python -m tests.bench.survival --write         what is found goes into results.json and the pages, too

A part is all pieces whose names begin so; --help has them.
"""

from __future__ import annotations

import argparse
import signal
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from tests.apache.cluster import short_folder

from . import ends, page, results, saving, waiting
from .chains import ALONE, CHAINS, SCALE
from .load import LoadFailed
from .session_site import COOKIES
from .targets import judge, survival_targets


@dataclass(frozen=True)
class Effort:
    """How much is measured."""

    saving: saving.Effort
    ends: ends.Effort
    files: int
    """that wait for their visitors"""


FULL = Effort(
    saving.Effort(rounds=40, requests=200, taken=1000, idle=10_000, seconds=20.0),
    ends.Effort(sessions=10_000, kills=20, pause=3.0, drain_limit=10.0),
    1_000_000,
)
QUICK = Effort(
    saving.Effort(rounds=16, requests=100, taken=300, idle=2000, seconds=5.0),
    ends.Effort(sessions=2000, kills=5, pause=3.0, drain_limit=5.0),
    100_000,
)


def pieces(effort: Effort) -> dict[str, Callable[[Path], dict[str, float]]]:
    """All that can be measured here, by name; each in an empty folder. They raise LoadFailed."""
    found: dict[str, Callable[[Path], dict[str, float]]] = {}
    for framework in COOKIES:
        found[f"saving {framework}"] = partial(saving.added, framework=framework, effort=effort.saving)
    found["saving nothing"] = partial(saving.nothing, effort=effort.saving)
    found["saving taken"] = partial(saving.take_over, effort=effort.saving)
    found["saving idle"] = partial(saving.idle, effort=effort.saving)
    for system in ends.SYSTEMS:
        if ends.absent(system):
            continue
        found[f"release {system}"] = partial(ends.release, name=system, effort=effort.ends)
        found[f"kills {system}"] = partial(ends.kills, name=system, effort=effort.ends)
    found["waiting"] = partial(waiting.measure, count=effort.files)
    return found


def measure(
    effort: Effort, names: Sequence[str] = ("",), say: Callable[[str], object] = lambda what: None
) -> tuple[dict[str, float], list[str]]:
    """The figures of the pieces whose names begin so, and those pieces that could not be measured.

    These are said, and have no figures: their targets are not reached.
    """
    found: dict[str, float] = {}
    failed = []
    for system, what in ends.SYSTEMS.items():
        if why := ends.absent(system):
            print(f"absent: {what}: {why}")
    for name, piece in pieces(effort).items():
        if name.startswith(tuple(names)):
            say(f"sessions that survive: {name}")
            with short_folder() as folder:
                try:
                    found |= piece(folder)
                except LoadFailed as error:
                    print(f"{name}: {error}", file=sys.stderr)
                    failed.append(name)
    return found, failed


def write(found: Mapping[str, float], quick: bool) -> None:
    """Put the figures into what the last `make bench` found. Raises OSError, ValueError."""
    told = results.read([*ALONE, *CHAINS, *SCALE])
    scale = {**told.scale, **found}
    told = replace(told, scale=scale, quick=told.quick or quick)
    told.write()
    if not told.quick:
        page.write(results.read(told.chains))  # as rounded there


def table(found: Mapping[str, float]) -> str:
    """All figures, and the verdicts on those that have a target."""
    width = max(map(len, found), default=0)
    rows = [f"{name:{width}}  {value:12.3f}" for name, value in found.items()]
    for aim in survival_targets():
        if aim.key in found:
            line = judge(aim, results.Figures(), found, {})
            verdict = "reached" if line["reached"] else "NOT REACHED"
            rows.append(f"{line['name']}: {line['ratio']:g}, at most {line['limit']:g}: {verdict}")
    return "\n".join(rows)


def main() -> int:
    """The exit status: 0; 1: something could not be measured."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.bench.survival",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("parts", nargs="*", metavar="PART", help=f"how its name begins: {', '.join(pieces(FULL))}")
    parser.add_argument("--quick", action="store_true", help="with smaller numbers")
    parser.add_argument("--write", action="store_true", help="write results.json and the pages")
    options = parser.parse_args()
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, lambda *_: sys.exit(130))
    names = options.parts or [""]
    found, failed = measure(QUICK if options.quick else FULL, names, lambda what: print(what, file=sys.stderr))
    print(table(found))
    if options.write:
        write(found, options.quick)
    return int(bool(failed) or not found)


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        sys.exit(130)
