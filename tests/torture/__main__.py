"""The torture test: `python -m tests.torture --minutes 5 --seed 7`. Exit status 0: everything held."""

from __future__ import annotations

import argparse
import contextlib
import re
import shutil
import sys
import tempfile
import time
from collections.abc import Callable
from datetime import datetime
from pathlib import Path

from .clients import Crowd
from .fault_injector import ALL, FaultInjector
from .records import Counted, Logged, Records
from .report import report
from .stage import OWN, SERVERS, STORES, Stage
from .verdict import STRENGTH, judge
from .watch import Watch

VISITORS = 20
WARM_UP = 1.0
STEADY = 1.0
"""Seconds for which all AppServers have to be OK before they count as OK."""
CALM = 4.0
"""Seconds after the fault injector, in which nothing may fail."""

_LINE = re.compile(r"\[(\w+ \w+ \d+ [\d:.]+ \d+)\](?:.*?\[client [\d.]+:(\d+)\])? ?(.*)")


def main() -> int:
    """The exit status."""
    parser = argparse.ArgumentParser(prog="python -m tests.torture", description=__doc__)
    parser.add_argument("--minutes", type=float, default=5.0)
    parser.add_argument("--seed", type=int, default=7)
    parser.add_argument(
        "--without", action="append", default=[], metavar="ACTION", help="leave out an action of the fault injector"
    )
    parser.add_argument("--only", action="append", default=[], metavar="ACTION", help="leave out all other actions")
    parser.add_argument("--no-fast-lane", action="store_true", help="all requests take the Python lane")
    parser.add_argument(
        "--survive", choices=("nothing", "leaving", "anything"), default="nothing", help="[sessions] survive"
    )
    parser.add_argument("--preload", action="store_true", help="[appservers] preload")
    parser.add_argument("--store", choices=STORES, default=OWN, help="where the application keeps its sessions")
    parser.add_argument("--keep", type=Path, metavar="FOLDER", help="copy logs and records there")
    options = parser.parse_args()
    for action in (*options.without, *options.only):
        if action not in ALL:
            parser.error(f"there is no action {action!r}; there are {', '.join(sorted(ALL))}")
    enabled = (set(options.only) or ALL) - set(options.without)
    print(
        f"torture: {options.minutes:g} minutes, seed {options.seed}, {VISITORS} visitors, {SERVERS} AppServers"
        + (", without the fast lane" if options.no_fast_lane else "")
        + (f", sessions survive {options.survive}" if options.survive != "nothing" else "")
        + (", with preload" if options.preload else "")
        + (f", store {options.store}" if options.store != OWN else "")
    )
    folder = Path(tempfile.mkdtemp(prefix="lbt-", dir="/tmp"))
    try:
        stage = Stage(
            folder,
            fast_lane=not options.no_fast_lane,
            survive=options.survive,
            preload=options.preload,
            store=options.store,
        )
        records = run(stage, options.minutes * 60, options.seed, enabled, lambda text: print(text, flush=True))
        violations = judge(records)
        print(report(records, violations))
        if options.keep:
            _keep(folder, options.keep, records)
    finally:
        shutil.rmtree(folder)
    failed = sum(map(len, violations.values()))
    print(f"\nviolations: {failed} (seed {options.seed})" if failed else "\nEverything held.")
    return 1 if failed else 0


def run(
    stage: Stage, seconds: float, seed: int, enabled: set[str] | frozenset[str], say: Callable[[str], None]
) -> Records:
    """Run the whole test. Blocks for so many seconds, and some more."""
    records = Records(stage.limits(), SERVERS, stage.survive)
    watch = Watch(stage, records)
    try:
        stage.start()
        records.began = time.time()
        watch.start()
        crowd = Crowd(
            stage.httpd.port,
            VISITORS,
            seed,
            records.visits.append,
            fast_lane=stage.fast_lane,
            lively=stage.survive != "nothing",
            together=stage.store == OWN,
        )
        duration = max(5.0, seconds - WARM_UP - STEADY - CALM - 2.0)
        injector = FaultInjector(stage, seed, duration, records.faults, records.visits.append, enabled, say)
        crowd.start()
        try:
            time.sleep(WARM_UP)
            injector.start()
            while injector.is_alive():
                stage.supervise()
                injector.join(0.05)
            records.strength = _strength(stage)
            records.quiet = time.time()
            _supervise(stage, CALM)
        finally:
            crowd.stop()
        records.left += stage.unknown_processes()
        records.ended = time.time()
        records.test_errors += crowd.test_errors + injector.test_errors + stage.test_errors
    finally:
        watch.stop()
        records.left += stage.stop()
    for line in stage.executed.read_text().splitlines():
        name, pid, *counted = line.split()
        if counted:
            records.counted.append(Counted(name, int(pid), counted[0], int(counted[1])))
        else:
            records.executed.append((name, int(pid)))
    records.lanes.update(map(_lane, stage.lanes.read_text().splitlines()))
    for lane in ("fast", "first") if stage.fast_lane else ():
        if not records.lanes[lane]:
            records.test_errors.append(f"no request took the lane: {lane}")
    records.logged = [
        line for line in error_log(stage.httpd.error_log.read_text(errors="replace")) if line.at > records.began
    ]
    return records


def _lane(line: str) -> str:
    session, redirected = line.split()
    return (
        f"back after {redirected}" if redirected != "-" else {"-": "slow", "held": "fast", "none": "first"}[session]
    )


def _strength(stage: Stage) -> float | None:
    """Seconds until all AppServers are OK and stay so; None: it takes too long."""
    began = time.monotonic()
    since: float | None = None
    while True:
        stage.supervise()
        now = time.monotonic()
        if not stage.at_full_strength():
            since = None
        elif since is None:
            since = now
        elif now - since > STEADY:
            return since - began
        if now - began > STRENGTH + STEADY:
            return None
        time.sleep(0.02)


def _supervise(stage: Stage, seconds: float) -> None:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        stage.supervise()
        time.sleep(0.05)


def error_log(text: str) -> list[Logged]:
    """The lines of Apache's error log. A line without a time gets that of the line before."""
    lines: list[Logged] = []
    for line in text.splitlines():
        found = _LINE.match(line)
        if found:
            with contextlib.suppress(ValueError):
                at = datetime.strptime(found[1], "%a %b %d %H:%M:%S.%f %Y").timestamp()
                lines.append(Logged(at, found[3], int(found[2] or 0)))
                continue
        lines.append(Logged(lines[-1].at if lines else 0.0, line))
    return lines


def _keep(folder: Path, place: Path, records: Records) -> None:
    place.mkdir(parents=True, exist_ok=True)
    shutil.copy(folder / "monitor.log", place)
    shutil.copy(folder / "httpd" / "error.log", place)
    with (place / "records.txt").open("w") as file:
        for name in ("faults", "said", "tables", "visits", "counted"):
            file.writelines(f"{one}\n" for one in getattr(records, name))


if __name__ == "__main__":
    sys.exit(main())
