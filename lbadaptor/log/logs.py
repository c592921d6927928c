"""The log, as other packages use it: loggers, levels, and standard error."""

from __future__ import annotations

from lbadaptor.log.loggers import ERROR, INFO, WARNING, Logger, logger
from lbadaptor.log.standard_error import flush, guarded, to_stderr
from lbadaptor.log.wsgi_errors import stream as errors

__all__ = ["ERROR", "INFO", "WARNING", "Logger", "errors", "flush", "guarded", "logger", "to_stderr"]
