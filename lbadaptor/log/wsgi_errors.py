"""`wsgi.errors` (PEP 3333): a text stream that goes where the log goes."""

from __future__ import annotations

import io
import os
import threading

from lbadaptor.log import loggers

_LONGEST_UNFINISHED = 8 * 1024
"""Characters of a line that has not ended; a longer one is written as it is."""


class WsgiErrors(io.TextIOBase):
    """Writes to the log, whatever the application does with `sys.stderr`. Any thread may use it.

    A line is written whole, as soon as it ends. One that does not end is written by the next `flush` of the log.
    """

    encoding = "utf-8"
    errors = "backslashreplace"

    def __init__(self) -> None:
        super().__init__()
        self.unfinished: dict[int, str] = {}
        """the line that a thread has begun, by the thread's identifier"""

    def writable(self) -> bool:
        return True

    def write(self, text: str, /) -> int:
        thread = threading.get_ident()
        lines, end, unfinished = (self.unfinished.pop(thread, "") + text).rpartition("\n")
        if len(unfinished) > _LONGEST_UNFINISHED:
            lines, end, unfinished = lines + end + unfinished, "", ""
        if unfinished:
            self.unfinished[thread] = unfinished
        if lines or end:
            loggers.program.output.write((lines + end).encode("utf-8", "backslashreplace"))
        return len(text)

    def flush(self) -> None:
        self._flush(threading.get_ident())

    def flush_all(self) -> None:
        """Write the unfinished lines of all threads."""
        for thread in tuple(self.unfinished):
            self._flush(thread)

    def _flush(self, thread: int) -> None:
        if unfinished := self.unfinished.pop(thread, ""):
            loggers.program.output.write(unfinished.encode("utf-8", "backslashreplace"))

    def close(self) -> None:
        """Does nothing: all requests share the stream."""


stream = WsgiErrors()

os.register_at_fork(after_in_child=stream.unfinished.clear)  # the parent writes them
