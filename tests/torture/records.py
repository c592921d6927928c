"""What everybody under torture writes down. All times are unix time in seconds."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from enum import Enum
from typing import NamedTuple

FOREVER = float("inf")


class Process(NamedTuple):
    """A process, this life of its pid."""

    pid: int
    born: int
    """in clock ticks since boot"""


class Name(NamedTuple):
    """An AppServer, as tickets and logs name it."""

    slot: int
    generation: int

    def __str__(self) -> str:
        return f"{self.slot}.{self.generation}"


@dataclass(frozen=True)
class Told:
    """What an answer says of who gave it, and of the session."""

    name: str
    """of the request that it answers"""
    process: Process
    appserver: Name
    lost: bool
    good: bool
    """the body came as it was sent"""
    sid: str = ""
    new: bool = False
    """the session that was brought is not known here"""
    count: int = 0


class Outcome(Enum):
    """How a request ended, as the visitor can tell."""

    ANSWERED = "answered"
    """whole, by its framing"""
    LEFT = "left"
    """the visitor went away within the answer"""
    CUT = "cut"
    """the connection ended within the answer"""
    STALE = "closed while idle"
    """a connection that was used before ended without a byte of an answer: a race that HTTP knows (RFC 9112 §9.5).
    httpd's event MPM closes idle connections at a graceful restart, and when all its workers are busy."""
    UNANSWERED = "no answer"
    """a fresh connection ended without a byte of an answer"""
    NO_CONNECTION = "no connection"
    SILENT = "no end within a minute"
    GARBLED = "not HTTP"


@dataclass(frozen=True)
class Visit:
    """One request."""

    name: str
    client: str
    method: str
    page: str
    began: float
    ended: float
    outcome: Outcome
    status: int = 0
    port: int = 0
    """the visitor's own, which the error log names"""
    told: Told | None = None
    brought: str = ""
    """the session"""
    holder: Told | None = None
    """who told of that session last"""
    heard: float = 0.0
    """when that was"""
    least: int = 0
    most: int = 0
    """what the session may have counted, after this request"""
    wrong: str = ""
    """what of its content is not as it should be, though its framing is whole"""
    why: str = ""


@dataclass
class Deed:
    """What the fiend did."""

    at: float
    kind: str
    """kill, stop, kill watcher, …"""
    process: Process | None = None
    slot: int | None = None
    until: float = 0.0
    """of what lasts: its end, FOREVER as long as that is open"""
    text: str = ""


@dataclass(frozen=True)
class Said:
    """A line of the monitor's log."""

    at: float
    text: str


@dataclass(frozen=True)
class Logged:
    """A line of Apache's error log."""

    at: float
    text: str
    port: int = 0
    """of the visitor whom it is about"""


@dataclass(frozen=True)
class Seen:
    """An address.text that the reader met."""

    at: float
    serial: int = 0
    states: dict[Name, str] = field(default_factory=dict)
    fault: str = ""


@dataclass(frozen=True)
class Sample:
    """The size of a process."""

    at: float
    role: str
    process: Process
    resident: int
    """bytes"""
    descriptors: int


@dataclass(frozen=True)
class Limits:
    """What the settings promise. Seconds."""

    failing: float
    """one that was stopped for less is not FAILING"""
    hung: float
    """one that was stopped for less is not ended"""
    wait: float
    idle: float


@dataclass
class Records:
    """Everything, for the verdict."""

    limits: Limits
    servers: int
    began: float = 0.0
    quiet: float = 0.0
    """when all was well again, after the fiend's last deed"""
    ended: float = 0.0
    strength: float | None = None
    """seconds from the fiend's end until all AppServers were OK"""
    visits: list[Visit] = field(default_factory=list)
    executed: list[tuple[str, int]] = field(default_factory=list)
    """the application's own notes: request's name, pid"""
    deeds: list[Deed] = field(default_factory=list)
    said: list[Said] = field(default_factory=list)
    logged: list[Logged] = field(default_factory=list)
    tables: list[Seen] = field(default_factory=list)
    looks: int = 0
    """how often address.text was read"""
    samples: list[Sample] = field(default_factory=list)
    lanes: Counter[str] = field(default_factory=Counter)
    """how many requests came by which lane: fast, slow, back after … (the status that Apache met there)"""
    left: list[str] = field(default_factory=list)
    """what was found left behind"""
    faults: list[str] = field(default_factory=list)
    """what went wrong in the test itself, or could not be watched"""
