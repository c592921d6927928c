"""python-socketio's own client, by long polling, at the application in tests/apps/chat.py."""

from __future__ import annotations

import time
from typing import Any

import requests
import socketio
from cluster import TIMEOUT, Site, eventually


class Member:
    """python-socketio's own client. It notes what happened to it; `close` it."""

    def __init__(self, site: Site) -> None:
        self.happened: list[str] = []
        self.moments: list[float] = []
        """when each of these happened; monotonic seconds"""
        self.ticks: list[int] = []
        self.said = 0
        self.http = requests.Session()
        self.http.trust_env = False
        self.client = socketio.Client(http_session=self.http, reconnection_delay=0.1, handle_sigint=False)
        self.client.on("connect", lambda: self._note("connect"))
        self.client.on("disconnect", self._note)
        self.client.on("connect_error", lambda why: self._note(f"connect_error: {why}"))
        self.client.on("tick", lambda number: self.ticks.append(number))
        self.client.connect(site.url, transports=["polling"], wait_timeout=TIMEOUT)

    def _note(self, what: str) -> None:
        self.moments.append(time.monotonic())
        self.happened.append(what)

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
