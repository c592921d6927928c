"""What has to be reached, and whether it was. Pure.

Every target is a ratio that must not exceed a limit. Where it is about two chains, it is ours ÷ theirs, side by side
in one run: of the cost of all processes of the chain unless said otherwise. Where more is better (throughput) it is
theirs ÷ ours.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from .chains import DEFAULT, PYTHON_LANE
from .measure import Cell, Figures

ALL = (1, 2, 4, 16, 64)
MANY = (4, 16, 64)
SOME = (16, 64)
RESOLUTION = 2
"""Decimals to which "at least as good as" is told: two runs of one server differ by more than the third."""
GRANIAN = {"AMD": 0.95, "Intel": 1.2}
"""Ours beside a server in compiled code, on a processor like AMD's EPYC and on one like Intel's Xeon: where caches
are small and the clock is slow, Python costs more beside it."""
CHEAPER = {"mod_wsgi-daemon": 0.75, "passenger": 0.55, "balancer-waitress": 0.35}
AS_GOOD_P99 = 1.0
"""As good as theirs. That of one chain differs between two rounds by up to a tenth, so this may fail by chance."""
AS_GOOD = (
    "balancer-granian-threads",
    "balancer-waitress",
    "balancer-gunicorn",
    "passenger",
    "proxy-uwsgi",
    "mod_wsgi-daemon",
)
"""All behind Apache, where the application waits."""
KEPT = (
    *(Cell(connections, "small", PYTHON_LANE) for connections in (1, 16)),
    *(Cell(16, "first", chain) for chain in (DEFAULT, PYTHON_LANE)),
)
"""Measured in every run, though no target needs them: what changes is seen beside an earlier run's figures."""


@dataclass(frozen=True)
class Versus:
    """Ours against theirs, in one figure."""

    name: str
    limit: float
    ours: Cell
    theirs: Cell
    figure: str = "cpu"
    digits: int = 4

    @property
    def cells(self) -> tuple[Cell, ...]:
        return self.ours, self.theirs

    def ratio(self, figures: Figures, scale: Mapping[str, float]) -> float | None:
        if self.figure == "rate":
            return figures.ratio(self.theirs, self.ours, "rate")
        return figures.ratio(self.ours, self.theirs, self.figure)


@dataclass(frozen=True)
class Absolute:
    """A figure of our own, which any machine keeps: `key` in what scale.py or survival.py measured."""

    name: str
    limit: float
    key: str
    digits: int = 4
    cells: tuple[Cell, ...] = ()

    def ratio(self, figures: Figures, scale: Mapping[str, float]) -> float | None:
        return scale.get(self.key)


Target = Versus | Absolute


def targets(processor: str) -> list[Target]:
    """All of them, in the order of the parts that they are about. `processor`: its name, as results.machine tells."""
    found: list[Target] = []

    def cheaper(ours: str, what: str, limits: Mapping[str, float], at: tuple[int, ...]) -> None:
        for theirs, limit in limits.items():
            for connections in at:
                cells = (Cell(connections, "small", ours), Cell(connections, "small", theirs))
                found.append(Versus(f"{what} ÷ {theirs}, {connections} connections", limit, *cells))

    def as_good(ours: str, what: str, others: Sequence[str], p99: float) -> None:
        for theirs in others:
            for connections in SOME:
                cells = (Cell(connections, "wait", ours), Cell(connections, "wait", theirs))
                where = f"waits 20 ms, {connections} connections"
                found.append(Versus(f"throughput {theirs} ÷ {what}, {where}", 1.0, *cells, "rate", RESOLUTION))
                found.append(Versus(f"p99 {what} ÷ {theirs}, {where}", p99, *cells, "p99", RESOLUTION))

    cheaper("gateway", "gateway", {"waitress": 0.15, "gunicorn": 0.08, "granian": 0.9}, SOME)
    as_good("gateway", "gateway", ("waitress", "gunicorn"), 1.0)
    cheaper(DEFAULT, "default", {"balancer-granian": granian_limit(processor), **CHEAPER}, MANY)
    for connections in MANY:
        cells = (Cell(connections, "first", DEFAULT), Cell(connections, "small", DEFAULT))
        found.append(Versus(f"default, first visit ÷ holder's request, {connections} connections", 1.05, *cells))
    as_good(DEFAULT, "default", AS_GOOD, AS_GOOD_P99)
    for entries in (100, 1000):
        name = f"{entries} ÷ 4 entries in address.text, 16 connections"
        found.append(Versus(name, 1.05, Cell(16, "small", f"entries-{entries}"), Cell(16, "small", "entries-4")))
        name = f"fast lane, {name}"
        found.append(
            Versus(name, 1.05, Cell(16, "small", f"fast-entries-{entries}"), Cell(16, "small", "fast-entries-4"))
        )
    light = (Cell(16, "small", "entries-4"), Cell(16, "small", "mod_wsgi-embedded"))
    found += [
        Absolute("reload of 1,000 entries, ms", 10.0, "reload_ms"),
        Absolute("reloads at 1,000 looks at an unchanged file", 0.0, "reloads_unchanged"),
        Absolute("adaptor in an Apache process beyond bare mod_wsgi, MB", 8.0, "adaptor_mb", cells=light),
        Absolute("arbiter of 100 AppServers, MB resident", 25.0, "arbiter_mb"),
        Absolute("monitor of 100 AppServers probed each second, % of a core", 3.0, "monitor_percent"),
        *survival_targets(),
    ]
    return found


