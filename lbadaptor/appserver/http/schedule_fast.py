"""The fast schedule: the thread that polls serves requests itself, as long as they are short. See `schedule`.

The threads follow the leader/followers pattern: one of them at a time is the *leader*, the others are parked. The
leader polls. A request that it reads it serves itself if requests have lately been short: no thread has to be woken,
and the interpreter lock stays where it is. If requests have lately been long, it first makes another thread the
leader. There is one thread more than requests may be at work, so that one can always lead.

Nobody knows before whether a request will be long. So a *watching thread* looks at a leader that serves: if its
request lasts too long, the watching thread makes another thread the leader. A long request delays others by a few
milliseconds.

The watching thread sleeps on a timer of the kernel (timerfd_create(2)). A leader that begins to serve sets the
timer, unless it was set a moment ago. So while requests are short and follow each other, the timer is always set
again before it rings. While a request is long, it rings soon. Two simpler ways cost more: to set the timer for every
request (a virtual machine exits to its host for every change of a timer), and to wake the watching thread at
intervals (it takes the interpreter lock from the leader, and a processor from another process).

A leader may be slow only because other processes have the processors. Its request is not long then, and another
leader would be as slow. So a leader that neither waits nor computes stays the leader.

docs/design/schedule.md has a diagram.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
from collections.abc import Callable
from threading import Lock, Thread, get_native_id, local
from time import clock_gettime, monotonic
from typing import Generic, TypeVar

from lbadaptor.appserver.http import forked
from lbadaptor.appserver.http.admission import Admission
from lbadaptor.appserver.http.at_work import Worker
from lbadaptor.appserver.http.own_errors import OwnErrors

CHECK_AFTER = 0.003
"""Seconds from when the timer is set until the watching thread looks at the leader. A request that waits has lasted 1
to 3 ms then."""
SET_AGAIN = 0.002
"""Seconds for which the timer is not set again."""
LONG = 0.001
"""Seconds that a request must have lasted to be found long."""
WORTH_A_THREAD = 0.00025
"""Seconds: if requests last longer than this on average, another thread is woken to lead before one is served. Waking
a thread costs a tenth of it. A request longer than `CHECK_AFTER` counts as that: it delays others no longer."""
WEIGHT = 1 / 32
"""Weight of the last request in that average."""
WEIGHT_WHEN_TAKEN = 1 / 4
"""The same for a request during which the leadership was taken away: more such requests may follow."""

Task = TypeVar("Task")

Token = list[None]
"""Holds one element while its leader serves. The thread that takes the element out decides (`list.pop` is one step
for other threads): the leader takes it and leads on, or the watching thread takes it and makes another the leader."""


class FastSchedule(Generic[Task]):
    """Threads that take turns as the leader, and one that watches. See `schedule.Schedule`. Raises OSError."""

    def __init__(
        self,
        admission: Admission[Task],
        poll: Callable[[], object],
        serve: Callable[[Task], object],
        give_up: Callable[[Task], object],
        errors: OwnErrors,
    ) -> None:
        self.leadership = Leadership()
        self._admission = admission
        self._poll = poll
        self._serve = serve
        self._give_up = give_up
        self._errors = errors
        self._over = False
        self.threads = [
            Thread(target=self._work, args=(admission.worker(),), name=f"gateway-{number}", daemon=True)
            for number in range(admission.threads + 1)
        ]
        self.threads.append(Thread(target=self._watch, name="gateway-watch", daemon=True))

    def start(self) -> None:
        for thread in self.threads:
            thread.start()

    def stop(self) -> None:
        self._over = True
        self.leadership.end()

    def close(self) -> None:
        self.leadership.close()

    def abandon(self) -> None:
        self._over = True
        self.leadership.abandon()

    def intact(self) -> bool:
        return self.leadership.intact()

    def _work(self, worker: Worker[Task]) -> None:
        """A thread's whole life: wait until it is the leader; then poll and serve until it is not."""
        while True:
            try:
                if not self.leadership.wait():
                    return
                while self._serve_waiting(worker) and not self._over:
                    self._poll()
            except BaseException:
                self._errors.report(
                    "an error in a thread that serves requests; it begins anew, and no connection is lost"
                )
            self._give_up_leadership()

    def _serve_waiting(self, worker: Worker[Task]) -> bool:
        """The leader serves the requests that wait for a thread. Whether it is still the leader then."""
        admission, leadership = self._admission, self.leadership
        task = admission.begin()
        if task is None:
            return True
        leads = True
        began = monotonic()
        lasted = 0.0
        while task is not None:
            token = None
            worker.since = began
            worker.task = task
            try:
                leads = leads and (token := leadership.begin_serving(began)) is not None
                self._serve(task)
            except BaseException:
                self._give_up(task)
                leads = False  # unknown; `give_up` finds it out
            if token is not None:
                leads = leadership.end_serving(token)
            worker.task = None
            try:
                ended = monotonic()
                lasted = ended - began
                began = ended
                leadership.record(lasted)
            except BaseException:
                self._errors.report("how long a request lasted is not known")
            task = admission.end(lasted)
        return leads

    def _watch(self) -> None:
        """The watching thread's whole life."""
        while True:
            try:
                self.leadership.watch()
                return
            except BaseException:
                self._errors.report("an error in the thread that watches the others; it begins anew")

    def _give_up_leadership(self) -> None:
        """Tried until it is done: while this thread is the leader, no other one polls."""
        while True:
            try:
                self.leadership.give_up()
                return
            except BaseException:  # MemoryError
                self._errors.report("a thread of the gateway keeps the leadership")


