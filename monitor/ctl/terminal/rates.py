"""What AppServers did between two looks at their counters: requests, how long they lasted, processor time. Pure."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

Durations = dict[float, int]
"""How many requests were at work for how long: by the most seconds, which may be infinity."""


@dataclass(frozen=True)
class Rates:
    """Of one AppServer, or of several together, a second."""

    requests: float = 0.0
    cpu: float = 0.0
    """seconds of processor time"""
    durations: Durations | None = None
    """of all requests of the interval; None: they are not told"""


@dataclass(frozen=True)
class _Counters:
    """An AppServer's, `uptime` seconds after its start."""

    uptime: float
    served: int
    cpu: float
    durations: Durations | None


class Interval:
    """Rates since the last look at which an AppServer's counters were new: a probe comes only now and then."""

    def __init__(self) -> None:
        self._last: dict[tuple[int, int], _Counters] = {}
        self._rates: dict[tuple[int, int], Rates] = {}

    def look(self, status: dict[str, Any]) -> bool:
        """Take the counters in a status. Whether all AppServers that told some at the last look have new ones."""
        now = {_identity(server): _counters(server) for server in status["appservers"] if server.get("uptime")}
        all_new = True
        for identity in self._last.keys() - now.keys():
            del self._last[identity]
            self._rates.pop(identity, None)
        for identity, counters in now.items():
            before = self._last.get(identity)
            if before is not None and counters.uptime <= before.uptime:
                all_new = False
                continue
            if before is not None:
                self._rates[identity] = _rates(before, counters)
            self._last[identity] = counters
        return all_new

    def of(self, server: dict[str, Any]) -> Rates | None:
        """Of an AppServer in a status. None: there was one look at it, or it does not answer its probes."""
        return None if server["state"] == "FAILING" else self._rates.get(_identity(server))


def total(rates: Iterable[Rates]) -> Rates:
    """Of several AppServers together."""
    requests = cpu = 0.0
    durations: Durations = {}
    for one in rates:
        requests += one.requests
        cpu += one.cpu
        for bound, count in (one.durations or {}).items():
            durations[bound] = durations.get(bound, 0) + count
    return Rates(requests, cpu, durations)


def within(durations: Durations | None, share: float) -> float | None:
    """Seconds within which this share of the requests was done, at most. None: there were none, or it is not told."""
    wanted = math.ceil(share * sum((durations or {}).values()))
    for bound, count in sorted((durations or {}).items()):
        wanted -= count
        if wanted <= 0:
            return bound
    return None


def _identity(server: dict[str, Any]) -> tuple[int, int]:
    return server["slot"], server["generation"]


def _counters(server: dict[str, Any]) -> _Counters:
    told = server.get("durations")
    durations = None if told is None else {float(bound): count for bound, count in told.items()}
    return _Counters(server["uptime"], server["served"], server["cpu"], durations)


def _rates(before: _Counters, now: _Counters) -> Rates:
    """What was counted between two looks. A counter that was set back, after the warm-up, counts from zero."""
    seconds = now.uptime - before.uptime
    set_back = now.served < before.served
    durations = None
    if now.durations is not None:
        old = {} if set_back or before.durations is None else before.durations
        differences = {bound: count - old.get(bound, 0) for bound, count in now.durations.items()}
        durations = {bound: count for bound, count in differences.items() if count > 0}
    served = now.served - (0 if set_back else before.served)
    return Rates(served / seconds, max(0.0, now.cpu - before.cpu) / seconds, durations)
