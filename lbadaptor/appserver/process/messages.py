"""The messages between the monitor and an AppServer, or a template. Pure.

One JSON object a line, both ways. The assignment is the only line to an AppServer. Orders are signals: they reach an
AppServer from another monitor, too. A template gets the name of what to import, and then what to fork.
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


class Assignment(Struct, frozen=True):
    """Everything an AppServer needs, and no secret that opens another one."""

    app: str
    session_cookie: str = ""
    session_idle: float = 1800.0
    session_count: str = ""
    affinity: bool = False
    ticket_cookie: str = "__PRT__"
    threads: int = 8
    queue: int = 256
    answer_memory: int = 262144
    """bytes of an answer that a slow reader may leave unread, and no thread waits"""
    max_requests: int = 0
    max_age: float = 0.0
    max_memory: int = 0
    warm_up: tuple[str, ...] = ()
    start_timeout: float = 0.0
    """seconds that a start may take; 0: any"""
    ready_by: float = 0.0
    """when they are over, on the monotonic clock, which all processes of a machine share"""
    stop_grace: float = 30.0
    generation: int = 0
    ticket: str = ""
    caller_key: str = ""
    probe_key: str = ""
    unix_socket: str = ""
    """a path, free to be listened on besides the address; empty: there is none"""
    survive: str = "nothing"
    """what sessions outlive: `nothing`, `leaving` or `anything`"""
    session_folder: str = ""
    """the folder of session files, absolute; made and looked at by the monitor"""
    session_max_bytes: int = 0
    """this AppServer's share of the disk for session files"""
    session_max_files: int = 0
    """its share of their number"""
    session_save: str = ""
    """the application's own functions, `module:function`; empty: it has none"""
    session_load: str = ""
    access_log: str = ""
    """the file of the AppServers' access log, absolute; empty: there is none"""
    run_folder: str = ""
    """the monitor's run folder, absolute: it tells installations apart"""


class Preload(Struct, frozen=True):
    """The first line to a template: what to import."""

    app: str
    session_count: str = ""
    start_timeout: float = 0.0
    ready_by: float = 0.0
    session_save: str = ""
    session_load: str = ""


class Fork(Struct, frozen=True):
    """Every other line to a template, along with one descriptor: the AppServer's end of its channel."""

    slot: int
    address: str
    environment: dict[str, str] = {}
    """variables that this AppServer has beside the template's"""
    folder: str = ""
    """where it works; empty: where the template does"""


class Ready(Struct, frozen=True, tag="ready"):
    """Bound, application imported: visitors may come."""


class Failed(Struct, frozen=True, tag="failed"):
    """It cannot start. `port`: the address is in use, so that another slot may do.

    `trace`: the lines of the application's traceback, which the monitor says once for all that fail alike.
    """

    why: str
    port: bool = False
    trace: tuple[str, ...] = ()


class PastLimit(Struct, frozen=True, tag="past-limit"):
    """Time for a replacement; it goes on until it is ordered to drain."""

    limit: str


class Empty(Struct, frozen=True, tag="empty"):
    """DYING, no session left, nothing in flight."""


Report = Ready | Failed | PastLimit | Empty


class Imported(Struct, frozen=True, tag="imported"):
    """A template can fork."""


class Unfit(Struct, frozen=True, tag="unfit"):
    """The application cannot be forked; it has to be imported by each AppServer for itself."""

    why: str


class Forked(Struct, frozen=True, tag="forked"):
    """A template has forked the AppServer that the monitor asked for."""

    pid: int


class Unforked(Struct, frozen=True, tag="unforked"):
    """It could not."""

    why: str


TemplateReport = Imported | Failed | Unfit | Forked | Unforked

encode = msgspec.json.Encoder().encode
decode_assignment = msgspec.json.Decoder(Assignment).decode
_reports: msgspec.json.Decoder[Report] = msgspec.json.Decoder(Report)
decode_report = _reports.decode
decode_preload = msgspec.json.Decoder(Preload).decode
decode_fork = msgspec.json.Decoder(Fork).decode
_template_reports: msgspec.json.Decoder[TemplateReport] = msgspec.json.Decoder(TemplateReport)
decode_template_report = _template_reports.decode
