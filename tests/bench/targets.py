"""What has to be reached, and whether it was. Pure.

Every target is a ratio that must not exceed a limit. Where it is about two chains, it is ours ÷ theirs, side by side
in one run: of the cost of all processes of the chain unless said otherwise. Where more is better (throughput) it is
theirs ÷ ours.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from .measure import Cell, Figures

ALL = (1, 2, 4, 16, 64)
FEW = (1, 2)
MANY = (4, 16, 64)
ALONE = (16, 64)
RESOLUTION = 2
"""Decimals to which "at least as good as" is told: two runs of one server differ by more than the third."""


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


def targets() -> list[Target]:
    """All of them, in the order of the parts that they are about."""
    found: list[Target] = []

    def cheaper(ours: str, limits: Mapping[str, float], at: tuple[int, ...], figure: str = "cpu") -> None:
        for theirs, limit in limits.items():
            for connections in at:
                what = "" if figure == "cpu" else f", {figure} only"
                name = f"{ours} ÷ {theirs}{what}, {connections} connections"
                found.append(
                    Versus(name, limit, Cell(connections, "small", ours), Cell(connections, "small", theirs), figure)
                )

    cheaper("gateway", {"waitress": 0.15, "gunicorn": 0.08, "granian": 0.9}, ALONE)
    for theirs in ("waitress", "gunicorn"):
        for connections in ALONE:
            ours, other = Cell(connections, "wait", "gateway"), Cell(connections, "wait", theirs)
            where = f"waits 20 ms, {connections} connections"
            found += [
                Versus(f"throughput {theirs} ÷ gateway, {where}", 1.0, ours, other, "rate", RESOLUTION),
                Versus(f"p99 gateway ÷ {theirs}, {where}", 1.0, ours, other, "p99", RESOLUTION),
            ]
    cheaper("ours", {"balancer-granian": 0.75}, FEW)
    cheaper("ours", {"mod_wsgi-daemon": 0.9, "passenger": 0.6, "balancer-waitress": 0.7}, ALL)
    fast = {"balancer-granian": 0.9, "balancer-waitress": 0.4, "mod_wsgi-daemon": 0.55}
    cheaper("ours-fast", fast, MANY)
    cheaper("ours-fast", {"balancer-gateway": 1.1}, MANY, "httpd")
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
    missing = {cell.chain: absent[cell.chain] for cell in target.cells if cell.chain in absent}
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
