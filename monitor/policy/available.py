"""Which AppServers Apache itself may choose for first visits, and how often: the content of available.text. Pure.

An AppServer's share is its weight, times how free it is, times how few sessions it has. Apache picks at random, by
facts of a second or two ago. If the shares followed each of them, all visitors of a second would go to the AppServer
that looked idle, and those of the next second to another. So how busy an AppServer is comes from several probes, and
what sessions count for is bounded. tests/unit/monitor/policy/test_available.py compares the spread with that of the
adaptor's `less-loaded`.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import NamedTuple

from lbadaptor.contract.settings import Settings
from monitor.policy.life import Life
from monitor.policy.pool import Pool
from monitor.policy.states import LifeState
from monitor.policy.weights import weight

AFTER_DEATH = 30.0
"""Seconds for which all first visits take the Python lane after an AppServer has died: as long as the adaptor's
circuit breaker (`lbadaptor.adaptor.circuit_breaker.OPEN_SECONDS`) refuses a request that AppServers die of."""
LEAST_BALANCE, MOST_BALANCE = 0.5, 2.0
"""Few or many sessions change a share by this factor at most."""
FULL = 0.95
"""An AppServer that is busier than this gets no share as long as another one is less busy."""
NAMES = 100
"""How many names a line has, about, of which each is a slot; with many AppServers more."""
NAMES_EACH = 4
"""How many names a line has for each AppServer, on average, if it has room for them."""


class Server(NamedTuple):
    """What counts of an AppServer that takes new visitors."""

    slot: int
    weight: int
    busy: float
    """the part of its threads that is busy: 0 to 1"""
    sessions: int


def cookie(names: Collection[str], pool: Pool, now: float) -> str:
    """The ticket cookie with which first visits may take the fast lane; empty: all take the Python lane.

    `names`: the cookies in which AppServers hand out tickets. Apache can look for the absence of one only. After an
    AppServer has died, a request that kills it has to meet the adaptor's circuit breaker.
    """
    if pool.stopping or len(names) != 1 or now - pool.last_death < AFTER_DEATH:
        return ""
    return next(iter(names))


def shares(lives: Iterable[Life], settings: Settings, now: float) -> dict[int, float]:
    """The share of the first visits that each AppServer gets, by slot; none is named that gets none."""
    servers = [
        Server(life.slot, weight(life, settings.appservers, now), life.supervision.busy, life.sessions)
        for life in lives
        if life.state is LifeState.OK
    ]
    if not any(server.weight for server in servers):
        servers = [server._replace(weight=100) for server in servers]
    servers = [server for server in servers if server.weight]
    if settings.adaptor.policy == "random":
        return {server.slot: server.weight for server in servers}
    return by_load(servers)


def by_load(servers: Sequence[Server]) -> dict[int, float]:
    """The shares by weight and load. Every weight is more than 0.

    Sessions count only as far as an AppServer is free: a slow one has few of them because it is slow.
    """
    if not servers:
        return {}
    servers = [server for server in servers if server.busy <= FULL] or [
        server._replace(busy=0.0) for server in servers
    ]
    mean_weight = sum(server.weight for server in servers) / len(servers)
    sessions = [server.sessions * mean_weight / server.weight for server in servers]
    mean = sum(sessions) / len(sessions)
    found = {}
    for server, own in zip(servers, sessions, strict=True):
        free = 1 - server.busy
        found[server.slot] = server.weight * free * (1 + (_balance(own, mean) - 1) * free)
    return found


def _balance(own: float, mean: float) -> float:
    """More than 1 for fewer sessions than the mean. By chance alone, they differ by the root of the mean."""
    return min(MOST_BALANCE, max(LEAST_BALANCE, 1 + (mean - own) / math.sqrt(1 + mean)))


def counts(shares: Mapping[int, float]) -> dict[int, int]:
    """How often each slot is to stand in the line: by its share, and at least once."""
    total = sum(shares.values())
    names = max(NAMES, NAMES_EACH * len(shares))
    return {slot: max(1, round(names * share / total)) for slot, share in shares.items()}


def line(counts: Mapping[int, int], room: int, start: float) -> str:
    """The slots, `|` between them, each as often as `counts` says.

    If they need more than `room` characters, some are left out: every n-th name stays. `start`, 0 to less than 1 and
    drawn anew for each line, says from where on; so each slot's chance is by its count.
    """
    names = [str(slot) for slot, count in sorted(counts.items()) for _ in range(count)]
    text = "|".join(names)
    if len(text) <= room:
        return text
    fits = max(0, room + 1) // (1 + max(map(len, names)))
    return "|".join(names[int((number + start) * len(names) / fits)] for number in range(fits))
