"""Visitors of a demo: each begins a session, looks at some pages, and leaves; they count what goes wrong."""

from __future__ import annotations

import contextlib
import random
import re
import threading
from dataclasses import dataclass

import requests

from lbadaptor.log import texts

PAUSE = 0.5, 1.5
"""Seconds between two pages of one visitor, at least and at most."""
PAGES = 10, 50
"""So many pages a visitor looks at."""
TIMEOUT = 30.0
STOP_TIMEOUT = 2.0
_find_visits = re.compile(r"<strong>(\d+)</strong>").search


@dataclass
class Counted:
    """What visitors have seen."""

    visits: int = 0
    lost: int = 0
    """sessions that the next page did not know any more"""
    failed: int = 0
    """pages that did not come"""

    def __str__(self) -> str:
        return f"{texts.count(self.visits, 'visit')}, {self.failed} failed, {texts.count(self.lost, 'session')} lost"


class Visitors:
    """So many at once, a thread each, at a site that counts their visits. `start`, then `stop`."""

    def __init__(self, site: str, count: int) -> None:
        self.counted = Counted()
        self._site = site
        self._lock = threading.Lock()
        self._over = threading.Event()
        self._threads = [threading.Thread(target=self._come_and_go, daemon=True) for _ in range(count)]

    def start(self) -> None:
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        """Blocks for STOP_TIMEOUT, about; a page that takes longer is not waited for."""
        self._over.set()
        for thread in self._threads:
            thread.join(STOP_TIMEOUT / len(self._threads))

    def _come_and_go(self) -> None:
        while not self._over.is_set():
            with requests.Session() as http, contextlib.suppress(requests.RequestException):
                http.trust_env = False
                self._look_around(http)
                http.get(f"{self._site}leave", timeout=TIMEOUT)

    def _look_around(self, http: requests.Session) -> None:
        seen = 0
        for _ in range(random.randint(*PAGES)):
            visits = self._visit(http)
            if self._over.is_set():
                return
            with self._lock:
                self.counted.visits += 1
                self.counted.failed += not visits
                self.counted.lost += 0 < visits <= seen
            seen = visits or seen
            if self._over.wait(random.uniform(*PAUSE)):
                return

    def _visit(self, http: requests.Session) -> int:
        """What the page has counted; 0: it did not come."""
        try:
            answer = http.get(self._site, timeout=TIMEOUT)
        except requests.RequestException:
            return 0
        found = _find_visits(answer.text) if answer.status_code == 200 else None
        return int(found[1]) if found else 0
