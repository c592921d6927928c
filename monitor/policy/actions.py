"""What the plan can want done with an AppServer. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

from lbadaptor.contract.address import Identity


class Signal(Enum):
    """What a running AppServer can be sent."""

    DRAIN = "drain"
    UNDRAIN = "undrain"
    STOP = "stop"
    KILL = "kill"


@dataclass(frozen=True)
class Start:
    """Fork an AppServer."""

    identity: Identity


@dataclass(frozen=True)
class Send:
    """Send an AppServer a signal."""

    identity: Identity
    signal: Signal


Action = Start | Send
