"""Who polls, and when somebody else does: the schedule of the gateway's threads.

One thread at a time leads. It polls, and serves a request itself as long as requests have lately been short: no
thread has to be woken, and the interpreter lock stays where it is. Before a request it passes the leadership on when
requests have lately been long. When one turns out long, which nobody can know before, a thread that watches takes
the leadership from it and gives it to another. So a slow request delays others by little more than `LONG`, and
threads beyond the first cost nothing until they are needed.

The watching thread sleeps on a timer of the kernel's (timerfd_create(2)) that the leader sets when it begins to
serve and clears when it has nothing to do: it wakes once in `LONG` under load, and never for requests that are few
and short.
"""

from __future__ import annotations

import ctypes
import os
import threading
from queue import SimpleQueue

LONG = 0.002
"""Seconds after which a leader that serves loses the leadership."""
WORTH = 0.00025
"""Seconds that requests last on the average of late, to be worth a thread: waking one costs a tenth of it."""
WEIGHT = 1 / 8
"""Of the last request in that average."""


class Leadership:
    """For any number of threads, each of which calls `wait` first, and one that calls `watch`. Raises OSError."""

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
        self._timer = Timer(LONG)
        self._watching = False
        """the timer is set"""
        self._seen = 0
        """which request was served when it was last looked"""

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
            self._watch_from_now()
        return True

    def kept(self) -> bool:
        """The request is served: whether the leadership was not taken meanwhile."""
        with self._lock:
            if self._leader != threading.get_ident():
                return False
            self._serving = False
            return True

    def rest(self) -> None:
        """The leader is about to wait for requests: nothing is to be watched."""
        if self._watching:
            with self._lock:
                self._watching = False
                if not self._over:  # nobody may silence the last ring
                    self._timer.clear()

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
            self._timer.ring()

    def close(self) -> None:
        """No thread is left, or none that will ever lead again."""
        self._timer.close()

    def watch(self) -> None:
        """A thread's whole life: take the leadership from whoever serves one request for long."""
        while True:
            self._timer.wait()
            if self._over:
                return
            served = self._served
            if self._serving and served == self._seen:
                self._take(served)
            self._seen = served

    def _watch_from_now(self) -> None:
        with self._lock:
            self._watching = True
            self._seen = self._served
            if not self._over:
                self._timer.set()

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


_libc = ctypes.PyDLL(None, use_errno=True)  # it holds the interpreter lock: these calls are over at once
_CLOCK_MONOTONIC = 1
_AT_ONCE = 1
"""Nanoseconds."""


class _Itimerspec(ctypes.Structure):
    """struct itimerspec: interval and first time, each in seconds and nanoseconds."""

    _fields_ = (
        ("interval", ctypes.c_long),
        ("interval_nanoseconds", ctypes.c_long),
        ("first", ctypes.c_long),
        ("first_nanoseconds", ctypes.c_long),
    )


class Timer:
    """Wakes whoever waits, every so many seconds, as long as it is set (timerfd_create(2)). Raises OSError."""

    def __init__(self, seconds: float) -> None:
        self._descriptor: int = _libc.timerfd_create(_CLOCK_MONOTONIC, os.O_CLOEXEC)
        if self._descriptor < 0:
            raise OSError(ctypes.get_errno(), "no timer")
        whole, rest = divmod(round(seconds * 1e9), 10**9)
        self._every = ctypes.byref(_Itimerspec(whole, rest, whole, rest))
        self._never = ctypes.byref(_Itimerspec())
        self._now = ctypes.byref(_Itimerspec(0, 0, 0, _AT_ONCE))

    def set(self) -> None:
        """From now on."""
        _libc.timerfd_settime(self._descriptor, 0, self._every, None)

    def clear(self) -> None:
        """Not any more."""
        _libc.timerfd_settime(self._descriptor, 0, self._never, None)

    def ring(self) -> None:
        """Wake whoever waits once, and not any more."""
        _libc.timerfd_settime(self._descriptor, 0, self._now, None)

    def wait(self) -> None:
        """Blocks until it is time."""
        os.read(self._descriptor, 8)

    def close(self) -> None:
        os.close(self._descriptor)
