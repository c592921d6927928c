"""Texts for people, made of what others have written: exceptions, paths, whatever a visitor sends. Pure.

Whatever goes into a log, or through a pipe to another program, goes through `clean`: it may hold control characters
(a second, forged line), half a surrogate pair (which no encoder takes), or 600 kB.
"""

from __future__ import annotations

import re
import traceback
from types import FrameType

LONGEST = 500
"""Characters that are kept of a text."""
REASON = 1000
"""Characters of why a start failed, which holds such a text."""
TRACE_LINES = 100
TRACE_WIDTH = 400
"""A traceback's lines and their characters: 40 kB at most, which fits into the log's backlog and into a socket."""

_UNPRINTABLE = re.compile("[\x00-\x1f\x7f-\x9f\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")
"""Control characters, what turns the direction of writing, ends of lines, surrogates."""
_PACKAGE = __file__.rpartition("/")[0].rpartition("/")[0]
_IMPORTLIB = ("<frozen importlib", "<frozen zipimport")


def clean(text: str, longest: int = LONGEST) -> str:
    """The text in one line that can be encoded; a longer one is cut off. Never raises."""
    cut = text[:longest]
    cut = _UNPRINTABLE.sub(lambda found: found[0].encode("unicode_escape").decode(), cut)
    return cut if len(text) <= longest and len(cut) <= longest else cut[:longest] + " …"


def count(number: int, noun: str) -> str:
    """The number with its noun, which has an s in the plural: "1 session", "2 sessions"."""
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def of(error: BaseException, longest: int = LONGEST) -> str:
    """An exception's class and text, clean. Never raises, whatever its own `__str__` does."""
    try:
        text = str(error)
    except BaseException:
        text = "(its text cannot be shown)"
    name = type(error).__name__
    return clean(f"{name}: {text}" if text else name, longest)


def what(error: BaseException) -> str:
    """The system's message, or the exception's own: never empty, never "None"."""
    try:
        return clean(getattr(error, "strerror", None) or str(error) or type(error).__name__)
    except Exception:
        return type(error).__name__


def of_os_error(error: OSError) -> str:
    """The system's message, and the file that it is about: never "None: None"."""
    place = error.filename if error.filename2 is None else error.filename2
    if isinstance(place, bytes):
        place = place.decode("utf-8", "backslashreplace")
    return what(error) if place is None else clean(f"{place}: {what(error)}")


def trace(error: BaseException, always: bool = True) -> list[str]:
    """The lines of an exception's traceback, clean. Never raises.

    Frames of the import machinery, and of this package before the first one of the application's, are left out.
    Where no other is left all are shown, or none if not `always`.
    """
    try:
        told = traceback.TracebackException.from_exception(error)
        _leave_out(told, always)
        lines = [line for part in told.format() for line in part.expandtabs().splitlines()]
    except Exception:
        lines = [of(error)]
    if len(lines) > TRACE_LINES:
        half = TRACE_LINES // 2
        lines = [*lines[:half], f"  … {count(len(lines) - 2 * half, 'line')} …", *lines[-half:]]
    return [clean(line, TRACE_WIDTH) for line in lines]


def stack(frame: FrameType) -> list[str]:
    """The lines of where a thread is, clean, without this package's outer frames. Never raises."""
    try:
        frames = [one for one in traceback.extract_stack(frame) if not is_importlib(one.filename)]
        while len(frames) > 1 and (is_own(frames[0].filename) or frames[0].filename.startswith("<")):
            del frames[0]
        lines = [line for part in traceback.format_list(frames[-TRACE_LINES // 3 :]) for line in part.splitlines()]
    except Exception:
        return []
    return [clean(line.expandtabs(), TRACE_WIDTH) for line in lines]


def _leave_out(told: traceback.TracebackException, always: bool) -> None:
    """In it and in those that it was raised from."""
    seen: set[int] = set()
    todo = [told]
    while todo:
        one = todo.pop()
        if id(one) in seen:
            continue
        seen.add(id(one))
        frames = [frame for frame in one.stack if not is_importlib(frame.filename)]
        while frames and is_own(frames[0].filename):
            del frames[0]
        if frames or not always:
            one.stack = traceback.StackSummary.from_list(frames)
        todo += [other for other in (one.__cause__, one.__context__) if other is not None]
        todo += getattr(one, "exceptions", None) or []  # from Python 3.11 on


def is_importlib(file: str) -> bool:
    """Whether a frame's file is part of the import machinery."""
    return file.startswith(_IMPORTLIB) or file.endswith("/importlib/__init__.py")


def is_own(file: str) -> bool:
    """Whether a frame's file is this package's own; its examples are applications."""
    return file.startswith(f"{_PACKAGE}/") and not file.startswith(f"{_PACKAGE}/examples/")
