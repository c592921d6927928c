"""The messages between arbiter and watcher: one JSON object a line. Pure."""

from __future__ import annotations

from enum import Enum

import msgspec
from msgspec import Raw, Struct


class Cookies(Struct, frozen=True):
    """What an AppServer knows about the session cookie."""

    name: str = ""
    """the session cookie's name in the settings"""
    session: bool = False
    """the application has set it, or need not set it"""
    answers: int = 0
    """how many answers set cookies, but never the session cookie"""
    others: tuple[str, ...] = ()
    """the names of cookies that were set"""
    framework: tuple[str, ...] = ()
    """other names that the application's framework uses for its session cookie"""
    refused: str = ""
    """why browsers refuse the session cookie; empty: nothing is known against it"""


class Kept(Struct, frozen=True):
    """What an AppServer knows about the files of its sessions ([sessions] survive)."""

    mode: str = ""
    """what its sessions outlive: `nothing`, `leaving` or `anything`"""
    store: str = ""
    """the store that they are read from, in words"""
    why: str = ""
    """why none of them survives; empty: they do"""
    saved: int = 0
    """how many of its sessions have a file"""
    unsaved: dict[str, int] = {}
    """how many have none, by what stands against it: a type that cannot be pickled, a full disk"""
    waiting: int | None = None
    """how many living sessions wait in the folder for their visitors. None: another AppServer counts them"""
    moved_out: int = 0
    """how many have left it"""
    taken: int = 0
    """how many it has taken over"""
    waiting_longest: float = 0.0
    """seconds until the last of those that wait ends if nobody uses it"""


class AtWork(Struct, frozen=True):
    """A request that a thread of an AppServer serves."""

    method: str = ""
    path: str = ""
    """without the query"""
    seconds: float = 0.0
    """for how long, when the probe was answered"""
    since: float = 0.0
    """in unix time"""
    id: str = ""
    """the request's id in all logs; empty: it has none"""


class ProbeAnswer(Struct, frozen=True):
    """The part of an AppServer's answer to a probe that the monitor uses. Seconds and bytes."""

    generation: int
    pid: int = 0
    past_limit: str = ""
    empty: bool = False
    sessions: int = 0
    longest_session: float = 0.0
    in_flight: int = 0
    threads: int = 0
    served: int = 0
    memory: int = 0
    cpu: float = 0.0
    ready: bool = True
    uptime: float = 0.0
    cookies: Cookies | None = None
    """None: it is not in the answer"""
    status: str = ""
    """OK or DYING, as the AppServer itself says"""
    kept: Kept | None = None
    """None: it is of a release that keeps no sessions in files"""
    oldest_session: float = 0.0
    """for how long the oldest living one has been known there"""
    waiting: int | None = None
    """how many of the requests in flight wait for a thread; None, as with the next ones: it is of a release that does
    not tell"""
    at_work: list[AtWork] | None = None
    """a few of the others, the oldest first"""
    durations: dict[str, int] | None = None
    """How many of those served were at work for how long: bounds in seconds, each with the number of requests that
    lasted no longer than it, and longer than the bound before; "+Inf": longer than all bounds."""


class Probed(Struct, frozen=True, tag="probed"):
    """An AppServer answered a probe."""

    slot: int
    generation: int
    answer: ProbeAnswer


class Unanswered(Struct, frozen=True, tag="unanswered"):
    """A probe failed."""

    slot: int
    generation: int
    why: str
    refused: bool = False
    """no process listens there"""
    stranger: bool = False
    """another program answers there"""
    late: bool = False
    """the prober itself got no processor, so this says nothing about the AppServer"""


class Ordered(Struct, frozen=True, tag="ordered"):
    """Somebody gives an order (`monitor.contract.orders`). `number` comes back with the reply."""

    number: int
    order: str
    slot: int = -1
    """-1: none is given"""
    options: tuple[str, ...] = ()
    """the names of those that are given"""
    value: int | None = None
    """the order's number, such as how many AppServers there are to be; None: none is given"""
    by: str = ""
    """who gives it, in words: the user and the process at the other end of the control socket"""


class Alive(Struct, frozen=True, tag="alive"):
    """The watcher lives."""


FromWatcher = Probed | Unanswered | Ordered | Alive


class Begin(Struct, frozen=True, tag="begin"):
    """The first message, and again with new settings: where the control socket is, how to
    probe, and where lines of AppServers go."""

    control_socket: str
    captured_folder: str
    """the files that get what AppServers say"""
    probe_interval: float
    probe_timeout: float
    status_socket: str = ""
    """where a group may look and give no orders; empty: nowhere"""
    status_group: int = -1
    """that group, by number"""
    log_file: str = ""
    """where their lines go; empty: to standard error"""
    log_json: bool = False
    agent: str = ""
    """where HAProxy's agent-check is answered; empty: nowhere"""
    front: tuple[str, ...] = ()
    """the addresses of those who may ask there"""


class Word(Enum):
    """What HAProxy is to do with this machine."""

    UP = "up"
    """send it new visitors"""
    DRAIN = "drain"
    """send it only those who have a session here"""
    DOWN = "down"
    """send it nobody"""


class Availability(Struct, frozen=True):
    """What this machine tells the HAProxy in front of it."""

    word: Word
    percent: int = 0
    """how much of its weight counts for new visitors: 1 to 100 with UP, else 0"""
    reason: str = ""
    """for people"""


class Target(Struct, frozen=True):
    """An AppServer to probe, with its own key."""

    slot: int
    generation: int
    host: str
    port: int
    key: str
    unix_socket: str = ""
    """its Unix socket; empty: it is probed at host and port"""


class View(Struct, frozen=True, tag="view"):
    """Which AppServers to probe, and the status for the control socket."""

    targets: list[Target]
    status: Raw
    """JSON, which the watcher only passes on"""
    availability: Availability | None = None
    """None: it is not known yet, or HAProxy does not ask here"""


class Reply(Struct, frozen=True, tag="reply"):
    """What came of an order."""

    number: int
    done: bool
    text: str


FromArbiter = Begin | View | Reply

encode = msgspec.json.Encoder().encode
_from_watcher: msgspec.json.Decoder[FromWatcher] = msgspec.json.Decoder(FromWatcher)
_from_arbiter: msgspec.json.Decoder[FromArbiter] = msgspec.json.Decoder(FromArbiter)
from_watcher = _from_watcher.decode
from_arbiter = _from_arbiter.decode

SIGN_OF_LIFE = 1.0
"""Seconds between two messages of the watcher, at most."""
SILENCE = 15.0
"""Seconds of silence after which the arbiter starts another watcher."""
LAST_LINES = 2.0
"""Seconds for which the watcher forwards the last lines of AppServers when the arbiter has ended, at most."""
