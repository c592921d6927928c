"""What the monitor hands to an AppServer, and what the AppServer reports. Pure: the messages on the pipe.

One JSON object a line, both ways. The handover is the only line to the AppServer; orders come as signals,
which reach an AppServer whose monitor has changed, too.
"""

from __future__ import annotations

import signal

import msgspec
from msgspec import Struct

DRAIN = signal.SIGUSR1
"""take no more visitors whose session you do not know"""
UNDRAIN = signal.SIGUSR2
"""take everybody again"""
STOP = signal.SIGTERM
"""refuse everybody, finish what is in flight, exit"""


class Handover(Struct, frozen=True):
    """Everything an AppServer needs, and no secret that opens another one."""

    app: str
    session_cookie: str = ""
    session_idle: float = 1800.0
    session_count: str = ""
    affinity: bool = False
    own_folder: str = ""
    ticket_cookie: str = "__PRT__"
    threads: int = 8
    queue: int = 256
    max_requests: int = 0
    max_age: float = 0.0
    max_memory: int = 0
    warm_up: tuple[str, ...] = ()
    stop_grace: float = 30.0
    generation: int = 0
    ticket: str = ""
    caller_key: str = ""
    probe_key: str = ""


class Ready(Struct, frozen=True, tag="ready"):
    """Bound, application imported: visitors may come."""


class Failed(Struct, frozen=True, tag="failed"):
    """It cannot start. `port`: the address is in use, so that another slot may do."""

    why: str
    port: bool = False


class PastLimit(Struct, frozen=True, tag="past-limit"):
    """Time for a replacement; it goes on until it is ordered to drain."""

    limit: str


class Empty(Struct, frozen=True, tag="empty"):
    """DYING, no session left, nothing in flight."""


Report = Ready | Failed | PastLimit | Empty

encode = msgspec.json.Encoder().encode
decode_handover = msgspec.json.Decoder(Handover).decode
_reports: msgspec.json.Decoder[Report] = msgspec.json.Decoder(Report)
decode_report = _reports.decode
