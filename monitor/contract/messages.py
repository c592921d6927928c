"""What arbiter and watcher tell each other: one JSON object a line. Pure."""

from __future__ import annotations

from typing import Any

import msgspec
from msgspec import Struct


class Cookies(Struct, frozen=True):
    """What an AppServer knows of the session cookie's name."""

    name: str = ""
    """the session cookie, as it was handed over"""
    session: bool = False
    """the session cookie was set, or need not be"""
    answers: int = 0
    """that set cookies, and none the session cookie"""
    others: tuple[str, ...] = ()
    """the names of those that were set"""
    framework: tuple[str, ...] = ()
    """other names that the application's framework has for its session cookie"""


class Vitals(Struct, frozen=True):
    """An AppServer's answer to a probe, as far as the monitor uses it. Seconds and bytes."""

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
    """None: it does not tell"""
    status: str = ""
    """OK or DYING: what its orders made it, by its own word"""


class Probed(Struct, frozen=True, tag="probed"):
    """An AppServer answered a probe."""

    slot: int
    generation: int
    vitals: Vitals


class Unanswered(Struct, frozen=True, tag="unanswered"):
    """A probe failed."""

    slot: int
    generation: int
    why: str
    refused: bool = False
    """nobody listens there"""
    stranger: bool = False
    """somebody else does"""
    late: bool = False
    """it was the prober that got no processor: this says nothing of the AppServer"""


class Ordered(Struct, frozen=True, tag="ordered"):
    """Somebody gives an order (`monitor.contract.orders`). `number` comes back with the reply."""

    number: int
    order: str
    slot: int = -1
    """-1: none is given"""
    options: tuple[str, ...] = ()
    """the names of those that are given"""


class Alive(Struct, frozen=True, tag="alive"):
    """The watcher's sign of life."""


FromWatcher = Probed | Unanswered | Ordered | Alive


class Begin(Struct, frozen=True, tag="begin"):
    """The first message, and again with new settings: where the console is, and how to probe."""

    control_socket: str
    probe_interval: float
    probe_timeout: float


class Target(Struct, frozen=True):
    """An AppServer to probe, with its own key."""

    slot: int
    generation: int
    host: str
    port: int
    key: str
    unix_socket: str = ""
    """where it is asked, if it listens there; empty: at host and port"""


class View(Struct, frozen=True, tag="view"):
    """Whom to probe, and what to tell whoever asks for the status."""

    targets: list[Target]
    status: dict[str, Any]


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
