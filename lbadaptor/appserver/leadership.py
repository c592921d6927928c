"""Who polls, and when somebody else does: the schedule of the gateway's threads.

One thread at a time leads. It polls, and serves a request itself as long as requests have lately been short: no
thread has to be woken, and the interpreter lock stays where it is. Before a request it passes the leadership on when
requests have lately been long. When one turns out long, which nobody can know before, a thread that watches takes
the leadership from it and gives it to another. So a slow request delays others by no more than a moment, and
threads beyond the first cost nothing until they are needed.

The watching thread sleeps on a timer of the kernel's (timerfd_create(2)). A leader that begins to serve sets it,
unless that was done a moment ago: so it does not ring while requests are short, and rings soon when one is not. To
set it for each request would cost more: a virtual machine leaves to its host for every change of a timer. To wake
that thread every so often would cost more, too: it takes the interpreter lock from the leader, and a processor from
somebody.

What keeps a leader from its work may be that other processes have the processors. That makes no request long, and
another thread would get no further: so a leader that neither waits nor computes keeps the leadership.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import threading
import time
from queue import SimpleQueue

LOOK = 0.003
"""Seconds from when the timer is set to a look at the leader: a request that waits is noticed after 1 to 3 ms."""
MOMENT = 0.002
"""Seconds for which the timer is not set again."""
LONG = 0.001
"""Seconds that a request must have lasted to be found long."""
WORTH = 0.00025
"""Seconds that requests last on the average of late, to be worth a thread: waking one costs a tenth of it. One that
lasts longer than `LOOK` counts as that: it costs others no more."""
WEIGHT = 1 / 32
"""Of the last request in that average."""
LESSON = 1 / 4
"""Of one from which the leadership had to be taken: more like it may follow, and need not wait to be found out."""


Staff = list[None]
"""Holds one thing while its leader serves: who takes that away leads on, or says who does."""


class Leadership:
    """For any number of threads, each of which calls `wait` first, and one that calls `watch`. Raises OSError."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._parked: list[tuple[int, SimpleQueue[bool]]] = []
        self._mine = threading.local()
        self._leader = 0
        """the leading thread's identity in the kernel; 0: nobody leads, and the next one who waits does"""
        self._over = False
        self._lately = 0.0
        self._served = 0
        """requests that a leader has begun to serve"""
        self._began = 0.0
        """when it began with the last one"""
        self._staff: Staff = []
        """the leader's, another one for each"""
        self._timer = Timer(LOOK)
        self._set_at = float("-inf")
        """when the timer was set last"""
        self._suspect = (0, 0.0)
        """a request that has lasted for long, as if it computed; the seconds for which its thread had done so then"""

    def wait(self) -> bool:
        """Until this thread leads; False when all is over. Blocks, unless nobody leads."""
        me = threading.get_native_id()
        with self._lock:
            if self._over:
                return False
            if not self._leader:
                self._leader = me
                return True
            place = self._place()
            self._parked.append((me, place))
        return place.get()

    def keep(self, now: float) -> Staff | None:
        """The leader is about to serve a request: what it leads on by, being watched; None: it leads no more.

        `now`: monotonic seconds.
        """
        if self._lately > WORTH:
            self.pass_on()
            return None
        staff = self._staff
        self._served += 1
        self._began = now
        staff.append(None)
        if now - self._set_at >= MOMENT:
            self._watch(now)
        return staff

    @staticmethod
    def kept(staff: Staff) -> bool:
        """The request is served: whether the leadership was not taken meanwhile. `staff`: what `keep` gave."""
        try:
            staff.pop()
        except IndexError:
            return False
        return True

    def lasted(self, seconds: float) -> None:
        """A request was served, by any thread."""
        self._lately += ((seconds if seconds < LOOK else LOOK) - self._lately) * WEIGHT

    def pass_on(self) -> None:
        """The leader leads no more; the one that parked last does (its memory is warm)."""
        with self._lock:
            self._pass_on()

    def give_up(self) -> None:
        """A thread that may lead or not, it does not know, leads no more."""
        with self._lock:
            if self._leader == threading.get_native_id():
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
            served, now = self._served, time.monotonic()
            if not self._staff:
                continue  # nothing is served: the next one who begins sets the timer
            if now - self._began >= LONG and self._is_long(served):
                self._take(served)
            else:
                self._watch(now)

    def _is_long(self, served: int) -> bool:
        """Whether a request that has lasted for long waits, or computes: what gets no processor is not long."""
        if _waits(self._leader):
            return True
        computed = _computed(self._leader)
        if self._suspect[0] != served:
            self._suspect = served, computed
        return computed - self._suspect[1] >= LONG

    def _watch(self, now: float) -> None:
        """Have a look, a while from now."""
        with self._lock:
            self._set_at = now
            if not self._over:  # nobody may silence the last ring
                self._timer.set()

    def _take(self, served: int) -> None:
        with self._lock:
            if self._served != served or self._leader == 0:
                return
            with contextlib.suppress(IndexError):  # just served
                self._staff.pop()
                self._lately += (LOOK - self._lately) * LESSON
                self._pass_on()

    def _pass_on(self) -> None:
        self._staff = []
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


def _waits(thread: int) -> bool:
    """Whether a thread waits for anything but a processor (proc(5), /proc/pid/stat)."""
    try:
        with open(f"/proc/self/task/{thread}/stat", "rb") as file:
            return file.read().rpartition(b")")[2].split()[0] != b"R"
    except OSError:
        return False


def _computed(thread: int) -> float:
    """The seconds for which a thread has computed; 0 for one that is no more."""
    try:
        return time.clock_gettime(~thread << 3 | _CLOCK_OF_THREAD)
    except OSError:
        return 0.0


_CLOCK_OF_THREAD = 6
"""CPUCLOCK_PERTHREAD_MASK | CPUCLOCK_SCHED: what pthread_getcpuclockid(3) makes a clock of; that takes no thread that
may be over."""

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
    """Wakes whoever waits, once, so many seconds after it was set last (timerfd_create(2)). Raises OSError."""

    def __init__(self, seconds: float) -> None:
        self._descriptor: int = _libc.timerfd_create(_CLOCK_MONOTONIC, os.O_CLOEXEC)
        if self._descriptor < 0:
            raise OSError(ctypes.get_errno(), "no timer")
        whole, rest = divmod(round(seconds * 1e9), 10**9)
        self._later = ctypes.byref(_Itimerspec(0, 0, whole, rest))
        self._now = ctypes.byref(_Itimerspec(0, 0, 0, _AT_ONCE))

    def set(self) -> None:
        """From now on. If it was set already, it does not ring before."""
        _libc.timerfd_settime(self._descriptor, 0, self._later, None)

    def ring(self) -> None:
        """Wake whoever waits now."""
        _libc.timerfd_settime(self._descriptor, 0, self._now, None)

    def wait(self) -> None:
        """Blocks until it is time."""
        os.read(self._descriptor, 8)

    def close(self) -> None:
        os.close(self._descriptor)
