"""What share of the new visitors each AppServer gets: its weight, and which are in reserve. Pure."""

from __future__ import annotations

from collections.abc import Iterable

from lbadaptor.contract.settings import AppServers
from monitor.policy.life import Life
from monitor.policy.run_time import USUAL_WEIGHT
from monitor.policy.slot import Slot

FIRST_SHARE = 0.1
"""What part of its weight a new AppServer has at first, where there is a slow start."""


def weight(life: Life, servers: AppServers, now: float) -> int:
    """Its share of new visitors, for address.text: whole when its slow start is over, none in standby
    or when it is replaced."""
    whole = servers.weights[life.slot] if life.slot < len(servers.weights) else USUAL_WEIGHT
    if life.standby or life.supervision.replaced or not whole:
        return 0
    ready_for = max(0.0, life.served(now) or 0.0)  # it may have become ready after `now`
    if life.ready_at is None or ready_for >= servers.slow_start:
        return whole
    share = FIRST_SHARE + (1 - FIRST_SHARE) * ready_for / servers.slow_start
    return max(1, round(whole * share))


def choose_standby(slots: Iterable[Slot], servers: AppServers) -> None:
    """Those kept beyond `servers` are the standby; one stays so until it is wanted."""
    kept = [slot for slot in slots if slot.counts]
    spare = min(servers.standby, max(0, len(kept) - servers.servers))
    standby = [slot for slot in kept if slot.occupant.standby]
    for slot in standby[spare:]:
        slot.occupant.standby = False
    others = [
        slot for slot in kept if not slot.occupant.standby and not (slot.life is not None and slot.life.leaving)
    ]
    others.sort(key=lambda slot: -slot.occupant.generation)
    for slot in others[: max(0, spare - len(standby))]:
        slot.occupant.standby = True
