"""What is recorded while the test runs. All times are unix time in seconds."""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass, field
from enum import Enum
from typing import NamedTuple

FOREVER = float("inf")
BEGINS = re.compile(r"\bslot (\d+) (?:starts|is adopted)\b.*\bpid (\d+)")
"""The monitor's log names the slot and the pid of an AppServer."""


class Process(NamedTuple):
    """A process. The kernel may use its pid again, so the time at which it began belongs to it."""

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
    """What an answer says about its AppServer and about the session (the header X-Told)."""

    name: str
    """of the request that it answers"""
    process: Process
    appserver: Name
    lost: bool
    good: bool
    """the body came as it was sent"""
    sid: str = ""
    new: bool = False
    """the AppServer does not know the session that the request brought"""
    count: int = 0
    moved: bool = False
    """another AppServer held the session before"""
    machine: str = ""
    """where there are several (tests/machines)"""


class Outcome(Enum):
    """How a request ended for the visitor."""

    ANSWERED = "answered"
    """the answer is whole, by its framing"""
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
    """what the session's last answer said"""
    told_at: float = 0.0
    """when an answer came last that knew the session"""
    asked_at: float = 0.0
    """when the request of that answer was sent"""
    least: int = 0
    most: int = 0
    """the limits of what the session may have counted, after this request"""
    ended_session: bool = False
    """the application has ended the session that it brought, or given it another cookie, and said so in an answer"""
    together: bool = False
    """other requests of the same visitor were under way"""
    wrong: str = ""
    """what is wrong with the content, although the framing is whole"""
    why: str = ""


@dataclass
class Fault:
    """One thing that the fault injector did."""

    at: float
    kind: str
    """kill, stop, kill watcher, …"""
    process: Process | None = None
    slot: int | None = None
    until: float = 0.0
    """the end of a fault that lasts; FOREVER until it has ended"""
    text: str = ""


class Counted(NamedTuple):
    """A POST that a session has counted, as the application wrote it, in this order for each session."""

    name: str
    """of the request"""
    pid: int
    session: str
    count: int


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
    """the port of the visitor that it is about"""


@dataclass(frozen=True)
class Seen:
    """An address.text, as it was read."""

    at: float
    serial: int = 0
    states: dict[Name, str] = field(default_factory=dict)
    error: str = ""


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
    """Limits that follow from the settings, in seconds."""

    failing: float
    """an AppServer that was stopped for less does not become FAILING"""
    hung: float
    """an AppServer that was stopped for less is not ended"""
    wait: float
    idle: float


@dataclass
class Records:
    """All records."""

    limits: Limits
    servers: int
    survive: str = "nothing"
    """[sessions] survive"""
    began: float = 0.0
    quiet: float = 0.0
    """when all AppServers were OK again, after the last fault"""
    ended: float = 0.0
    strength: float | None = None
    """seconds from the fault injector's end until all AppServers were OK"""
    visits: list[Visit] = field(default_factory=list)
    executed: list[tuple[str, int]] = field(default_factory=list)
    """written by the application: the request's name and the pid"""
    counted: list[Counted] = field(default_factory=list)
    faults: list[Fault] = field(default_factory=list)
    said: list[Said] = field(default_factory=list)
    logged: list[Logged] = field(default_factory=list)
    tables: list[Seen] = field(default_factory=list)
    looks: int = 0
    """how often address.text was read"""
    samples: list[Sample] = field(default_factory=list)
    lanes: Counter[str] = field(default_factory=Counter)
    """how many requests took which lane: fast (with a ticket), first (a first visit), slow, or back after a status"""
    left: list[str] = field(default_factory=list)
    """what was left behind at the end"""
    test_errors: list[str] = field(default_factory=list)
    """what went wrong in the test itself"""
