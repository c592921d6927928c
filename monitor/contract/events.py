"""What has happened, for people who ask later: the lines of `events.jsonl` in the run folder.

The policy says what happens when it happens. The arbiter alone writes it. The watcher reads the file for
`GET /events`, and `lbctl events` shows it; without a monitor, it reads the file itself.
"""

from __future__ import annotations

import contextlib
from enum import Enum
from pathlib import Path

import msgspec
from msgspec import Struct

NAME = "events.jsonl"
"""In the run folder."""
OLDER_NAME = "events.1.jsonl"
"""What NAME was before it became too large."""
MAX_BYTES = 1 << 20
"""Bytes of the newer file, and of the older one."""


class What(Enum):
    """What can happen. The values are the words of the file and of people."""

    START = "start"
    READY = "ready"
    DRAIN = "drain"
    UNDRAIN = "undrain"
    FAILING = "failing"
    RECOVERED = "recovered"
    STOPPING = "stopping"
    KILLED = "killed"
    EXIT = "exit"
    RELEASE_BEGUN = "release begun"
    RELEASE_ENDED = "release ended"
    RELEASE_FAILED = "release failed"
    SCALED = "scaled"
    WEIGHT = "weight"
    MACHINE_LEAVING = "machine leaving"
    MACHINE_EMPTY = "machine empty"
    MACHINE_STAYS = "machine stays"
    MONITOR_STARTED = "monitor started"
    MONITOR_ADOPTED = "monitor adopted"
    MONITOR_UPGRADED = "monitor upgraded"
    MONITOR_STOPPING = "monitor stopping"
    MONITOR_STOPPED = "monitor stopped"
    PROBLEM_BEGUN = "problem begun"
    PROBLEM_ENDED = "problem ended"


class Happened(Struct, frozen=True, omit_defaults=True):
    """One line. What an event is not about is left out."""

    event: What
    time: float = 0.0
    """unix seconds; no two lines have the same. 0: it is not written yet"""
    slot: int | None = None
    generation: int = 0
    pid: int = 0
    state: str = ""
    """of the AppServer, after it"""
    why: str = ""
    """in words: which limit, which exit status or signal, whose order"""
    sessions: int = 0
    """how many the AppServer had"""
    lost: int = 0
    """how many of them ended with it"""


encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder(Happened).decode


def read(folder: Path, since: float) -> list[Happened]:
    """What happened after a moment (unix seconds), oldest first. Raises OSError; not where there is no file.

    Lines that are no events, of a newer release for example, are passed over.
    """
    found = {}
    for name in (OLDER_NAME, NAME, OLDER_NAME):  # the newer one may become the older one meanwhile
        try:
            with open(folder / name, "rb") as file:
                lines = file.read(2 * MAX_BYTES).splitlines()
        except FileNotFoundError:
            continue
        for line in lines:
            with contextlib.suppress(msgspec.DecodeError):
                happened = _decode(line)
                if happened.time > since:
                    found[happened.time] = happened
    return [found[time] for time in sorted(found)]
