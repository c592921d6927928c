"""The status of an AppServer: its orders, its load, its limits. Any thread may use it."""

from __future__ import annotations

import contextlib
import os
import resource
from collections.abc import Callable
from dataclasses import dataclass, field
from time import monotonic, process_time
from time import time as wall_clock
from typing import Any

from lbadaptor.appserver.http.admission import Admission
from lbadaptor.appserver.http.at_work import oldest
from lbadaptor.appserver.sessions.cookie_check import CookieCheck
from lbadaptor.appserver.wsgi.environ import REQUEST_ID, Request
from lbadaptor.log import logs, texts

log = logs.logger("lbadaptor.appserver")

_PAGE = resource.getpagesize()
_MOST_AT_WORK = 5
"""Requests at work that are told, the oldest ones."""
_MAX_PATH = 200
_MAX_METHOD = 20
"""Characters of a path and of a method."""


def path(uri: str) -> str:
    """For people: without the query, which may hold secrets, in one line and of bounded length."""
    return texts.clean(uri.partition("?")[0], _MAX_PATH)


class Memory:
    """The resident memory of this process. Only the first call opens a descriptor: later there may be none."""

    _file = -1

    def resident(self) -> int:
        """In bytes. 0 if it cannot be read: the application may have closed our descriptor."""
        try:
            if self._file < 0:
                self._file = os.open("/proc/self/statm", os.O_RDONLY | os.O_CLOEXEC)
            return int(os.pread(self._file, 256, 0).split()[1]) * _PAGE
        except (OSError, IndexError, ValueError):
            return 0

    def close(self) -> None:
        if self._file >= 0:
            with contextlib.suppress(OSError):
                os.close(self._file)
            self._file = -1

    __del__ = close


@dataclass
class Status:
    """The numbers for the probe's answer and for the headers `LB-Status` and `LB-Load`."""

    slot: int
    generation: int
    admission: Admission[Any]
    max_requests: int = 0
    max_age: float = 0.0
    max_memory: int = 0
    cookies: CookieCheck = field(default_factory=lambda: CookieCheck(""))
    kept: Callable[[], dict[str, Any] | None] = lambda: None
    """what is told of sessions that outlive the process"""
    ready: bool = False
    """the port is bound, the application is imported, the warm-up is done"""
    sessions: int = 0
    longest_session: float = 0.0
    oldest_session: float = 0.0
    empty: bool = False
    """it was ordered to drain, and has no session and no request in flight"""
    _started: float = field(default_factory=monotonic)
    _memory: Memory = field(default_factory=Memory)

    def look(self, count: Callable[[], int]) -> None:
        """Count the sessions, and set `empty`.

        The requests in flight are read first: a request that ends meanwhile may leave a session.
        """
        idle = not self.admission.in_flight
        self.sessions = count()
        self.empty = self.admission.dying and idle and not self.sessions

    @property
    def status(self) -> str:
        return "DYING" if self.admission.dying or self.admission.stopping else "OK"

    @property
    def past_limit(self) -> str:
        """The name of the limit that the AppServer has passed; empty if none."""
        if 0 < self.max_requests <= self.admission.served:
            return "requests"
        if 0 < self.max_age <= monotonic() - self._started:
            return "age"
        if 0 < self.max_memory < self._memory.resident():
            return "memory"
        return ""

    def warm(self) -> None:
        """Set `ready`. The requests of the warm-up do not count."""
        self.admission.forget_served()
        resident = self._memory.resident()
        if 0 < self.max_memory < resident:
            log.warning(
                "max_memory = %d is less than this AppServer needs from the start, %d bytes: the limit is not "
                "applied to it; set it higher",
                self.max_memory,
                resident,
            )
            self.max_memory = 0
        self.ready = True

    def headers(self) -> bytes:
        """The header lines that every answer has at the end of its head."""
        admission = self.admission
        status = b"DYING" if admission.dying or admission.stopping else b"OK"
        load = admission.in_flight, admission.threads, self.sessions
        return b"LB-Status: %b\r\nLB-Load: %d/%d/%d\r\n" % (status, *load)

    def abandon(self) -> None:
        """In a forked child: close the copies of our descriptors."""
        self._memory.close()
        self.cookies.abandon()

    def _at_work(self) -> list[dict[str, Any]]:
        """The oldest requests at work, for how many seconds, and since when (unix time)."""
        told = []
        now = monotonic()
        for (_, _, request), seconds in oldest(self.admission.workers, now, _MOST_AT_WORK):
            assert isinstance(request, Request)
            told.append(
                {
                    "method": texts.clean(request.method, _MAX_METHOD),
                    "path": path(request.fields.get("REQUEST_URI", request.target)),
                    "seconds": round(seconds, 3),
                    "since": round(wall_clock() - seconds, 1),
                    "id": request.fields.get(REQUEST_ID, ""),
                }
            )
        return told

    def report(self) -> dict[str, Any]:
        """The probe's answer. Times are in seconds, memory is in bytes."""
        return {
            "status": self.status,
            "ready": self.ready,
            "past_limit": self.past_limit,
            "empty": self.empty,
            "slot": self.slot,
            "generation": self.generation,
            "pid": os.getpid(),
            "sessions": self.sessions,
            "longest_session": round(self.longest_session, 1),
            "oldest_session": round(self.oldest_session, 1),
            "in_flight": self.admission.in_flight,
            "threads": self.admission.threads,
            "waiting": self.admission.waiting,
            "at_work": self._at_work(),
            "served": self.admission.served,
            "durations": self.admission.durations.told(),
            "memory": self._memory.resident(),
            "cpu": round(process_time(), 3),
            "uptime": round(monotonic() - self._started, 3),
            "cookies": self.cookies.report(),
            "kept": self.kept(),
        }
