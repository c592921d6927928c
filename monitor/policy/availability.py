"""What one of several machines tells the HAProxy in front of it: whether it wants new visitors, and how many. Pure.

`down` sends the holders of living sessions to other machines, where these sessions are not. So it is said only when
nobody here can serve them: as long as one AppServer stands in address.text, it is `drain`. So it is where sessions
survive: they wait in files for the next AppServer. If none comes, the health page ends the wait.

How many new visitors is how free the machine is, in percent. HAProxy chooses by facts of a second or two ago, so the
number goes in steps, and rises slowly after a start.
"""

from __future__ import annotations

import math
from collections import Counter

from lbadaptor.contract.settings import Settings
from lbadaptor.log import texts
from monitor.contract.messages import Availability, Word
from monitor.policy.pool import Pool
from monitor.policy.run_time import USUAL_WEIGHT, whole_weight
from monitor.policy.states import LifeState
from monitor.policy.weights import FIRST_SHARE, weight

SLOW_START = 60.0
"""Seconds in which a machine that begins to take visitors comes to ask for all that it can serve."""
STEP = 5
"""What is said is a multiple of this, in percent."""
HYSTERESIS = 4
"""It is said anew when the exact number differs by so much, in percent."""
LEAST_ROOM = 0.1
"""However many sessions there are, for new ones this part of the machine remains: HAProxy is to ask for fewer, and
not to turn anybody away."""


class MachineAvailability:
    """This machine as its front sees it. `now` is always monotonic seconds."""

    def __init__(self) -> None:
        self._percent = -100
        """what was said last, before bounds; at first far from all that can be said"""
        self._since: float | None = None
        """when it began to take visitors; None: nobody can serve any"""

    def availability(self, pool: Pool, leaving: bool, written: bool, now: float) -> Availability:
        """What to say. `leaving`: all are to leave this machine; `written`: address.text says what it should."""
        published = [life for life in pool.lives if life.published]
        if not published:
            self._since = None
            word = Word.DRAIN if pool.settings.sessions_survive else Word.DOWN
            return Availability(word, reason=f"no AppServer serves{_states(pool)}")
        if self._since is None:
            # One that was adopted has served before, and so has this machine.
            self._since = min(life.born if life.ready_at is None else life.ready_at for life in published)
        if pool.stopping:
            return Availability(Word.DRAIN, reason="everything is being stopped")
        if leaving:
            count = texts.count(sum(life.sessions for life in published), "session")
            return Availability(Word.DRAIN, reason=f"this machine is leaving: {count} in its AppServers")
        if not any(life.state is LifeState.OK for life in published):
            return Availability(Word.DRAIN, reason=f"no AppServer takes new visitors{_states(pool)}")
        if not written:
            return Availability(Word.DRAIN, reason="address.text cannot be written")
        part = free_capacity(pool, now) * room(pool) * self._risen(now)
        return Availability(Word.UP, self._percentage(100 * part, pool.settings), _of_how_many(pool))

    def _risen(self, now: float) -> float:
        """The part of the machine that its slow start offers so far, 0 to 1."""
        assert self._since is not None
        return min(1.0, FIRST_SHARE + (1 - FIRST_SHARE) * max(0.0, now - self._since) / SLOW_START)

    def _percentage(self, exact: float, settings: Settings) -> int:
        """In steps. Never so few that HAProxy, which takes this part of the weight and rounds down, has 0: that would
        be `drain`."""
        if abs(exact - self._percent) >= HYSTERESIS:
            self._percent = STEP * round(exact / STEP)
        return max(math.ceil(100 / settings.machine.weight), self._percent)


def free_capacity(pool: Pool, now: float) -> float:
    """The part of the machine that is free, 0 to 1.

    Each AppServer that is OK adds its weight, as in address.text, times the part of its threads that is free. The
    whole is the weight of as many AppServers as are asked for.
    """
    servers = pool.settings.appservers
    taking = [life for life in pool.lives if life.state is LifeState.OK]
    weights: list[float] = [weight(life, servers, now) for life in taking]
    whole = servers.servers * _mean_weight(pool)
    if not any(weights):  # those in reserve take visitors when no other is left
        weights, whole = [1] * len(taking), servers.servers
    free = sum(share * (1 - life.supervision.busy) for life, share in zip(taking, weights, strict=True))
    return min(1.0, max(0.0, free / whole))


def room(pool: Pool) -> float:
    """The part of the sessions for which this machine is made that it does not have yet; 1 where no number is set."""
    most = pool.settings.machine.sessions
    return max(LEAST_ROOM, 1 - _sessions(pool) / most) if most else 1.0


def _mean_weight(pool: Pool) -> float:
    """Of AppServers that are OK or on their way there, and not in standby; as it is after their slow start."""
    weights = [whole_weight(pool.settings, slot.number) for slot in pool if slot.counts and not slot.occupant.standby]
    return sum(weights) / len(weights) if any(weights) else USUAL_WEIGHT


def _sessions(pool: Pool) -> int:
    """Of DYING ones, too: they use the same memory."""
    return sum(life.sessions for life in pool.lives if life.published)


def _of_how_many(pool: Pool) -> str:
    ok = sum(life.state is LifeState.OK for life in pool.lives)
    sessions = texts.count(_sessions(pool), "session") if pool.settings.machine.sessions else ""
    return f"OK {ok} of {pool.settings.appservers.servers}" + (f", {sessions}" if sessions else "")


def _states(pool: Pool) -> str:
    """How many there are in which state: `: STARTING 4`."""
    found = Counter(slot.state.value for slot in pool)
    return f": {', '.join(f'{state} {count}' for state, count in found.items())}" if found else ""
