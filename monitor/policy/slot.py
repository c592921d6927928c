"""A slot: what goes on from one life to the next, and whether it is occupied by a life or waits for one. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

from lbadaptor.contract.address import Identity, free_slots
from monitor.contract.events import What
from monitor.policy.journal import Journal
from monitor.policy.life import Life
from monitor.policy.states import Event, LifeState, after

SHORT_LIFE = 10.0
"""Seconds: an AppServer that served for less counts as a failure; so does one that never got ready."""
PASS_OVER = 60.0
"""Seconds for which a slot whose port is in use is passed over."""


@dataclass(frozen=True)
class Backoff:
    """How long a slot waits before its next life, and why."""

    failures: int = 0
    """lives in a row that were short, or never got ready"""
    why: str = ""
    """what the last life failed by; empty once one is ready"""
    wake_at: float = 0.0
    """when the next life may begin; monotonic seconds"""

    def after_life(self, served: float | None, why: str, now: float, limit: float) -> Backoff:
        """After a life that served for so many seconds (None: it never got ready) and ended because of `why`.

        No wait the first time; then waits that grow up to `limit` seconds.
        """
        failures = self.failures + 1 if served is None or served < SHORT_LIFE else 0
        wait = 0.0 if failures < 2 else min(limit, 2.0 ** min(failures - 2, 30))
        return Backoff(failures, why, now + wait)

    @property
    def next_is_told(self) -> bool:
        """Whether it is an event when the next life does not get ready either: after 0, 1, 2, 4, 8, 16 … failures.

        A start that fails all night would push out of `events.jsonl` what had happened before.
        """
        return self.failures & (self.failures - 1) == 0

    def without_reason(self) -> Backoff:
        """As it goes on while a life that is ready has yet to show that it lasts."""
        return Backoff(self.failures, "", self.wake_at)


@dataclass
class Wait:
    """The time between two lives: the slot is in BACKOFF."""

    generation: int
    """that of the life before"""
    since: float
    standby: bool = False
    """the slot is counted as one in reserve"""


@dataclass
class Slot:
    """A slot in use."""

    number: int
    occupant: Life | Wait
    backoff: Backoff = field(default_factory=Backoff)
    vacant_since: float | None = None
    """since when no AppServer in it has served; None: one serves, or none has served yet"""

    @property
    def life(self) -> Life | None:
        return self.occupant if isinstance(self.occupant, Life) else None

    @property
    def state(self) -> LifeState:
        return self.occupant.state if isinstance(self.occupant, Life) else LifeState.BACKOFF

    @property
    def identity(self) -> Identity:
        return Identity(self.number, self.occupant.generation)

    @property
    def counts(self) -> bool:
        """Whether its AppServer is OK or on its way there."""
        return not isinstance(self.occupant, Life) or self.occupant.counts

    @property
    def coming(self) -> bool:
        """Whether its AppServer is yet to serve."""
        return self.state in (LifeState.STARTING, LifeState.BACKOFF)

    @property
    def why(self) -> str:
        """Why its AppServer does not serve: what the probes failed by, or the last start."""
        if self.life is None:
            return self.backoff.why
        watched = self.life.supervision
        return watched.failure or watched.start_error or self.backoff.why

    def became_ready(self) -> None:
        """Its AppServer serves; whether it lasts is yet to be seen."""
        self.backoff = self.backoff.without_reason()
        self.vacant_since = None


_NOTED = {
    Event.READY: What.READY,
    Event.DRAIN: What.DRAIN,
    Event.UNDRAIN: What.UNDRAIN,
    Event.PROBES_FAIL: What.FAILING,
    Event.GOOD_PROBE: What.RECOVERED,
    Event.HUNG: What.STOPPING,
    Event.EMPTY: What.STOPPING,
    Event.LIMIT: What.STOPPING,
    Event.STOP: What.STOPPING,
    Event.PORT_TAKEN: What.EXIT,
    Event.EXIT: What.EXIT,
}
"""What people are told of a change of state."""


class Slots:
    """The slots in use, and those that cannot be used. A state changes here and nowhere else, and is noted here."""

    def __init__(self, journal: Journal | None = None) -> None:
        self._journal = Journal() if journal is None else journal
        self._in_use: dict[int, Slot] = {}
        """in the order of their numbers"""
        self._passed_over: dict[int, float] = {}
        """until when; monotonic seconds"""
        self.reserved: set[int] = set()
        """slots that AppServers occupy which are not adopted yet"""

    def __iter__(self) -> Iterator[Slot]:
        return iter(list(self._in_use.values()))

    def __len__(self) -> int:
        return len(self._in_use)

    @property
    def lives(self) -> list[Life]:
        """The AppServers, by slot."""
        return [slot.life for slot in self if slot.life is not None]

    def find(self, identity: Identity) -> Life | None:
        """An AppServer; None when it has gone."""
        slot = self._in_use.get(identity.slot)
        life = slot.life if slot is not None else None
        return life if life is not None and life.generation == identity.generation else None

    def of(self, life: Life) -> Slot:
        return self._in_use[life.slot]

    def at(self, number: int) -> Slot:
        """Raises ValueError, for people, where the slot is not in use."""
        slot = self._in_use.get(number)
        if slot is None:
            numbers = ", ".join(str(other.number) for other in self) or "none"
            raise ValueError(f"there is no AppServer in slot {number}; the slots in use are: {numbers}")
        return slot

    def begin(self, life: Life) -> None:
        """A new life begins in its slot."""
        self.occupy(life)
        if self.of(life).backoff.next_is_told:
            self._journal.note_life(What.START, life)

    def occupy(self, life: Life) -> None:
        """A life begins in its slot, or is adopted."""
        slot = self._in_use.get(life.slot)
        if slot is None:
            self._in_use[life.slot] = Slot(life.slot, life)
            self._in_use = dict(sorted(self._in_use.items()))
        else:
            slot.occupant = life

    def move(self, life: Life, event: Event, now: float, why: str = "", lost: int = 0) -> bool:
        """Change the state of a life as the table says. False: the event means nothing in its state.

        `why` it happens, for people; how many sessions are `lost` by it.
        """
        then = after(life.state, life.before_failing, event)
        if then is None:
            return False
        if life.state is not LifeState.FAILING and then is LifeState.FAILING:
            life.before_failing = life.state
        life.state, life.since = then, now
        self.note(_NOTED[event], life, now, why, lost)
        if then is LifeState.BACKOFF:
            self._in_use[life.slot].occupant = Wait(life.generation, now)
        elif then is LifeState.GONE:
            del self._in_use[life.slot]
        return True

    def note(self, what: What, life: Life, now: float, why: str, lost: int = 0) -> None:
        """An event, unless it repeats what has happened to the lives before."""
        backoff = self.of(life).backoff
        if what in (What.KILLED, What.EXIT) and life.served(now) is None and backoff.failures:
            if not backoff.next_is_told:
                return
            if what is What.EXIT:
                why += f"; {backoff.failures + 1} starts in a row have failed"
        self._journal.note_life(what, life, why, lost)

    def stop_waiting(self, slot: Slot) -> None:
        """No life is to follow in a slot that waits for one."""
        assert after(slot.state, slot.state, Event.STOP) is LifeState.GONE
        del self._in_use[slot.number]

    def pass_over(self, number: int, now: float) -> None:
        """Its port is in use: leave it out for a while."""
        self._passed_over[number] = now + PASS_OVER

    @property
    def passed_over_until(self) -> Iterable[float]:
        return self._passed_over.values()

    def forget_passed_over(self, now: float) -> None:
        """Those that were left out for long enough can be used again."""
        self._passed_over = {number: until for number, until in self._passed_over.items() if until > now}

    def free(self, limit: int) -> list[int]:
        """The free slots below `limit`, lowest first."""
        return free_slots([*self._in_use, *self._passed_over, *self.reserved], limit)
