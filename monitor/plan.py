"""The plan: facts in, deeds out. Pure: no clock, no process, no file.

Facts change records, by the table in `life` alone. `think` looks at all records, and says what is to be
done. AppServers that are OK or on their way there are kept at the number asked for; DYING ones are beyond
it: each gets its replacement first, whatever made it leave (limit, order, release).
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from dataclasses import dataclass, field
from enum import Enum

from lbadaptor.address import Identity, free_slots
from lbadaptor.settings import Settings
from monitor.life import PUBLISHED, Event, Life, after
from monitor.messages import Vitals

log = logging.getLogger("lbmonitor")

SHORT_LIFE = 10.0
"""Seconds; who lived less gets a wait before the next try."""
PASS_OVER = 60.0
"""Seconds for which a slot whose port is in use is passed over."""
HUNG_GRACE = 2.0
"""Seconds between SIGTERM and SIGKILL for one that does not answer anyway."""
MARGIN = 2.0
"""Seconds beyond its own grace that an AppServer may take to exit."""
MOST_SESSIONS = 10**9
"""What an application's own count is taken for at most, and 0 at least: it has a column in address.text."""


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
    """One AppServer, or the place that waits for its successor (BACKOFF)."""

    slot: int
    generation: int
    since: float
    """when it came into its state; monotonic seconds"""
    born: float
    life: Life = Life.STARTING
    before_failing: Life = Life.OK
    leaving: set[str] = field(default_factory=set)
    """why it is to be replaced: limit, order, release"""
    undrained: bool = False
    sessions: int = 0
    vitals: Vitals | None = None
    """its last answer to a probe"""
    failed_probes: int = 0
    short_lives: int = 0
    wake_at: float = 0.0
    deadline: float = float("inf")
    """when it is killed if it did not do what it should (be ready, exit)"""
    vacant_since: float | None = None
    """since when its slot has been without an AppServer that serves"""
    hung: bool = False
    port_taken: str = ""
    why: str = ""

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