class Leadership:
    """Which thread is the leader. Each thread calls `wait` first; one thread calls `watch`. Raises OSError.

    It opens its descriptors when it is made and when a thread first waits: later there may be none.
    """

    def __init__(self) -> None:
        self._lock = Lock()
        self._parked: list[tuple[int, Lock]] = []
        """threads that wait: their identity in the kernel, and a lock that each tries to get; `release` wakes it"""
        self._own = local()
        self._pid = os.getpid()
        self._stat_files: dict[int, int] = {}
        """by a thread's identity in the kernel, a descriptor of the file that tells what the thread does"""
        self._leader = 0
        """the leader's identity in the kernel; 0: there is none, and the next thread that waits becomes it"""
        self._over = False
        self._average = 0.0
        """seconds that requests have lately lasted"""
        self._served = 0
        """requests that leaders have begun to serve"""
        self._began = 0.0
        """when the last of them began"""
        self._token: Token = []
        """the leader's; each leader has a new one, so that a former leader takes no element but its own"""
        self._timer = Timer(CHECK_AFTER)
        self._set_at = float("-inf")
        """when the timer was last set"""
        self._armed = False
        """the watching thread will look at the leader: the timer is set, or has rung and the look comes next"""
        self._computing = (0, 0.0)
        """the number of a long request whose thread was not asleep; the processor time its thread had used then"""

    def wait(self) -> bool:
        """Wait until this thread is the leader; False when all is over. Blocks, unless there is no leader."""
        me = get_native_id()
        gate = self._own_gate(me)
        with self._lock:
            if self._over:
                return False
            if not self._leader:
                self._leader = me
                return True
            self._parked.append((me, gate))
        gate.acquire()
        return not self._over

    def begin_serving(self, now: float) -> Token | None:
        """The leader is about to serve a request. The token for `end_serving`; None: it is not the leader any more.

        `now`: monotonic seconds.
        """
        if self._average > WORTH_A_THREAD:
            self.pass_on()
            return None
        token = self._token
        self._served += 1
        self._began = now
        token.append(None)  # first; then `_armed` is read: see `watch`
        if now - self._set_at >= SET_AGAIN or not self._armed:
            self._arm(now)
        return token

    @staticmethod
    def end_serving(token: Token) -> bool:
        """The request is served. Whether this thread is still the leader."""
        try:
            token.pop()
        except IndexError:
            return False
        return True

    def record(self, seconds: float) -> None:
        """A request has lasted so long, in any thread."""
        self._average += ((seconds if seconds < CHECK_AFTER else CHECK_AFTER) - self._average) * WEIGHT

    def pass_on(self) -> None:
        """The leader makes the thread that parked last the leader: its memory is still in the caches."""
        with self._lock:
            self._pass_on()

    def give_up(self) -> None:
        """The same, if this thread is the leader."""
        with self._lock:
            if self._leader == get_native_id():
                self._pass_on()

    def end(self) -> None:
        """Wake all that wait, and the watching thread: each of them ends."""
        with self._lock:
            self._over = True
            while self._parked:
                self._parked.pop()[1].release()
            self._timer.ring()

    def close(self) -> None:
        """Close the descriptors: no thread will be the leader any more."""
        self._timer.close()
        while self._stat_files:
            os.close(self._stat_files.popitem()[1])

    def abandon(self) -> None:
        """In a forked child, where the threads are not: close the descriptors. Another thread may hold the lock."""
        self._lock = Lock()
        self._over = True
        with contextlib.suppress(OSError):
            self.close()
        with contextlib.suppress(OSError):
            forked.close_stat_files(self._pid)

    def intact(self) -> bool:
        """Whether the timer's descriptor is still open."""
        return self._timer.intact()

    def watch(self) -> None:
        """The watching thread: take the leadership from a leader that serves one request for long. Raises OSError.

        Every request that a leader serves has to be watched, however late a thread gets its turn. The leader and this
        thread each write first and then read what the other writes:

            leader (`begin_serving`)                  this thread, before it sleeps
            1. put an element into the token          1. _armed = False
            2. read _armed; if it is False,           2. read the token; if there is an element,
               set the timer                             set the timer

        Whatever the order of these steps, one of the two sets the timer.
        """
        while True:
            self._armed = False
            if self._token:
                self._arm(monotonic())
            self._timer.wait()
            if self._over:
                return
            served, now = self._served, monotonic()
            if self._token and now - self._began >= LONG and self._is_long(served):
                self._take(served)

    def _is_long(self, served: int) -> bool:
        """Whether a request that has lasted for LONG waits for something, or computes.

        That it computes is seen at the second look: its thread has used processor time since the first one.
        """
        if _waits(self._stat_files.get(self._leader, -1)):
            return True
        computed = _computed(self._leader)
        if self._computing[0] != served:
            self._computing = served, computed
        return computed - self._computing[1] >= LONG

    def _arm(self, now: float) -> None:
        """Set the timer."""
        with self._lock:
            self._set_at = now
            self._armed = True
            if not self._over:  # the ring of `end` must not be lost
                self._timer.set()

    def _take(self, served: int) -> None:
        """Take the leadership away, if the leader still serves the request of this number."""
        with self._lock:
            if self._served != served or self._leader == 0:
                return
            with contextlib.suppress(IndexError):  # the leader has just taken the element out: it is done
                self._token.pop()
                self._average += (CHECK_AFTER - self._average) * WEIGHT_WHEN_TAKEN
                self._pass_on()

    def _pass_on(self) -> None:
        self._token = []
        if self._parked:
            self._leader, gate = self._parked.pop()
            gate.release()
        else:
            self._leader = 0

    def _own_gate(self, me: int) -> Lock:
        """The lock at which this thread parks. The first time, opens the file that tells whether the thread waits."""
        gate: Lock | None = getattr(self._own, "gate", None)
        if gate is None:
            gate = self._own.gate = Lock()
            gate.acquire()
            with contextlib.suppress(OSError):
                self._stat_files[me] = os.open(f"/proc/self/task/{me}/stat", os.O_RDONLY | os.O_CLOEXEC)
        return gate


