"""A line of an AppServer, and how it is written: as text, as JSON, for the journal. Pure."""

from __future__ import annotations

import re
from typing import NamedTuple

from lbadaptor.log import loggers, texts
from lbadaptor.log.loggers import LEVEL_NAMES
from monitor.contract.captured import CapturedName

INFO, WARNING = 6, 4
"""Priorities, as of sd-daemon(3)."""
LONGEST = 16 * 1024
"""Bytes of a line. A longer one is forwarded in pieces."""
_PRIORITY = re.compile(rb"<([0-7])>")
_COLORS = re.compile(r"\x1b\[[0-9;]*m")


class Said(NamedTuple):
    """What a line says, and how important it is."""

    priority: int
    text: str


class Line(NamedTuple):
    """Who says what."""

    name: CapturedName
    time: float
    """unix seconds, when it was read"""
    priority: int
    text: str


def read(data: bytes) -> Said:
    """A line as the AppServer wrote it: `<N>` at its beginning is its priority (sd-daemon(3)), else it is an info."""
    marked = _PRIORITY.match(data)
    text = data[3:] if marked else data
    shown = _COLORS.sub("", text.rstrip(b"\r").decode("utf-8", "backslashreplace").expandtabs())
    return Said(int(marked[1]) if marked else INFO, texts.clean(shown, 4 * LONGEST))


def as_text(line: Line) -> str:
    """For the monitor's standard error."""
    return f"AppServer {line.name.who}: {line.text}"


def as_dated_text(line: Line) -> str:
    """For a file, which has no other time than this."""
    level = LEVEL_NAMES[line.priority]
    return f"{loggers.moment(line.time)} {level} AppServer {line.name}: {line.text}"


def as_json(line: Line) -> str:
    """An object. A template has no slot."""
    generation = line.name.generation
    if line.name.slot < 0:
        return loggers.as_json(line.time, line.priority, "template", [line.text], generation=generation)
    return loggers.as_json(
        line.time, line.priority, "AppServer", [line.text], slot=line.name.slot, generation=generation
    )
