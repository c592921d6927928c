"""What was set at run time, by orders: it wins over lbadaptor.toml until it is taken back. Pure."""

from __future__ import annotations

import msgspec
from msgspec import Struct

from lbadaptor.contract.settings import Settings

USUAL_WEIGHT = 100
"""Of a slot for which [appservers] weights says nothing."""


class RunTime(Struct, frozen=True, omit_defaults=True):
    """It holds what the file runtime.json holds."""

    servers: int | None = None
    """how many AppServers take new visitors; None: as lbadaptor.toml says"""
    weights: dict[int, int] = {}
    """shares of new visitors, by slot"""
    leaving: bool = False
    """the whole machine is drained; a monitor of a release before passes this over"""

    def with_servers(self, servers: int | None) -> RunTime:
        return msgspec.structs.replace(self, servers=servers)

    def with_weight(self, slot: int, weight: int | None) -> RunTime:
        others = {number: other for number, other in self.weights.items() if number != slot}
        return msgspec.structs.replace(self, weights=others if weight is None else {**others, slot: weight})

    def with_leaving(self, leaving: bool) -> RunTime:
        return msgspec.structs.replace(self, leaving=leaving)

    def applied(self, settings: Settings) -> Settings:
        """The settings to go by. Raises ValueError, for people, where they do not go together.

        The number of slots stays that of lbadaptor.toml: Apache's configuration for the fast lane names each slot.
        """
        servers, slots = settings.appservers, settings.slots
        wanted = servers.servers if self.servers is None else self.servers
        if slots <= wanted + servers.standby:
            standby = f" and standby = {servers.standby}" if servers.standby else ""
            raise ValueError(
                f"servers = {wanted}{standby}: slots = {slots} leaves no slot for a replacement; more slots need a"
                " change of lbadaptor.toml"
            )
        if beyond := [slot for slot in self.weights if slot >= slots]:
            raise ValueError(f"there is no slot {beyond[0]}: slots = {slots}")
        weights = list(servers.weights)
        for slot, weight in self.weights.items():
            weights += [USUAL_WEIGHT] * (slot + 1 - len(weights))
            weights[slot] = weight
        changed = msgspec.structs.replace(servers, servers=wanted, slots=slots, weights=tuple(weights))
        return msgspec.structs.replace(settings, appservers=changed)

    def differences(self, settings: Settings) -> list[str]:
        """What is not as lbadaptor.toml has it, in words."""
        found = []
        if self.servers is not None:
            found.append(f"servers = {self.servers}, not {settings.appservers.servers}")
        for slot, weight in sorted(self.weights.items()):
            found.append(f"the weight of slot {slot} is {weight}, not {whole_weight(settings, slot)}")
        if self.leaving:
            found.append("this machine is leaving")
        return found


def whole_weight(settings: Settings, slot: int) -> int:
    """The weight of a slot when its slow start is over."""
    weights = settings.appservers.weights
    return weights[slot] if slot < len(weights) else USUAL_WEIGHT
