"""How an AppServer is: what its orders made it, and what it has at work. Any thread may use it."""

from __future__ import annotations

import logging
import os
import resource
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from lbadaptor.headers import Refusal

log = logging.getLogger("lbadaptor.appserver")

_PAGE = resource.getpagesize()


@dataclass
class Vitals:
    """The counts behind the probe's answer, `LB-Status` and `LB-Load`."""

    slot: int
    generation: int
    threads: int
    queue: int = 256
    """requests that may wait for a thread; more are refused: each holds a connection, and a visitor waits"""
    max_requests: int = 0
    max_age: float = 0.0
    max_memory: int = 0
    ready: bool = False
    """bound, application imported, warm"""
    dying: bool = False
    """ordered to drain: takes only visitors whose session it knows"""
    stopping: bool = False
    """ordered to stop: takes nobody"""
    sessions: int = 0
    longest_session: float = 0.0
    in_flight: int = 0
    """requests at work or waiting for a thread"""
    served: int = 0
    empty: bool = False
    """ordered to drain, and nothing is left: no session, nothing in flight"""
    _started: float = field(default_factory=time.monotonic)
    _lock: threading.Lock = field(default_factory=threading.Lock, repr=False)
    _idle: threading.Event = field(default_factory=threading.Event, repr=False)
    """set at the end of the last request in flight, while somebody waits for that"""
    _awaited: bool = False

    def admit(self, known: bool) -> Refusal | None:
        """Why a request may not begin; None when it may, and counts from now until `end`.

        `known`: its session is here.
        """
        with self._lock:
            if self.stopping or (self.dying and not known):
                return Refusal.DYING
            if self.in_flight >= self.threads + self.queue:
                return Refusal.BUSY
            self.in_flight += 1
            return None

    def end(self) -> None:
        with self._lock:
            self.in_flight -= 1
            self.served += 1
            if self._awaited and not self.in_flight:
                self._idle.set()

    def wait_idle(self, timeout: float) -> bool:
        """Wait until nothing is in flight. False when it took longer than `timeout` seconds. For one thread only."""
        with self._lock:
            if not self.in_flight:
                return True
            self._awaited = True
            self._idle.clear()
        try:
            return self._idle.wait(timeout)
        finally:
            self._awaited = False

    def look(self, count: Callable[[], int]) -> None:
        """Count the sessions, and find out whether nothing is left.

        What is in flight is looked at first: a request that ends meanwhile may leave a session.
        """
        idle = not self.in_flight
        self.sessions = count()
        self.empty = self.dying and idle and not self.sessions

    @property
    def status(self) -> str:
        return "DYING" if self.dying or self.stopping else "OK"

    @property
    def past_limit(self) -> str:
        """The limit that is passed; empty when none is."""
        if 0 < self.max_requests <= self.served:
            return "requests"
        if 0 < self.max_age <= time.monotonic() - self._started:
            return "age"
        if 0 < self.max_memory < _resident():
            return "memory"
        return ""

    def warm(self) -> None:
        """Ready for visitors; what it answered so far does not count."""
        with self._lock:
            self.served = 0
        resident = _resident()
        if 0 < self.max_memory < resident:
            log.warning(
                "max_memory = %d is less than it needs from the start, and no limit: %d", self.max_memory, resident
            )
            self.max_memory = 0
        self.ready = True

    def headers(self) -> str:
        """What every answer says, for the end of its head."""
        status = "DYING" if self.dying or self.stopping else "OK"
        return f"LB-Status: {status}\r\nLB-Load: {self.in_flight}/{self.threads}/{self.sessions}\r\n"

    def report(self) -> dict[str, Any]:
        """The probe's answer. Seconds and bytes."""
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
            "in_flight": self.in_flight,
            "threads": self.threads,
            "served": self.served,
            "memory": _resident(),
            "cpu": round(time.process_time(), 3),
            "uptime": round(time.monotonic() - self._started, 1),
        }


def _resident() -> int:
    with open("/proc/self/statm", "rb") as file:
        return int(file.read().split()[1]) * _PAGE
