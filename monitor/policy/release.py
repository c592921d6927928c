"""A release: every AppServer is replaced, a few at a time. Pure."""

from __future__ import annotations

from collections.abc import Iterable

from lbadaptor.contract.settings import Settings
from lbadaptor.log import texts
from monitor.policy.life import Life, Reason
from monitor.policy.slot import Backoff, Slot, Slots
from monitor.policy.states import LifeState


class Release:
    """One release and its progress. A new object is made for each."""

    def __init__(self, under_way: bool = False) -> None:
        self.under_way = under_way
        self.ended: list[str] = []
        """the AppServers whose sessions it has ended, in words"""
        self.total = 0
        """how many it has to replace"""

    @classmethod
    def begin(cls, slots: Slots, wanted: int, end_sessions: bool, now: float) -> Release:
        """Mark the AppServers that are to be replaced; those that wait for a start are started without a wait."""
        for slot in slots:
            life = slot.life
            if slot.coming:
                slot.backoff = Backoff(wake_at=now)  # its failures were those of the release before
            if life is not None and life.counts:
                life.leaving.add(Reason.RELEASE)
            if life is not None and life.published and end_sessions:
                life.leaving.add(Reason.END_SESSIONS)
        release = cls(under_way=True)
        release.total = release._pending(slots, wanted)
        return release

    def adopt(self, life: Life) -> None:
        """The monitor before was replacing an AppServer: go on with that."""
        if life.counts and Reason.RELEASE in life.leaving:
            self.under_way = True
            self.total += 1

    def done(self, slots: Iterable[Slot], wanted: int) -> bool:
        """Whether every AppServer has been replaced, and as many as are wanted serve."""
        return not self._pending(slots, wanted)

    def replaced(self, slots: Iterable[Slot], wanted: int) -> tuple[int, int]:
        """How many it has replaced, of how many."""
        return max(0, self.total - self._pending(slots, wanted)), self.total

    def waiting(self, slots: Slots, no_slot: bool) -> str:
        """What it is waiting for, in words; empty when it is over. `no_slot`: none is free for a replacement."""
        if not self.under_way:
            return ""
        coming = [slot for slot in slots if slot.coming]
        for slot in coming:
            if slot.why:
                return f"failed: slot {slot.number}: {slot.why}"
        stopping = [slot for slot in slots if slot.state is LifeState.STOPPING]
        old = [slot for slot in slots if _is_old(slot.life) and slot.state is not LifeState.OK]
        for slot in (*coming, *stopping, *old):
            return f"slot {slot.number} is {slot.state.value}"
        return "no slot is free" if no_slot else "the next one starts"

    @staticmethod
    def _pending(slots: Iterable[Slot], wanted: int) -> int:
        """How many are yet to be replaced, or to get going: a place in which no AppServer serves needs one, too."""
        serving = [slot for slot in slots if slot.counts and not slot.coming]
        old = [slot for slot in serving if _is_old(slot.life)]
        return len(old) + max(0, wanted - len(serving))


def _is_old(life: Life | None) -> bool:
    """Whether it is of the release before, and is to be replaced."""
    return life is not None and life.counts and Reason.RELEASE in life.leaving


def announcement(release: Release, slots: Slots, settings: Settings, end_sessions: bool) -> str:
    """The reply to an order for a release."""
    pace = "all" if settings.sessions_survive else str(settings.monitor.replace_at_once)
    text = f"replacing {texts.count(release.total, 'AppServer')}, {pace} at a time"
    draining = sum(life.draining for life in slots.lives)
    free = settings.slots - len(slots)
    if draining and free < release.total and not end_sessions:
        text += (
            f"; free slots: {free}, slots of DYING AppServers: {draining}. When no slot is free, the DYING AppServer"
            " with the fewest sessions is ended"
        )
    return text
