"""The log, as other packages use it: loggers, levels, and standard error."""

from __future__ import annotations

from lbadaptor.log.loggers import ERROR, INFO, WARNING, Logger, logger
from lbadaptor.log.standard_error import flush, guarded, set_json, to_captured, to_stderr
from lbadaptor.log.wsgi_errors import stream as errors

__all__ = [
    "ERROR",
    "INFO",
    "WARNING",
    "Logger",
    "errors",
    "flush",
    "guarded",
    "logger",
    "set_json",
    "to_captured",
    "to_stderr",
]