def granian_limit(processor: str) -> float:
    """That of GRANIAN; of a processor that is neither, the looser one."""
    return next((limit for maker, limit in GRANIAN.items() if maker in processor), max(GRANIAN.values()))


def survival_targets() -> list[Absolute]:
    """Of sessions that outlive their process: what survival.py measured."""
    release, kills = "release of 4 with 10,000 sessions", "SIGKILL every 3 s"
    found = [
        Absolute(f"{release}, s from the last new one OK to the last old one gone", 10.0, "release_gone_s anything"),
        Absolute(f"{release}, longest wait of 16 visitors, s", 0.3, "release_pause_s anything"),
        Absolute(f"{release}, failed requests", 0.0, "release_failed anything"),
        Absolute(f"{release}, lost sessions", 0.0, "release_lost anything"),
        Absolute(f"{kills}, lost sessions", 0.0, "kills_lost anything"),
        Absolute(f"{kills}, failed GETs", 0.0, "kills_failed_gets anything"),
        Absolute(f"{kills}, longest wait of 16 visitors, s", 0.3, "kills_pause_s anything"),
    ]
    limits = {"flask": 15.0, "django": 15.0, "cherrypy": 30.0, "webware": 30.0, "beaker": 30.0}
    for framework, limit in limits.items():
        name = f"saving in {framework}, µs of CPU that a request takes more"
        found += [
            Absolute(f"{name} that changes a session of 2 KB", limit, f"change_us {framework}", 2),
            Absolute(f"{name} that changes none", 1.0, f"read_us {framework}", 2),
        ]
    found.append(Absolute('survive = "nothing", µs of CPU that a request takes more', 0.0, "nothing_us", 0))
    for how in ("left", "killed"):
        name = f"taking over a session of an AppServer that {'has left' if how == 'left' else 'was killed'}, ms"
        found.append(Absolute(name, 1.0, f"take_over_ms {how}"))
    return found


def judge(target: Target, figures: Figures, scale: Mapping[str, float], absent: Mapping[str, str]) -> dict[str, Any]:
    """A line of results.json. `absent`: chains that could not be set up, and why."""
    measured = {sample.cell for sample in figures.samples}
    missing = {cell.chain: "was not measured" for cell in target.cells if cell not in measured}
    missing |= {cell.chain: absent[cell.chain] for cell in target.cells if cell.chain in absent}
    ratio = None if missing else target.ratio(figures, scale)
    ratio = None if ratio is None else round(ratio, target.digits) + 0.0  # no -0.0
    line: dict[str, Any] = {
        "name": target.name,
        "ratio": ratio,
        "limit": target.limit,
        "reached": None if missing else ratio is not None and ratio <= target.limit,
    }
    if missing:
        line["absent"] = missing
    return line
