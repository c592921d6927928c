"""POSTs that must be executed once each, while AppServers come and go."""

from __future__ import annotations

import contextlib
import http.client
import threading
import time
from collections import Counter

from cluster import TIMEOUT, Site


class Posts:
    """Visitors without a session, each on a connection of their own, who post notes for as long as it is a context.

    The application (trials) writes each note to a file outside all processes.
    """

    def __init__(self, site: Site, visitors: int) -> None:
        self.done = 0
        """notes that were answered 200"""
        self.failures: list[str] = []
        self.longest = 0.0
        """seconds that one note took"""
        self._site = site
        self._notes = site.cluster.gates / "notes"
        self._notes.touch()
        self._notes.chmod(0o666)
        self._answered: list[str] = []
        self._over = threading.Event()
        self._lock = threading.Lock()
        self._threads = [threading.Thread(target=self._post, args=(number,)) for number in range(visitors)]

    def __enter__(self) -> Posts:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        for thread in self._threads:
            thread.join(TIMEOUT)
        assert not any(thread.is_alive() for thread in self._threads)

    def doubled(self) -> list[str]:
        """Notes that the application wrote more than once."""
        return [note for note, times in Counter(self._written()).items() if times > 1]

    def missing(self) -> set[str]:
        """Notes that were answered 200 and not written."""
        return set(self._answered) - set(self._written())

    def check(self) -> None:
        """None failed, none was executed twice, none was only said to be executed."""
        assert (self.failures, self.doubled(), self.missing()) == ([], [], set())
        assert len(self._written()) == self.done

    def _written(self) -> list[str]:
        return self._notes.read_text().split()

    def _post(self, visitor: int) -> None:
        connection = http.client.HTTPConnection("127.0.0.1", self._site.port, timeout=TIMEOUT)
        number = 0
        with contextlib.closing(connection):
            while not self._over.is_set():
                number += 1
                note = f"{visitor}-{number}"
                began = time.monotonic()
                try:
                    connection.request("POST", "/note", note.encode())
                    answer = connection.getresponse()
                    body = answer.read().decode()
                    failure = "" if (answer.status, body) == (200, note) else f"{answer.status} {body!r}"
                except (OSError, http.client.HTTPException) as error:
                    failure = repr(error)
                    connection.close()
                with self._lock:
                    self.longest = max(self.longest, time.monotonic() - began)
                    if failure:
                        self.failures.append(f"{note}: {failure}")
                    else:
                        self.done += 1
                        self._answered.append(note)
