"""python-socketio's own client, by long polling, at the application in tests/apps/chat.py."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from itertools import pairwise
from typing import Any

import requests
import socketio
from cluster import TIMEOUT, Site, eventually

from tests.apache.resources import StoodStill


class Member:
    """python-socketio's own client. It notes what happened to it; `close` it."""

    def __init__(self, site: Site) -> None:
        self.happened: list[str] = []
        self.moments: list[float] = []
        """when each of these happened; monotonic seconds"""
        self.ticks: list[int] = []
        self._ticked: list[float] = []
        """when each of these came; monotonic seconds"""
        self.said = 0
        self.http = requests.Session()
        self.http.trust_env = False
        self.client = socketio.Client(http_session=self.http, reconnection_delay=0.1, handle_sigint=False)
        self.client.on("connect", lambda: self._note("connect"))
        self.client.on("disconnect", self._note)
        self.client.on("connect_error", lambda why: self._note(f"connect_error: {why}"))
        self.client.on("tick", self._tick)
        self.client.connect(site.url, transports=["polling"], wait_timeout=TIMEOUT)

    def _note(self, what: str) -> None:
        self.moments.append(time.monotonic())
        self.happened.append(what)

    def _tick(self, number: int) -> None:
        self._ticked.append(time.monotonic())
        self.ticks.append(number)

    @contextlib.contextmanager
    def in_use(self, idle: float) -> Iterator[None]:
        """Raises StoodStill in the end, if its AppServer may not have heard of it for the idle time meanwhile.

        It hears of it whenever a number has arrived, and the next one is asked for. So one of two pauses in a row was
        half as long.
        """
        before = len(self._ticked)
        began = time.monotonic()
        try:
            yield
        finally:
            moments = [began, *self._ticked[before:], time.monotonic()]
            if any(later - earlier >= idle / 2 for earlier, later in pairwise(moments)):
                raise StoodStill

    def say(self) -> int:
        """Say something, which has to be counted on; returns the pid of the AppServer that got it."""
        told: dict[str, Any] = self.client.call("say", "hello", timeout=TIMEOUT)
        self.said += 1
        assert (told["received"], told["said"]) == ("hello", self.said)
        pid: int = told["pid"]
        return pid

    def await_ticks(self, count: int) -> None:
        goal = len(self.ticks) + count
        eventually("it is sent numbers", lambda: len(self.ticks) >= goal)

    @property
    def ticket(self) -> str | None:
        return self.http.cookies.get("__PRT__")

    def assert_unbroken(self) -> None:
        """It has been connected without a break, and missed nothing."""
        assert self.happened == ["connect"]
        assert self.ticks == list(range(1, len(self.ticks) + 1))

    def close(self) -> None:
        self.client.disconnect()
        self.client.wait()
        self.http.close()
