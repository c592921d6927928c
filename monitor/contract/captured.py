"""The files that get what AppServers say: `logs/SLOT.GENERATION` in the run folder, `logs/template.NUMBER`.

The arbiter opens one for each process, which inherits it as standard output and standard error. The watcher forwards
its lines, gives their room back to the file system, and removes the file when nobody writes to it any more. It leaves
the last two files of each slot, for `lbctl log`.
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path

KEPT_BYTES = 128 << 10
"""Bytes at the end of each file that stay when they are forwarded."""
KEPT_FILES = 2
"""Files of each slot that stay when their AppServers have ended."""
POSITIONS = "forwarded"
"""The file beside them that says how far each is forwarded; the watcher that forwards has a lock on it."""
_NAME = re.compile(r"(\d{1,6}|template)\.(\d{1,16})", re.ASCII)


@dataclass(frozen=True, order=True)
class CapturedName:
    """The name of a file. They are ordered by age."""

    generation: int
    """of an AppServer; of a template a number like it"""
    slot: int = -1
    """-1: a template's"""

    def __str__(self) -> str:
        return f"{self.who}.{self.generation}"

    @property
    def who(self) -> str:
        return "template" if self.slot < 0 else str(self.slot)


def parse(name: str) -> CapturedName | None:
    """What a file's name says; None: it is another file."""
    found = _NAME.fullmatch(name)
    return CapturedName(int(found[2]), -1 if found[1] == "template" else int(found[1])) if found else None


def files(folder: Path) -> list[CapturedName]:
    """The files that there are, the oldest first. Raises OSError."""
    return sorted(name for file in os.listdir(folder) if (name := parse(file)) is not None)
