"""Orders: the signals that an AppServer obeys, whatever the application does with signals.

An application may take a signal of ours for itself: by signal.signal() at import, by faulthandler.register() or
sigaction(2) at any time, which the interpreter hears nothing of; it may ignore one, or block it. So the handlers are
looked at again and again (`hold`), and set anew; that is said once. What came while a signal was not ours is lost
here: the monitor repeats an order that was not followed.
"""

from __future__ import annotations

import contextlib
import ctypes
import signal
from collections.abc import Iterable
from queue import Empty, SimpleQueue
from types import FrameType

from lbadaptor.appserver.process import forks
from lbadaptor.log import logs
from lbadaptor.log.once import Once

log = logs.logger("lbadaptor.appserver")

_libc = ctypes.PyDLL(None)  # it holds the interpreter lock: these calls are over at once
_LARGE_ENOUGH = 512
"""Bytes for a struct sigaction, whose first member is the handler."""


class Orders:
    """The signals `numbers`. Made, and used, in the main thread; before the application is imported."""

    def __init__(self, numbers: Iterable[int]) -> None:
        self._numbers = tuple(numbers)
        self._queue: SimpleQueue[int] = SimpleQueue()
        self._handler = self._put  # one object: a method is another one each time
        self._before = {number: _installed(number) for number in self._numbers}
        """who handled them before the application was imported; then: who does when it is us"""
        self._taken = Once(len(self._numbers))
        """those of which it is logged that the application had taken them"""

    def take(self) -> None:
        """From now on the signals are ours."""
        for number in self._numbers:
            if _installed(number) != self._before[number]:
                self._say(number)
            forks.took(number, self._handler)
            self._install(number)

    def hold(self) -> None:
        """Take back what the application took."""
        for number in self._numbers:
            if signal.getsignal(number) is not self._handler or _installed(number) != self._before[number]:
                self._say(number)
                self._install(number)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, self._numbers)

    def end(self) -> None:
        """The last one is being followed. From now on they are ignored: one that is repeated ends nothing early."""
        for number in self._numbers:
            signal.signal(number, signal.SIG_IGN)

    def get(self, timeout: float) -> int | None:
        """The next order; None if none comes within so many seconds. Blocks."""
        with contextlib.suppress(Empty):
            return self._queue.get(timeout=timeout)
        return None

    def _put(self, number: int, _: FrameType | None) -> None:
        self._queue.put(number)

    def _install(self, number: int) -> None:
        signal.signal(number, self._handler)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, (number,))
        self._before[number] = _installed(number)

    def _say(self, number: int) -> None:
        if self._taken.first(number):
            name = signal.Signals(number).name
            log.warning("the application has taken %s for itself; it is how orders come, and is taken back", name)


def _installed(number: int) -> int:
    """The address of the function that handles a signal (sigaction(2)); 0: the default, 1: nobody."""
    action = ctypes.create_string_buffer(_LARGE_ENOUGH)
    _libc.sigaction(int(number), None, action)
    return int.from_bytes(action.raw[: ctypes.sizeof(ctypes.c_void_p)], "little")
