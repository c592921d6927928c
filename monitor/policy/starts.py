"""Which AppServers start now, in which slots, and with which generations. Pure."""

from __future__ import annotations

from lbadaptor.contract import generation
from lbadaptor.contract.settings import Settings
from monitor.policy.actions import Start
from monitor.policy.life import Life
from monitor.policy.slot import Slots
from monitor.policy.states import LifeState

FEWEST_STARTS = 8
"""So many may be starting at once, at least, where the settings do not say how many."""


class Starts:
    """Fills the slots, a few at a time. `now` is monotonic seconds, `wall_ms` unix time."""

    def __init__(
        self,
        slots: Slots,
        last_generation: int = 0,
        cores: int = 1,
        next_generation: generation.Next = generation.without_number,
    ) -> None:
        self._slots = slots
        self.last_generation = last_generation
        """the highest one that was used on this machine"""
        self._cores = cores
        self._next_generation = next_generation
        self.lacks_slot = False
        """the last `fill` found no free slot for an AppServer that is wanted"""

    def adopted(self, life: Life) -> None:
        """Its generation was used, whatever the files say."""
        self.last_generation = max(self.last_generation, life.generation)

    def room(self, settings: Settings) -> bool:
        """Whether another may start now. Bounded: all at once would take one another's time to start."""
        most = settings.monitor.starts_at_once or max(FEWEST_STARTS, 2 * self._cores)
        return sum(slot.state is LifeState.STARTING for slot in self._slots) < most

    def fill(self, wanted: int, settings: Settings, now: float, wall_ms: int) -> list[Start]:
        """Start what is missing; forget a waiting one that is not `wanted` any more."""
        active = [slot for slot in self._slots if slot.counts]
        for slot in reversed(active):
            if len(active) > wanted and slot.life is None:
                self._slots.stop_waiting(slot)
                active.remove(slot)
        self._slots.forget_passed_over(now)
        due = [slot for slot in active if slot.life is None and now >= slot.backoff.wake_at]
        due.sort(key=lambda slot: slot.backoff.failures)
        missing, free = max(0, wanted - len(active)), self._slots.free(settings.slots)
        first = [*(slot.number for slot in due if slot.backoff.failures < 2), *free[:missing]]
        begun = [self._start(number, settings, now, wall_ms) for number in first if self.room(settings)]
        self.lacks_slot = missing > len(free) and self.room(settings)
        # Those that failed before come last: they must not keep the others from being tried.
        last = [slot.number for slot in due if slot.backoff.failures >= 2]
        begun += [self._start(number, settings, now, wall_ms) for number in last if self.room(settings)]
        return begun

    def _start(self, number: int, settings: Settings, now: float, wall_ms: int) -> Start:
        """A new life in a slot that is free or waits for one."""
        self.last_generation = self._next_generation(self.last_generation, wall_ms, number)
        servers = settings.appservers
        life = Life(
            slot=number,
            generation=self.last_generation,
            host=servers.host,
            port=servers.base_port + number,
            since=now,
            born=now,
        )
        life.supervision.deadline = now + settings.monitor.start_timeout
        self._slots.begin(life)
        return Start(life.identity)
