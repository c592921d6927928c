"""Which request may begin, which waits for a thread, which is at work. Pure.

Any thread may use it; only `wait_idle` blocks.
"""

from __future__ import annotations

from collections import deque
from threading import Lock
from typing import Generic, TypeVar

from lbadaptor.appserver.http.at_work import Durations, Worker
from lbadaptor.contract.headers import Refusal

Task = TypeVar("Task")


class Admission(Generic[Task]):
    """Requests in flight: `threads` of them at work at most, `queue` at most that wait for a thread.

    Those that brought a ticket come first, because no other AppServer can serve them.
    """

    def __init__(self, threads: int, queue: int) -> None:
        self.threads = threads
        self.dying = False
        """ordered to drain: takes only visitors whose session it knows"""
        self.stopping = False
        """ordered to stop: takes nobody"""
        self.in_flight = 0
        """requests at work or waiting"""
        self.served = 0
        self.durations = Durations()
        """for how long those that were served were at work"""
        self.workers: list[Worker[Task]] = []
        """one for each thread that serves"""
        self._queue = queue
        self._held: deque[Task] = deque()
        self._others: deque[Task] = deque()
        self._at_work = 0
        self._lock = Lock()
        self._awaiting: list[Lock] = []
        """one for each thread in `wait_idle`; released when nothing is in flight"""

    def admit(self, task: Task, known: bool, held: bool) -> tuple[Task, Refusal] | None:
        """Let a request wait for its turn. The one that is refused instead, and why.

        That is this one, or one that makes room for it.

        `known`: its session is here. `held`: it brought our ticket, and can go nowhere else.
        """
        with self._lock:
            if self.stopping or (self.dying and not known):
                return task, Refusal.DYING
            refused = None
            if self.in_flight >= self.threads + self._queue:
                if not (held and self._others):
                    return task, Refusal.BUSY
                refused = self._others.pop(), Refusal.BUSY
                self.in_flight -= 1
            (self._held if held else self._others).append(task)
            self.in_flight += 1
        return refused

    def begin(self) -> Task | None:
        """The request whose turn it is; None: none waits, or `threads` are at work. When it is done, call `end`."""
        if not (self._held or self._others):
            return None
        with self._lock:
            queue = self._held or self._others
            if not queue or self._at_work >= self.threads:
                return None
            self._at_work += 1
            return queue.popleft()

    def end(self, seconds: float) -> Task | None:
        """A request is done, which was at work for so long. The next one, as from `begin`."""
        with self._lock:
            self._at_work -= 1
            self.in_flight -= 1
            self.served += 1
            if self._awaiting and not self.in_flight:
                while self._awaiting:
                    self._awaiting.pop().release()
            self.durations.add(seconds)  # last: it may raise MemoryError
        return self.begin()

    @property
    def waiting(self) -> int:
        """How many requests wait for a thread."""
        return len(self._held) + len(self._others)

    def worker(self) -> Worker[Task]:
        """For a thread that is going to serve: there it notes what it serves."""
        worker: Worker[Task] = Worker()
        self.workers.append(worker)
        return worker

    def dismiss(self) -> list[Task]:
        """The requests that wait; they wait no more."""
        with self._lock:
            waiting = [*self._held, *self._others]
            self._held.clear()
            self._others.clear()
            self.in_flight -= len(waiting)
            return waiting

    def forget_served(self) -> None:
        """Count from zero again."""
        with self._lock:
            self.served = 0
            self.durations = Durations()

    def wait_idle(self, timeout: float) -> bool:
        """Wait until nothing is in flight. False when it took longer than `timeout` seconds."""
        idle = Lock()
        idle.acquire()
        with self._lock:
            if not self.in_flight:
                return True
            self._awaiting.append(idle)
        if idle.acquire(timeout=max(0.0, timeout)):
            return True
        with self._lock:
            if idle in self._awaiting:
                self._awaiting.remove(idle)
        return not self.in_flight

    def abandon(self) -> None:
        """In a forked child: another thread may hold the lock, and is not here."""
        self._lock = Lock()
