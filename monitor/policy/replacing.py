"""Which AppServers are replaced, how many at a time, and which of them leaves next. Pure.

An AppServer that is to be replaced (order, limit, release) leaves when one more is OK than is kept.

Where sessions survive, a release is different: the sessions of one that leaves move within seconds to those that are
OK. If the first one left as soon as one new AppServer is OK, the new ones would get very unequal shares (52, 27, 15
and 6 % of four). So all replacements are started first, as far as there are slots, and none of the old ones leaves
while one of these is STARTING. Meanwhile as many old ones as new ones are OK have no weight, and new visitors go to
others.
"""

from __future__ import annotations

from lbadaptor.contract.settings import Settings
from monitor.policy.life import Life, Reason
from monitor.policy.slot import Slots
from monitor.policy.states import LifeState


def kept(settings: Settings) -> int:
    """How many are to be OK."""
    return settings.appservers.servers + settings.appservers.standby


def wanted(slots: Slots, settings: Settings) -> int:
    """How many are to be OK or on their way there: as many as are kept, and the replacements of those that leave."""
    outgoing = _to_be_replaced(slots, settings)
    at_once = settings.monitor.replace_at_once
    if settings.sessions_survive and any(map(_released, outgoing)):
        started = sum(slot.counts for slot in slots) - kept(settings)
        others = sum(not _released(life) for life in outgoing)
        room = max(at_once, started + len(slots.free(settings.slots)))
        return kept(settings) + min(len(outgoing) - others + min(others, at_once), room)
    return kept(settings) + min(len(outgoing), at_once)


def next_to_leave(slots: Slots, settings: Settings) -> Life | None:
    """While more are OK than are kept, one that is to leave; else the one with the fewest sessions."""
    ok = _ok(slots)
    if len(ok) <= kept(settings):
        return None
    leaving = _to_be_replaced(slots, settings)
    if not leaving and any(life.leaving for life in ok):
        return None  # a replacement waits for the cap on DYING ones
    if _replacements_start(slots, settings):
        leaving = [life for life in leaving if not _released(life)]
        if not leaving:
            return None
    return min(leaving or ok, key=_order)


def choose_replaced(slots: Slots, settings: Settings) -> None:
    """Mark the old ones whose replacements are OK, while they wait for the others to start."""
    ok = _ok(slots)
    old = sorted((life for life in ok if _released(life)), key=_order)
    count = len(ok) - kept(settings) if settings.sessions_survive else 0
    replaced = [life.identity for life in old[: max(0, count)]]
    for life in ok:
        life.supervision.replaced = life.identity in replaced


def to_end_for_a_slot(slots: Slots, settings: Settings, now: float) -> Life | None:
    """The DYING one that is ended when a release finds no free slot: the one with the fewest sessions.

    Where sessions survive, each gets `stop_grace` first to move its sessions: then its slot is free by itself.
    """
    dying = [life for life in slots.lives if life.draining and now >= _end_at(life, settings)]
    return min(dying, key=lambda life: life.sessions, default=None)


def next_end_for_a_slot(slots: Slots, settings: Settings, now: float) -> list[float]:
    """When further ones may be ended so; monotonic seconds."""
    moments = [_end_at(life, settings) for life in slots.lives if life.draining]
    return [moment for moment in moments if moment > now]


def _end_at(life: Life, settings: Settings) -> float:
    since = life.since if life.draining_since is None else life.draining_since
    return since + settings.monitor.stop_grace if settings.sessions_survive else float("-inf")


def _ok(slots: Slots) -> list[Life]:
    return [life for life in slots.lives if life.state is LifeState.OK]


def _released(life: Life) -> bool:
    return Reason.RELEASE in life.leaving


def _replacements_start(slots: Slots, settings: Settings) -> bool:
    """Whether a release waits until its replacements have started: one that cannot start does not keep it waiting."""
    return settings.sessions_survive and any(slot.state is LifeState.STARTING for slot in slots)


def _to_be_replaced(slots: Slots, settings: Settings) -> list[Life]:
    """Those to be replaced now. One that is past a limit waits while as many are DYING as may be."""
    full = sum(life.draining for life in slots.lives) >= settings.max_dying
    return [life for life in _ok(slots) if life.leaving and not (full and life.can_wait)]


def _order(life: Life) -> tuple[bool, bool, int, int]:
    """Who leaves first."""
    return life.undrained, life.standby, life.sessions, -life.generation
