"""Who polls, and when somebody else does: the schedule of the gateway's threads.

One thread at a time leads. It polls, and serves a request itself as long as requests have lately been short: no
thread has to be woken, and the interpreter lock stays where it is. Before a request it passes the leadership on when
requests have lately been long. When one turns out long, which nobody can know before, a thread that watches takes
the leadership from it and gives it to another. So a slow request delays others by little more than `LONG`, and
threads beyond the first cost nothing until they are needed.
"""

from __future__ import annotations

import threading
import time
from queue import SimpleQueue

LONG = 0.002
"""Seconds after which a leader that serves loses the leadership."""
WORTH = 0.00025
"""Seconds that requests last on the average of late, to be worth a thread: waking one costs a tenth of it."""
WEIGHT = 1 / 8
"""Of the last request in that average."""


class Leadership:
    """For any number of threads, each of which calls `wait` first, and one that calls `watch`."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._parked: list[tuple[int, SimpleQueue[bool]]] = []
        self._mine = threading.local()
        self._leader = 0
        """the leading thread's identity; 0: nobody leads, and the next one who waits does"""
        self._over = False
        self._lately = 0.0
        self._served = 0
        """requests that a leader has begun to serve"""
        self._serving = False
        """the leader does so now"""
        self._watching = False
        self._bell: SimpleQueue[None] = SimpleQueue()

    def wait(self) -> bool:
        """Until this thread leads; False when all is over. Blocks, unless nobody leads."""
        me = threading.get_ident()
        with self._lock:
            if self._over:
                return False
            if not self._leader:
                self._leader = me
                return True
            place = self._place()
            self._parked.append((me, place))
        return place.get()

    def keep(self) -> bool:
        """The leader is about to serve a request: whether it leads on, being watched."""
        if self._lately > WORTH:
            self.pass_on()
            return False
        self._served += 1
        self._serving = True
        if not self._watching:
            self._watching = True
            self._bell.put(None)
        return True

    def kept(self) -> bool:
        """The request is served: whether the leadership was not taken meanwhile."""
        with self._lock:
            if self._leader != threading.get_ident():
                return False
            self._serving = False
            return True

    def lasted(self, seconds: float) -> None:
        """A request was served, by any thread."""
        self._lately += (seconds - self._lately) * WEIGHT

    def pass_on(self) -> None:
        """The leader leads no more; the one that parked last does (its memory is warm)."""
        with self._lock:
            self._pass_on()

    def give_up(self) -> None:
        """A thread that may lead or not, it does not know, leads no more."""
        with self._lock:
            if self._leader == threading.get_ident():
                self._pass_on()

    def end(self) -> None:
        """Nobody waits any more, nor watches."""
        with self._lock:
            self._over = True
            while self._parked:
                self._parked.pop()[1].put(False)
        self._bell.put(None)

    def watch(self) -> None:
        """A thread's whole life: take the leadership from whoever serves for long. Sleeps while nobody serves."""
        while True:
            self._bell.get()
            while not self._over:
                served = self._served
                time.sleep(LONG)
                if self._served != served:
                    continue
                if self._serving:
                    self._take(served)
                    continue
                self._watching = False
                if self._served == served and not self._serving:
                    break  # else the leader came between, and may have seen that it is watched
                self._watching = True
            if self._over:
                return

    def _take(self, served: int) -> None:
        with self._lock:
            if self._serving and self._served == served:
                self._pass_on()

    def _pass_on(self) -> None:
        self._serving = False
        if self._parked:
            self._leader, place = self._parked.pop()
            place.put(True)
        else:
            self._leader = 0

    def _place(self) -> SimpleQueue[bool]:
        place: SimpleQueue[bool] | None = getattr(self._mine, "place", None)
        if place is None:
            place = self._mine.place = SimpleQueue()
        return place
