"""The drain of the whole machine (`lbctl drain --all`): it is to get empty, and may be switched off then. Pure.

The balancers in front send new visitors to other machines. Here, nothing changes for visitors. The AppServers stay
OK: holders reach theirs, and a visitor without a session who comes all the same is served. Nothing is replaced: not
for a limit, not in a release, and not after a death as long as another one serves. What is put off happens when the
drain is taken back.
"""

from __future__ import annotations

from collections.abc import Iterable
from enum import Enum

from lbadaptor.contract.settings import Settings
from lbadaptor.log import logs
from monitor.contract.events import What
from monitor.policy.journal import Journal
from monitor.policy.life import Life
from monitor.policy.slot import Slots
from monitor.policy.states import LifeState

log = logs.logger("lbmonitor")

QUIET_PROBES = 10
"""So many probes in a row have to find no session before the machine is empty. Balancers, too, need a
moment to learn that they are to send no new visitors."""
FILES_LAG = 15.0
"""Seconds by which the count of sessions in files may lag behind: an AppServer looks through the folder piece by
piece (`lbadaptor.appserver.sessions.persistence.sweep`), and one that leaves has just moved its sessions there."""
REFUSED = "this machine is leaving, and nothing in it is replaced; `lbctl undrain --all` first"
"""Why an order is refused meanwhile, and the way out."""
PUT_OFF = "this machine is leaving; goes on with `lbctl undrain --all`"
"""What a release waits for meanwhile."""


class Stage(Enum):
    STAYING = "staying"
    LEAVING = "leaving"
    EMPTY = "empty"
    """leaving, and without a session; it is LEAVING again when one comes"""


class MachineDrain:
    """Whether the machine is leaving, and whether it is empty. Times are monotonic seconds."""

    def __init__(self, journal: Journal) -> None:
        self._journal = journal
        self._stage = Stage.STAYING
        self._seen = 0.0
        """when a session was here last, or may have been"""
        self._told = False
        """that it is empty was said"""

    @property
    def under_way(self) -> bool:
        return self._stage is not Stage.STAYING

    @property
    def empty(self) -> bool:
        return self._stage is Stage.EMPTY

    def begin(self, now: float) -> None:
        """It is to leave; or it goes on leaving under a monitor that has just begun."""
        self._stage, self._seen, self._told = Stage.LEAVING, now, False

    def end(self) -> None:
        """It stays."""
        self._stage = Stage.STAYING

    def stood_still(self, seconds: float) -> None:
        """Nobody has looked for so long."""
        self._seen += seconds

    def look(self, lives: list[Life], settings: Settings, now: float) -> None:
        """Find out whether it is empty."""
        if not self.under_way:
            return
        if not _known_to_be_empty(lives, settings):
            self._seen = now
        self._stage = Stage.EMPTY if now >= self.empty_at(settings) else Stage.LEAVING
        if self.empty and not self._told:
            self._told = True
            log.info("this machine is empty: it can be switched off")
            self._journal.note(What.MACHINE_EMPTY, "it can be switched off")

    def empty_at(self, settings: Settings) -> float:
        """When it is empty if no session comes."""
        lag = FILES_LAG if settings.sessions_survive else 0.0
        return self._seen + max(QUIET_PROBES * settings.monitor.probe_interval, lag)

    def wanted(self, slots: Slots) -> int:
        """How many are to be OK or on their way there: those that are; one, if none is and sessions may be left."""
        there = sum(slot.counts and slot.life is not None for slot in slots)
        return there or int(not self.empty)


def sessions(lives: Iterable[Life], settings: Settings) -> int:
    """How many sessions live in AppServers, or wait in files for their visitors, as far as is known."""
    lives = list(lives)
    return sum(life.sessions for life in lives) + (_waiting(lives, settings) or 0)


def longest_session(lives: Iterable[Life]) -> float:
    """Seconds until the last of the sessions that are here now ends if nobody uses it again.

    0: there is none, or nobody tells.
    """
    answers = [life.supervision.answer for life in lives]
    moments = [answer.longest_session for answer in answers if answer]
    moments += [answer.kept.waiting_longest for answer in answers if answer and answer.kept]
    return max(moments, default=0.0)


def _known_to_be_empty(lives: list[Life], settings: Settings) -> bool:
    """Whether each AppServer that may have sessions has said that it has none, and none waits in files."""
    return _waiting(lives, settings) == 0 and all(
        life.state is LifeState.STARTING or (life.supervision.answer is not None and not life.sessions)
        for life in lives
    )


def _waiting(lives: Iterable[Life], settings: Settings) -> int | None:
    """How many sessions wait in files for their visitors. None: nobody has counted them yet.

    One AppServer counts them. Where none can save sessions, none can take up one that waits.
    """
    answers = [life.supervision.answer for life in lives]
    kept = [answer.kept for answer in answers if answer and answer.kept]
    counted = [one.waiting for one in kept if one.waiting is not None]
    if counted:
        return max(counted)
    in_vain = bool(kept) and all(one.why for one in kept)
    return 0 if in_vain or not settings.sessions_survive else None