class Plan:
    """All records, and what is to become of them. `now` is always monotonic seconds."""

    def __init__(self, settings: Settings, last_generation: int = 0) -> None:
        self.settings = settings
        self.stopping = False
        self.rolling = False
        """a release is under way"""
        self._records: dict[int, Record] = {}
        self._passed_over: dict[int, float] = {}
        self._last_generation = last_generation
        self._deeds: list[Deed] = []
        self._said_full = False

    def __iter__(self) -> Iterator[Record]:
        return iter(sorted(self._records.values(), key=lambda record: record.slot))

    def find(self, identity: Identity) -> Record | None:
        """The record of an AppServer; None when it has gone, or another generation has its slot."""
        record = self._records.get(identity.slot)
        return record if record is not None and record.generation == identity.generation else None

    @property
    def over(self) -> bool:
        """Whether all have gone, as ordered."""
        return self.stopping and not self._records

    # Facts.

    def ready(self, identity: Identity, now: float) -> None:
        """Bound, and the application is imported."""
        record = self.find(identity)
        if record is None or not self._move(record, Event.READY, now):
            return
        record.deadline = float("inf")
        record.why = ""
        took = f"{(now - record.born) * 1000:.0f} ms"
        if record.vacant_since is None:
            log.info("slot %d is up after %s", record.slot, took)
        else:
            log.info("slot %d is back after %.0f ms", record.slot, (now - record.vacant_since) * 1000)
            record.vacant_since = None

    def failed(self, identity: Identity, why: str, port: bool) -> None:
        """It says that it cannot start; its exit follows."""
        record = self.find(identity)
        if record is not None:
            record.why = why
            record.port_taken = why if port else ""

    def exited(self, identity: Identity, how: str, now: float) -> None:
        """Its process is over. `how` says how, for people."""
        record = self.find(identity)
        if record is None:
            return
        lived = now - record.born
        level = logging.INFO if record.life is Life.STOPPING else logging.WARNING
        log.log(level, "slot %d (%s) %s after %.1f s", record.slot, record.life.value, how, lived)
        if record.port_taken and self._move(record, Event.PORT_TAKEN, now):
            log.warning("slot %d is passed over for %.0f s: %s", record.slot, PASS_OVER, record.port_taken)
            self._passed_over[record.slot] = now + PASS_OVER
            return
        served = record.life in (Life.OK, Life.FAILING)
        self._move(record, Event.EXIT, now)
        if record.life is Life.BACKOFF:
            record.short_lives = record.short_lives + 1 if lived < SHORT_LIFE else 0
            wait = self._wait(record.short_lives)
            record.wake_at = now + wait
            record.leaving.clear()
            record.sessions = 0
            record.vitals = None
            record.why = record.why or how
            record.deadline = float("inf")
            if served:
                record.vacant_since = now
            if wait:
                log.warning("slot %d is tried again in %.0f s: %s", record.slot, wait, record.why)

    def past_limit(self, identity: Identity, limit: str) -> None:
        """It has reached a limit and wants a replacement."""
        record = self.find(identity)
        if record is not None and record.life in PUBLISHED and "limit" not in record.leaving:
            record.leaving.add("limit")
            log.info("slot %d is past its limit (%s)", record.slot, limit)

    def empty(self, identity: Identity, now: float) -> None:
        """DYING, no session left, nothing in flight."""
        record = self.find(identity)
        if record is not None and record.life is Life.DYING:
            log.info("slot %d has no session left", record.slot)
            self._stop(record, Event.EMPTY, now)

    def probed(self, identity: Identity, vitals: Vitals, now: float) -> None:
        """It answered a probe."""
        record = self.find(identity)
        if record is None:
            return
        record.failed_probes = 0
        record.vitals = vitals
        record.sessions = min(max(0, vitals.sessions), MOST_SESSIONS)
        if record.life is Life.FAILING and self._move(record, Event.GOOD_PROBE, now):
            log.info("slot %d answers again: %s", record.slot, record.life.value)
        if vitals.past_limit:
            self.past_limit(identity, vitals.past_limit)
        if vitals.empty:
            self.empty(identity, now)

    def unanswered(self, identity: Identity, why: str, refused: bool, now: float) -> None:
        """A probe failed. `refused`: nobody listens there."""
        record = self.find(identity)
        if record is None:
            return
        record.failed_probes += 1
        monitor = self.settings.monitor
        if record.failed_probes >= monitor.fall and record.life in (Life.OK, Life.DYING):
            record.before_failing = record.life
            self._move(record, Event.PROBES_FAIL, now)
            log.warning("slot %d is FAILING: %d probes failed: %s", record.slot, record.failed_probes, why)
        elif (
            record.life is Life.FAILING
            and (refused or now - record.since >= monitor.failing_limit)
            and not any(other.hung for other in self)
        ):
            log.error("slot %d is hung and is ended", record.slot)
            record.hung = True
            self._stop(record, Event.HUNG, now)
            record.deadline = now + HUNG_GRACE

    # Orders. Each says in a sentence what came of it, and raises ValueError when nothing can.

    def drain(self, slot: int) -> str:
        """Replace an AppServer, then drain it."""
        record = self._at(slot)
        if record.life is Life.DYING or record.leaving - {"limit"}:
            return f"slot {slot} is on its way out already"
        if record.life is not Life.OK:
            raise ValueError(f"slot {slot} is {record.life.value}: only one that is OK can be drained")
        record.leaving.add("order")
        record.undrained = False
        log.info("slot %d is to be drained, by order", slot)
        return f"slot {slot} will be drained when its replacement is up"

    def undrain(self, slot: int, now: float) -> str:
        """Let a DYING AppServer, or one that is about to be drained, take new visitors again."""
        record = self._at(slot)
        if "limit" in record.leaving:
            raise ValueError(f"slot {slot} is past its limit and is not undrained")
        if record.life is Life.OK and record.leaving:
            record.leaving.clear()
        elif self._move(record, Event.UNDRAIN, now):
            record.leaving.clear()
            self._deeds.append(Tell(record.identity, Order.UNDRAIN))
        else:
            raise ValueError(f"slot {slot} is {record.life.value} and not being drained")
        record.undrained = True
        log.info("slot %d is undrained, by order", slot)
        return f"slot {slot} is OK again"

    def release(self, now: float) -> str:
        """Replace every AppServer, a few at a time; each drains when its replacement is up."""
        old = [record for record in self if record.counts]
        for record in old:
            if record.life is Life.BACKOFF:
                record.wake_at = now
                record.short_lives = 0
            else:
                record.leaving.add("release")
        self.rolling = True
        log.info("release: %d AppServers are replaced", len(old))
        return f"{len(old)} AppServers are replaced, {self.settings.monitor.replace_at_once} at a time"

    def stop(self, now: float) -> None:
        """End everything."""
        self.stopping = True
        for record in list(self):
            if record.life is Life.BACKOFF:
                self._move(record, Event.STOP, now)
            elif record.life is not Life.STOPPING:
                self._stop(record, Event.STOP, now)

    # Thinking.

    def think(self, now: float, wall_ms: int) -> list[Deed]:
        """What is to be done now, in this order; after address.text was written. `wall_ms` is unix time."""
        for record in self:
            if now >= record.deadline:
                log.error("slot %d does not %s: SIGKILL", record.slot, _DUTY[record.life])
                record.deadline = float("inf")
                self._deeds.append(Tell(record.identity, Order.KILL))
        if not self.stopping:
            self._fill(now, wall_ms)
            self._drain_surplus(now)
        deeds, self._deeds = self._deeds, []
        return deeds

    def next_wake(self, now: float) -> float:
        """Seconds until time alone makes a difference."""
        moments = [record.deadline for record in self]
        moments += [record.wake_at for record in self if record.life is Life.BACKOFF]
        if not self.stopping:
            moments += self._passed_over.values()
        return max(0.0, min(moments, default=float("inf")) - now)

    def _fill(self, now: float, wall_ms: int) -> None:
        """Start what is missing; forget a waiting one that is not wanted any more."""
        outgoing = [record for record in self if record.life is Life.OK and record.leaving]
        if self.rolling and not any("release" in record.leaving for record in self if record.counts):
            self.rolling = False
            log.info("release: every AppServer has been replaced")
        replaceable = [record for record in outgoing if record.leaving != {"limit"} or self._may_die]
        wanted = self.settings.appservers.servers + min(len(replaceable), self.settings.monitor.replace_at_once)
        active = [record for record in self if record.counts]
        for record in reversed(active):
            if len(active) > wanted and record.life is Life.BACKOFF:
                self._move(record, Event.STOP, now)
                active.remove(record)
        for record in active:
            if record.life is Life.BACKOFF and now >= record.wake_at:
                self._begin(record, now, wall_ms)
        self._passed_over = {slot: until for slot, until in self._passed_over.items() if until > now}
        for _ in range(wanted - len(active)):
            slots = free_slots([*self._records, *self._passed_over], self.settings.slots)
            if not slots:
                self._out_of_slots(now)
                return
            self._said_full = False
            record = Record(slots[0], 0, now, now)
            self._records[slots[0]] = record
            self._begin(record, now, wall_ms)

    def _drain_surplus(self, now: float) -> None:
        """While more are OK than asked for, drain one that is to leave; else the one with the fewest sessions."""
        while True:
            ok = [record for record in self if record.life is Life.OK]
            if len(ok) <= self.settings.appservers.servers:
                return
            leaving = [record for record in ok if record.leaving and (record.leaving != {"limit"} or self._may_die)]
            chosen = min(leaving or ok, key=lambda record: (record.undrained, record.sessions, -record.generation))
            if not leaving and any(record.leaving for record in ok):
                return  # a replacement waits for the cap on DYING ones
            self._move(chosen, Event.DRAIN, now)
            why = " and ".join(sorted(chosen.leaving)) or "one too many"
            log.info("slot %d is DYING (%s), with %d sessions", chosen.slot, why, chosen.sessions)
            self._deeds.append(Tell(chosen.identity, Order.DRAIN))

    @property
    def _may_die(self) -> bool:
        """Whether the cap on DYING ones allows another."""
        return sum(record.draining for record in self) < self.settings.max_dying

    def _out_of_slots(self, now: float) -> None:
        if any(record.life is Life.STOPPING for record in self):
            return  # its slot is free in a moment
        dying = [record for record in self if record.life is Life.DYING]
        if self.rolling and dying:
            ended = min(dying, key=lambda record: record.sessions)
            log.warning(
                "no slot is free for the release: slot %d is ended with %d sessions", ended.slot, ended.sessions
            )
            self._stop(ended, Event.LIMIT, now)
        elif not self._said_full:
            self._said_full = True
            log.warning("no slot is free: slots = %d", self.settings.slots)

    def _begin(self, record: Record, now: float, wall_ms: int) -> None:
        """A new life in a slot."""
        self._last_generation = max(self._last_generation + 1, wall_ms)
        if record.life is Life.BACKOFF:
            self._move(record, Event.WAIT_OVER, now)
        record.generation = self._last_generation
        record.born = now
        record.failed_probes = 0
        record.undrained = False
        record.deadline = now + self.settings.monitor.start_timeout
        self._deeds.append(Start(record.identity))

    def _stop(self, record: Record, event: Event, now: float) -> None:
        if self._move(record, event, now):
            record.deadline = now + self.settings.monitor.stop_grace + MARGIN
            self._deeds.append(Tell(record.identity, Order.STOP))

    def _move(self, record: Record, event: Event, now: float) -> bool:
        """The one place where a state changes. False: the event means nothing in this state."""
        then = after(record.life, record.before_failing, event)
        if then is None:
            return False
        record.life = then
        record.since = now
        if then is Life.GONE:
            del self._records[record.slot]
        return True

    def _at(self, slot: int) -> Record:
        record = self._records.get(slot)
        if record is None:
            known = ", ".join(str(other.slot) for other in self) or "none"
            raise ValueError(f"there is no AppServer in slot {slot}; the slots in use are: {known}")
        return record

    def _wait(self, short_lives: int) -> float:
        """Seconds before the next try: none the first time, then growing and bounded."""
        if short_lives < 2:
            return 0.0
        return float(min(self.settings.monitor.backoff_limit, 2.0 ** min(short_lives - 2, 30)))


_DUTY = {Life.STARTING: "get ready", Life.STOPPING: "exit"}
