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
from threading import Lock, get_native_id, local
from time import clock_gettime, monotonic

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


Place = Lock
"""Held, but for the moment in which the thread that parks there is woken. To wake it takes no memory."""
Staff = list[None]
"""Holds one thing while its leader serves: who takes that away leads on, or says who does."""


class Leadership:
    """For any number of threads, each of which calls `wait` first, and one that calls `watch`. Raises OSError.

    What descriptors it needs it opens when a thread comes for the first time: later there may be none.
    """

    def __init__(self) -> None:
        self._lock = Lock()
        self._parked: list[tuple[int, Place]] = []
        self._mine = local()
        self._states: dict[int, int] = {}
        """by a thread's identity in the kernel, the descriptor that tells what it does"""
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
        self._armed = False
        """a look at the leader is certain: the timer is set, or has rung and the look is about to come"""
        self._suspect = (0, 0.0)
        """a request that has lasted for long, as if it computed; the seconds for which its thread had done so then"""

    def wait(self) -> bool:
        """Until this thread leads; False when all is over. Blocks, unless nobody leads."""
        me = get_native_id()
        place = self._place(me)
        with self._lock:
            if self._over:
                return False
            if not self._leader:
                self._leader = me
                return True
            self._parked.append((me, place))
        place.acquire()
        return not self._over

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
        staff.append(None)  # first; then the look at `_armed`: the watching thread does it the other way round
        if now - self._set_at >= MOMENT or not self._armed:
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
            if self._leader == get_native_id():
                self._pass_on()

    def end(self) -> None:
        """Nobody waits any more, nor watches."""
        with self._lock:
            self._over = True
            while self._parked:
                self._parked.pop()[1].release()
            self._timer.ring()

    def close(self) -> None:
        """No thread is left, or none that will ever lead again."""
        self._timer.close()
        while self._states:
            os.close(self._states.popitem()[1])

    def abandon(self) -> None:
        """In a forked child, where none of the threads is: close what is ours. The lock may be anybody's."""
        self._lock = Lock()
        self._over = True
        with contextlib.suppress(OSError):
            self.close()

    def intact(self) -> bool:
        """Whether the timer's descriptor was not closed by somebody else."""
        return self._timer.intact()

    def watch(self) -> None:
        """A thread's whole life: take the leadership from whoever serves one request for long. Raises OSError.

        Whoever serves is watched, however late clocks are read and threads get their turn: before this thread sleeps
        without a timer it says so (`_armed`), and then looks once more whether somebody has begun; a leader first
        says that it serves, and then looks whether it has to set the timer. One of the two sees the other.
        """
        while True:
            self._armed = False
            if self._staff:
                self._watch(monotonic())
            self._timer.wait()
            if self._over:
                return
            served, now = self._served, monotonic()
            if self._staff and now - self._began >= LONG and self._is_long(served):
                self._take(served)

    def _is_long(self, served: int) -> bool:
        """Whether a request that has lasted for long waits, or computes: what gets no processor is not long."""
        if _waits(self._states.get(self._leader, -1)):
            return True
        computed = _computed(self._leader)
        if self._suspect[0] != served:
            self._suspect = served, computed
        return computed - self._suspect[1] >= LONG

    def _watch(self, now: float) -> None:
        """Have a look, a while from now."""
        with self._lock:
            self._set_at = now
            self._armed = True
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
            place.release()
        else:
            self._leader = 0

    def _place(self, me: int) -> Place:
        """Where this thread parks. The first time, opens what tells others whether it waits."""
        place: Place | None = getattr(self._mine, "place", None)
        if place is None:
            place = self._mine.place = Lock()
            place.acquire()
            with contextlib.suppress(OSError):
                self._states[me] = os.open(f"/proc/self/task/{me}/stat", os.O_RDONLY | os.O_CLOEXEC)
        return place


def _waits(state: int) -> bool:
    """Whether a thread waits for anything but a processor (proc(5), /proc/pid/stat, of which this is a descriptor).

    Needs no new descriptor: whether it waits must be known just when there is none. Where it cannot be told, it does:
    to take the leadership from one that computes costs less than to leave it with one that sleeps.
    """
    try:
        return os.pread(state, 512, 0).rpartition(b")")[2].split()[0] != b"R"
    except (OSError, IndexError):
        return True


def _computed(thread: int) -> float:
    """The seconds for which a thread has computed; 0 for one that is no more."""
    try:
        return clock_gettime(~thread << 3 | _CLOCK_OF_THREAD)
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

    def intact(self) -> bool:
        """Whether it is still there: an application may close descriptors that are not its own."""
        return bool(_libc.timerfd_gettime(self._descriptor, ctypes.byref(_Itimerspec())) == 0)
