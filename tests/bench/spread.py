"""How visitors who begin a session are spread over the AppServers, by default and in the Python lane alone.

    .venv/bin/python -m tests.bench.spread [SECONDS]

In each of three scenes they come for some seconds, 16 at once, each over a connection of their own:

    equal   all AppServers are alike
    slow    one takes ten times as long for each request
    fresh   that one has just been replaced by a new one; the others hold the sessions of the scenes before
"""

from __future__ import annotations

import sys
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

from lbadaptor.contract.address import Table, parse
from lbadaptor.contract.settings import load
from monitor.contract.client import NoAnswer
from monitor.contract.client import ask as tell
from tests.apache.cluster import short_folder

from .chain import BACKENDS, Chain
from .chains import CHAINS, DEFAULT, PYTHON_LANE
from .load import TIMEOUT, LoadFailed, Page, ask, plain

AT_ONCE = 16
SCENES = {
    "equal": "all alike",
    "slow": "the first takes ten times as long",
    "fresh": "the first is new; the others hold sessions",
}
ARRIVE = Page("/arrive", "begins a session, after 10 ms")
SLOW = Page("/slow", "is slow from now on")
FULL, QUICK = 12.0, 5.0
"""Seconds of a scene."""


class Visit(NamedTuple):
    """The first request of somebody. Times in seconds."""

    backend: str
    began: float
    ended: float


class Spread(NamedTuple):
    """What a scene comes to."""

    visits: int
    shares: list[float]
    """of the first AppServer, which a scene is about, and of the others, the least first"""
    unevenness: float
    """the greatest share ÷ the mean"""
    in_flight: float
    """requests at the busiest AppServer at once: the greatest mean of one"""
    most: int
    """the same: the greatest number at one moment"""
    p99: float
    """milliseconds"""


def spread(visits: Sequence[Visit], first: str, backends: int = BACKENDS) -> Spread:
    """Sum up. `first`: the AppServer that the scene is about. At least one visit is needed."""
    counts = Counter(visit.backend for visit in visits)
    others = sorted(count for backend, count in counts.items() if backend != first)
    others = [0] * (backends - 1 - len(others)) + others
    lasted = max(visit.ended for visit in visits) - min(visit.began for visit in visits)
    busy = defaultdict[str, float](float)
    for visit in visits:
        busy[visit.backend] += visit.ended - visit.began
    took = sorted(visit.ended - visit.began for visit in visits)
    return Spread(
        len(visits),
        [count / len(visits) for count in (counts[first], *others)],
        max(counts.values()) * backends / len(visits),
        max(busy.values()) / lasted,
        max(most_at_once([visit for visit in visits if visit.backend == backend]) for backend in counts),
        took[int(len(took) * 0.99)] * 1000,
    )


def most_at_once(visits: Sequence[Visit]) -> int:
    """How many of them were under way at the same moment. One that ends as another begins is over."""
    changes = sorted([(visit.began, 1) for visit in visits] + [(visit.ended, -1) for visit in visits])
    now = most = 0
    for _, change in changes:
        now += change
        most = max(most, now)
    return most


def arrive(port: int, seconds: float) -> list[Visit]:
    """Let visitors come, AT_ONCE at a time. Raises LoadFailed."""
    end = time.monotonic() + seconds

    def come() -> list[Visit]:
        found = []
        while (began := time.monotonic()) < end:
            status, _, body = ask(port, plain(ARRIVE, ""))
            words = body.split()
            if status != 200 or len(words) != 4:
                raise LoadFailed(f"port {port}: a first visit is answered {status}: {body[:200]}")
            found.append(Visit(words[1], began, time.monotonic()))
        return found

    with ThreadPoolExecutor(AT_ONCE) as pool:
        coming = [pool.submit(come) for _ in range(AT_ONCE)]
        return [visit for visits in coming for visit in visits.result()]


def scenes(chain: Chain, seconds: float, say: Callable[[str], object] = print) -> dict[str, Spread]:
    """All scenes with a chain that is up, and has a visitor at each AppServer. Raises LoadFailed."""
    assert chain.built is not None
    port, visitor = chain.built.port, chain.visitors[0]
    found = {}
    for scene in SCENES:
        say(f"{chain.what}, new sessions: {SCENES[scene]}")
        first = visitor.backend
        if scene == "slow":
            ask(port, plain(SLOW, visitor.cookies))
        elif scene == "fresh":
            first = replace(chain.built.servers[0].folder, visitor.cookies)
        found[scene] = spread(arrive(port, seconds), first)
    return found


