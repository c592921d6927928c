"""Loggers that never raise: they have the calls of `logging`, and share nothing with it but its record.

What they say goes to `program`: in an AppServer and in the monitor, after `standard_error.to_stderr`, to a private
duplicate of standard error; elsewhere (in Apache, as CGI) to what `sys.stderr` was when this package was imported.
mod_wsgi writes that into Apache's error log. There nothing below a warning is written.
"""

from __future__ import annotations

import contextlib
import sys
import time
from collections.abc import Sequence
from logging import LogRecord
from typing import Protocol

from lbadaptor.log import texts
from lbadaptor.log.writer import Output, TextStream

DEBUG, INFO, WARNING, ERROR, CRITICAL = 10, 20, 30, 40, 50
"""Levels, as `logging` has them."""
LONGEST_LINE = 2000
"""Characters."""

_PRIORITY = {DEBUG: 7, INFO: 6, WARNING: 4, ERROR: 3, CRITICAL: 2}
"""The journal's priorities (sd-daemon(3))."""
LEVEL_NAMES = ("emergency", "alert", "critical", "error", "warning", "notice", "info", "debug")
"""Of all priorities."""


class Handler(Protocol):
    """Gets every record; `logging.Handler` is one."""

    @property
    def level(self) -> int: ...

    def handle(self, record: LogRecord, /) -> object: ...


class Logger:
    """Has the calls of `logging.Logger`. They never raise, whatever the arguments are; any thread may use them."""

    def __init__(self, name: str) -> None:
        self.name = name

    def log(self, level: int, text: str, *args: object, exc_info: object = None) -> None:
        if level < threshold():
            return
        with contextlib.suppress(Exception):  # there is no place left to report it
            error = exc_info if isinstance(exc_info, BaseException) else sys.exc_info()[1] if exc_info else None
            raised = (type(error), error, error.__traceback__) if error else None
            record = LogRecord(self.name, level, __file__, 0, text, args, raised)
            for handler in tuple(handlers):
                if level >= handler.level:
                    handler.handle(record)

    def debug(self, text: str, *args: object, exc_info: object = None) -> None:
        self.log(DEBUG, text, *args, exc_info=exc_info)

    def info(self, text: str, *args: object, exc_info: object = None) -> None:
        self.log(INFO, text, *args, exc_info=exc_info)

    def warning(self, text: str, *args: object, exc_info: object = None) -> None:
        self.log(WARNING, text, *args, exc_info=exc_info)

    def error(self, text: str, *args: object, exc_info: object = None) -> None:
        self.log(ERROR, text, *args, exc_info=exc_info)

    def critical(self, text: str, *args: object, exc_info: object = None) -> None:
        self.log(CRITICAL, text, *args, exc_info=exc_info)

    def exception(self, text: str, *args: object) -> None:
        """An error, with the traceback of the exception that is being handled."""
        self.log(ERROR, text, *args, exc_info=True)


class LineHandler:
    """Writes a line for each record, and one for each line of its traceback."""

    level = 0

    def __init__(self, prefix: str, output: Output) -> None:
        self.prefix = prefix
        self.output = output
        self.json = False
        """each record is one line, an object"""

    def handle(self, record: LogRecord, /) -> None:
        try:
            text = record.getMessage()
        except Exception:
            text = str(record.msg)
        lines = [texts.clean(text, LONGEST_LINE)]
        if record.exc_info and record.exc_info[1] is not None:
            lines += texts.trace(record.exc_info[1])
        priority = _PRIORITY.get(record.levelno, 6)
        mark = f"<{priority}>" if self.output.journal else ""
        if self.json:
            written = f"{mark}{as_json(record.created, priority, self.prefix.rstrip(': '), lines)}\n"
        else:
            written = "".join(f"{mark}{self.prefix}{line}\n" for line in lines)
        self.output.write(written.encode("utf-8", "backslashreplace"))


def as_json(seconds: float, priority: int, program: str, lines: Sequence[str], **more: int) -> str:
    """A JSON object for a record. `seconds`: unix time. `more` keys say whose it is."""
    import json  # Apache's processes do without it

    told = {
        "time": moment(seconds),
        "level": LEVEL_NAMES[priority],
        "program": program,
        **more,
        "text": "\n".join(lines),
    }
    return json.dumps(told, ensure_ascii=False)


def moment(seconds: float) -> str:
    """A unix time as of RFC 3339: UTC, milliseconds."""
    return f"{time.strftime('%Y-%m-%dT%H:%M:%S', time.gmtime(seconds))}.{int(seconds * 1000) % 1000:03d}Z"


program = LineHandler("", TextStream(sys.stderr))
"""The log of this program."""
handlers: list[Handler] = [program]
_threshold = WARNING


def logger(name: str) -> Logger:
    """A logger; two of the same name do the same."""
    return Logger(name)


def threshold() -> int:
    """The level below which nothing is written."""
    return _threshold


def set_threshold(level: int) -> None:
    """Write nothing below this level from now on."""
    global _threshold
    _threshold = level