def _waits(state: int) -> bool:
    """Whether a thread waits for anything but a processor (proc(5); `state` is a descriptor of /proc/pid/stat).

    Opens no descriptor: there may be none. True where it cannot be told: to take the leadership from a thread that
    computes costs less than to leave it with one that sleeps.
    """
    try:
        return os.pread(state, 512, 0).rpartition(b")")[2].split()[0] != b"R"
    except (OSError, IndexError):
        return True


def _computed(thread: int) -> float:
    """Seconds of a processor's time that a thread has used; 0 for one that has ended."""
    try:
        return clock_gettime(~thread << 3 | _CLOCK_OF_THREAD)
    except OSError:
        return 0.0


_CLOCK_OF_THREAD = 6
"""CPUCLOCK_PERTHREAD_MASK | CPUCLOCK_SCHED: pthread_getcpuclockid(3) makes a clock of it, but may be given
no thread that has ended."""

_libc = ctypes.PyDLL(None, use_errno=True)  # it holds the interpreter lock: these calls return at once
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
    """Wakes the thread that waits, once, `seconds` after it was last set (timerfd_create(2)). Raises OSError."""

    def __init__(self, seconds: float) -> None:
        self._descriptor: int = _libc.timerfd_create(_CLOCK_MONOTONIC, os.O_CLOEXEC)
        if self._descriptor < 0:
            raise OSError(ctypes.get_errno(), "no timer")
        whole, rest = divmod(round(seconds * 1e9), 10**9)
        self._later = ctypes.byref(_Itimerspec(0, 0, whole, rest))
        self._now = ctypes.byref(_Itimerspec(0, 0, 0, _AT_ONCE))

    def set(self) -> None:
        """Start it, or start it again."""
        _libc.timerfd_settime(self._descriptor, 0, self._later, None)

    def ring(self) -> None:
        """Wake the thread that waits at once."""
        _libc.timerfd_settime(self._descriptor, 0, self._now, None)

    def wait(self) -> None:
        """Blocks until it rings."""
        os.read(self._descriptor, 8)

    def close(self) -> None:
        os.close(self._descriptor)

    def intact(self) -> bool:
        """Whether its descriptor is still open: an application may close it."""
        return bool(_libc.timerfd_gettime(self._descriptor, ctypes.byref(_Itimerspec())) == 0)