def replace(folder: Path, cookies: str) -> str:
    """Let a visitor's AppServer be drained, and wait until another one stands in for it: its process.

    Raises LoadFailed.
    """
    settings = load(folder / "lbadaptor.toml")
    before = table(settings.address_file)
    slot = next(entry.identity.slot for entry in before.ok if entry.ticket in cookies)
    try:
        tell(settings.control_socket, "drain", slot)
    except NoAnswer as error:
        raise LoadFailed(f"an AppServer cannot be drained: {error}") from None
    deadline = time.monotonic() + TIMEOUT
    while time.monotonic() < deadline:
        known = {entry.identity for entry in before.entries}
        new = [entry for entry in table(settings.address_file).ok if entry.identity not in known]
        if new:
            servers = tell(settings.control_socket)["appservers"]
            return next(str(one["pid"]) for one in servers if one["generation"] == new[0].identity.generation)
        time.sleep(0.02)
    raise LoadFailed("the AppServer that was drained is not replaced")


def table(file: Path) -> Table:
    """address.text."""
    return parse(file.read_text())


def measure(seconds: float, say: Callable[[str], object] = print) -> dict[str, float]:
    """The figures of both lanes, for results.json. Raises LoadFailed."""
    figures: dict[str, float] = {}
    for chain in CHAINS:
        if chain.name in (DEFAULT, PYTHON_LANE) and not chain.absent():
            with short_folder() as folder:
                try:
                    chain.start(folder)
                    for scene, found in scenes(chain, seconds, say).items():
                        figures |= keys(chain.name, scene, found)
                finally:
                    chain.stop()
    return figures


def keys(chain: str, scene: str, found: Spread) -> dict[str, float]:
    """One scene, as results.json has it."""
    figures = {f"spread_{name} {chain} {scene}": float(getattr(found, name)) for name in _PLAIN}
    return figures | {f"spread_share_{place} {chain} {scene}": share for place, share in enumerate(found.shares)}


_PLAIN = ("visits", "unevenness", "in_flight", "most", "p99")
HEADS = (
    "",
    "lane",
    "visits",
    "shares, %",
    "greatest ÷ mean",
    "in flight at the busiest",
    "at most",
    "99 % within, ms",
)
LANES = {DEFAULT: "default", PYTHON_LANE: "Python"}


def result(scale: Mapping[str, float]) -> str:
    """In words. Empty where something was not measured."""
    lanes = [[f"{chain} {scene}" for chain in LANES] for scene in SCENES]
    if any(f"spread_visits {key}" not in scale for keys in lanes for key in keys):
        return ""
    equal, slow, fresh = lanes
    uneven = [f"{scale[f'spread_unevenness {key}']:.2f} times" for key in equal]
    slows, news = ([f"{scale[f'spread_share_0 {key}'] * 100:.0f} %" for key in keys] for keys in (slow, fresh))
    return (
        f"{AT_ONCE} visitors at once begin a session each, at {BACKENDS} AppServers. In the fast lane Apache draws an"
        " AppServer from a list that the monitor writes, by what they reported in the last seconds. In the Python"
        " lane the adaptor takes the better of two by what they reported in their last answers."
        f" Where all are alike, the greatest share is {uneven[0]} the mean by default, {uneven[1]} in the Python lane"
        f" alone. One that takes ten times as long gets {slows[0]} of the visitors by default, {slows[1]} in the"
        f" Python lane alone. One that is new, while the others hold sessions, gets {news[0]} and {news[1]}. An equal"
        f" share is {100 / BACKENDS:.0f} %."
    )


def rows(scale: Mapping[str, float]) -> list[list[str]]:
    """The table, from the figures of results.json: a row for each scene and lane that was measured."""
    found = []
    for scene, what in SCENES.items():
        for chain, lane in LANES.items():
            key = f"{chain} {scene}"
            if f"spread_visits {key}" in scale:
                shares = " · ".join(f"{scale[f'spread_share_{place} {key}'] * 100:.0f}" for place in range(BACKENDS))
                figures = (f"{scale[f'spread_{name} {key}']:{form}}" for name, form in _FORMS.items())
                visits, unevenness, in_flight, most, p99 = figures
                found.append([what, lane, visits, shares, unevenness, in_flight, most, p99])
    return found


_FORMS = {"visits": ",.0f", "unevenness": ".2f", "in_flight": ".1f", "most": ".0f", "p99": ".0f"}


def main() -> int:
    figures = measure(float(sys.argv[1]) if sys.argv[1:] else FULL, lambda what: print(what, file=sys.stderr))
    for row in (HEADS, *rows(figures)):
        print(f"{row[0]:44} {row[1]:8} {row[2]:>8}  {row[3]:20} " + " ".join(f"{cell:>24}" for cell in row[4:]))
    return 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except LoadFailed as error:
        sys.exit(f"{error}")
    except KeyboardInterrupt:
        sys.exit(130)
