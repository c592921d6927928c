"""What the plan knows of one AppServer, and what it can want done with one. Pure."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum

from lbadaptor.contract.address import Identity
from lbadaptor.contract.settings import AppServers
from monitor.contract.messages import Vitals
from monitor.policy.states import Life

FIRST_SHARE = 0.1
"""What part of its weight a newcomer has at first, where there is a slow start."""


class Order(Enum):
    """What an AppServer can be told."""

    DRAIN = "drain"
    UNDRAIN = "undrain"
    STOP = "stop"
    KILL = "kill"


@dataclass(frozen=True)
class Start:
    """Fork an AppServer."""

    identity: Identity


@dataclass(frozen=True)
class Tell:
    """Give an AppServer an order."""

    identity: Identity
    order: Order


Deed = Start | Tell


@dataclass
class Record:
    """One life of an AppServer, or (BACKOFF) the place that waits for the next one.

    Each life has a record of its own, made by `next`, so that nothing of the one before can be left in it.
    """

    slot: int
    generation: int
    since: float
    """when it came into its state; monotonic seconds"""
    born: float
    life: Life = Life.STARTING
    before_failing: Life = Life.OK
    leaving: set[str] = field(default_factory=set)
    """why it is to be replaced: limit, order, release; `now`: and its sessions are not waited for"""
    undrained: bool = False
    standby: bool = False
    """kept in reserve: new visitors only when no other takes them"""
    ready_at: float | None = None
    """when its ready message came; None: not yet"""
    draining_since: float | None = None
    sessions: int = 0
    vitals: Vitals | None = None
    """its last answer to a probe"""
    failed_probes: int = 0
    cpu: float = 0.0
    """seconds for which its process had computed, when a probe failed"""
    computed_at: float = float("-inf")
    """when it was last seen computing"""
    deadline: float = float("inf")
    """when it is killed if it did not do what it should (be ready, exit)"""
    hung_since: float | None = None
    """when it was found to be hung, and was ordered to stop"""
    killed: str = ""
    """why SIGKILL was sent to it"""
    disobeyed: int = 0
    """answers to probes in a row that contradict the last order to drain or undrain"""
    needs_more: bool = False
    """it had more than `hard_memory` as soon as it was ready: that is no limit for it"""
    last_words: str = ""
    """why it cannot start, as it says itself"""
    port_taken: str = ""

    # The history of the slot, which goes on from life to life.
    why: str = ""
    """why it is as it is: what the last start failed by, or the last probe"""
    short_lives: int = 0
    """lives in a row that were short, or failed to start"""
    wake_at: float = 0.0
    """when the next life may begin"""
    vacant_since: float | None = None
    """since when its slot has been without an AppServer that serves"""

    def next(self, generation: int, life: Life, now: float) -> Record:
        """The record of the next life, or of the wait for it: it has the history of the slot and nothing else."""
        return Record(
            self.slot,
            generation,
            since=now,
            born=now,
            life=life,
            why=self.why,
            short_lives=self.short_lives,
            wake_at=self.wake_at,
            vacant_since=self.vacant_since,
        )

    @property
    def identity(self) -> Identity:
        return Identity(self.slot, self.generation)

    @property
    def counts(self) -> bool:
        """Whether it is OK or on its way there."""
        return self.life in (Life.STARTING, Life.OK, Life.BACKOFF) or (
            self.life is Life.FAILING and self.before_failing is Life.OK
        )

    @property
    def draining(self) -> bool:
        return self.life is Life.DYING or (self.life is Life.FAILING and self.before_failing is Life.DYING)


def own_limits(servers: AppServers, generation: int) -> tuple[int, float]:
    """An AppServer's own `max_requests` and `max_age`, so that they do not all leave at once.

    Multiples of the golden ratio lie evenly between 0 and 1, however many there are (Knuth, TAOCP 6.4).
    """
    part = generation * 2654435769 % 2**32 / 2**32 * servers.spread / 100
    return servers.max_requests - int(servers.max_requests * part), servers.max_age * (1 - part)


def weight(record: Record, servers: AppServers, now: float) -> int:
    """Its share of new visitors, for address.text: whole when its slow start is over, none in standby."""
    whole = servers.weights[record.slot] if record.slot < len(servers.weights) else 100
    if record.standby or not whole:
        return 0
    ready_for = 0.0 if record.ready_at is None else max(0.0, now - record.ready_at)  # it may be ready since `now`
    if record.ready_at is None or ready_for >= servers.slow_start:
        return whole
    share = FIRST_SHARE + (1 - FIRST_SHARE) * ready_for / servers.slow_start
    return max(1, round(whole * share))
