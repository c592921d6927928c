"""Visitors under way: each has a session, comes all the time, and records what it saw."""

from __future__ import annotations

import contextlib
import random
import threading
import time
from collections.abc import Iterator

from tests.apache.resources import eventually
from tests.torture.clients import PATIENCE, Planned, Visitor

PAUSES = 0.02, 0.1
"""Seconds between two requests of a visitor, at least and at most."""


class Crowd:
    """Visitors with a session, who come by themselves, each in a thread. `start`, then `stop`."""

    def __init__(self, visitors: list[Visitor], port: int, seed: int) -> None:
        self.errors: list[str] = []
        """of the test itself"""
        self.sessions_end = threading.Event()
        """from now on visitors log out now and then, and come back as new ones"""
        self.visitors = visitors
        self._port = port
        self._seed = seed
        self._rounds = [0] * len(visitors)
        self._over = threading.Event()
        self._under_way = [threading.Lock() for _ in visitors]
        """each is held while its visitor's request is under way"""
        self._threads = [threading.Thread(target=self._live, args=(number,)) for number in range(len(visitors))]

    def start(self) -> None:
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        self._over.set()
        deadline = time.monotonic() + PATIENCE
        for thread, visitor in zip(self._threads, self.visitors, strict=True):
            thread.join(max(0.0, deadline - time.monotonic()))
            if thread.is_alive():
                self.errors.append(f"visitor {visitor.client} does not end")
            visitor.line.close()

    def go_to(self, port: int) -> None:
        """From the next request on they come to another HAProxy: its address has moved."""
        self._port = port

    def go_on(self, pages: int = 2) -> None:
        """Wait until each visitor has seen so many more pages of their session, or of a new one."""
        goals = [rounds + pages for rounds in self._rounds]

        def look() -> bool:
            return all(rounds >= goal for rounds, goal in zip(self._rounds, goals, strict=True))

        eventually("visitors go on", lambda: look() or self.errors)

    @contextlib.contextmanager
    def resting(self) -> Iterator[None]:
        """No request is under way meanwhile."""
        with contextlib.ExitStack() as stack:
            for lock in self._under_way:
                stack.enter_context(lock)
            yield

    def at(self, machine: str) -> list[Visitor]:
        """Those with a session there."""
        return [one for one in self.visitors if one.holder and one.holder.machine == machine]

    def _live(self, number: int) -> None:
        chance = random.Random(f"{self._seed}-{number}")
        visitor = self.visitors[number]
        try:
            while not self._over.is_set():
                with self._under_way[number]:
                    if visitor.line.port != self._port:
                        visitor.line.close()
                        visitor.line.port = self._port
                    visit = visitor.ask(self._next(visitor, chance))
                self._rounds[number] += visit.told is not None and visit.page == "visit"
                self._over.wait(chance.uniform(*PAUSES))
        except Exception as error:
            self.errors.append(f"visitor {visitor.client}: {error!r}")

    def _next(self, visitor: Visitor, chance: random.Random) -> Planned:
        if visitor.holder is None or not visitor.cookies:
            return Planned("POST", "visit", size=100)
        if self.sessions_end.is_set() and chance.random() < 0.2:
            return Planned("POST", "logout")
        method, page, size, body, wait = chance.choices(
            (
                ("GET", "visit", 100, 0, 0.0),
                ("POST", "visit", 100, chance.choice((0, 100, 40_000)), 0.0),
                ("GET", "file", 200_000, 0, 0.0),
                (chance.choice(("GET", "POST")), "visit", 100, 0, 0.2),
            ),
            (40, 40, 5, 15),
        )[0]
        return Planned(method, page, size=size, body=body, wait=wait)
