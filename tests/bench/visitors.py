"""Visitors of session_site.py who come all the time. They notice when a session is gone, and how long it takes."""

from __future__ import annotations

import contextlib
import json
import random
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from http import HTTPStatus

from tests.torture.clients import Line
from tests.torture.records import Outcome

from .load import LoadFailed

VISITORS = 16
PAUSE = (0.02, 0.06)
"""Seconds between two requests of a visitor, from and to."""


@dataclass
class Session:
    """One that a visitor has begun."""

    cookies: dict[str, str] = field(default_factory=dict)
    count: int = 0
    """as the application has counted when it answered last"""
    was_lost: bool = False


@dataclass
class Met:
    """What the visitors met."""

    requests: int = 0
    failed: dict[str, int] = field(default_factory=lambda: {"GET": 0, "POST": 0})
    lost: int = 0
    """how often a session was gone, or had gone back to an earlier count"""
    longest: float = 0.0
    """seconds until an answer was there, or the request had failed"""
    example: str = ""
    """the first failure"""


class Visitors:
    """Each has a connection, kept alive, and so many sessions. `enter`, then use it as a context, then `look`."""

    def __init__(self, port: int, sessions: int) -> None:
        self.met = Met()
        self.sessions = [Session() for _ in range(sessions)]
        self._port = port
        self._lock = threading.Lock()
        self._over = threading.Event()
        self._threads = [threading.Thread(target=self._come, args=(number,)) for number in range(VISITORS)]

    def enter(self) -> None:
        """Begin all sessions. Raises LoadFailed where one does not begin."""
        self._each(lambda line, session: self._visit(line, "enter", "GET", session))
        if any(not session.count for session in self.sessions) or self.met.lost:
            raise LoadFailed(f"sessions do not begin: {self.met}")
        self.met = Met()

    def look(self) -> None:
        """Come once with each session."""
        self._each(lambda line, session: self._visit(line, "read", "GET", session))

    def __enter__(self) -> Visitors:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        for thread in self._threads:
            thread.join()

    def _each(self, visit: Callable[[Line, Session], object]) -> None:
        def come(number: int) -> None:
            with contextlib.closing(Line(self._port, keep=True)) as line:
                for session in self.sessions[number::VISITORS]:
                    visit(line, session)

        with ThreadPoolExecutor(VISITORS) as pool:
            list(pool.map(come, range(VISITORS)))

    def _come(self, number: int) -> None:
        """GET and POST in turn; half of them for the first session, the others for any of this visitor's."""
        chance = random.Random(number)
        own = self.sessions[number::VISITORS]
        visit = 0
        with contextlib.closing(Line(self._port, keep=True)) as line:
            while own and not self._over.wait(chance.uniform(*PAUSE)):
                visit += 1
                session = own[0] if chance.random() < 0.5 else chance.choice(own)
                self._visit(line, "change", "POST" if visit % 2 else "GET", session)

    def _visit(self, line: Line, page: str, method: str, session: Session) -> None:
        cookies = "; ".join(f"{name}={value}" for name, value in session.cookies.items())
        headers = {"Cookie": cookies} if cookies else {}
        began = time.monotonic()
        answer = line.exchange(method, f"/{page}", headers, None, 0.0, False)
        if answer.outcome is Outcome.STALE and method == "GET":  # a browser repeats it, too
            answer = line.exchange(method, f"/{page}", headers, None, 0.0, False)
        took = time.monotonic() - began
        with self._lock:
            met = self.met
            met.requests += 1
            met.longest = max(met.longest, took)
            if answer.outcome is not Outcome.ANSWERED or answer.status != HTTPStatus.OK or answer.headers is None:
                met.failed[method] += 1
                met.example = (
                    met.example or f"{method} /{page}: {answer.outcome} {answer.status} {answer.body[:200]!r}"
                )
                return
            count = json.loads(answer.body)["count"]
            if count < session.count + (page != "read"):
                met.lost += 1
                session.was_lost = True
        for text in answer.headers.get_all("Set-Cookie") or []:
            name, _, value = text.partition(";")[0].partition("=")
            session.cookies[name.strip()] = value
        session.count = count
