"""Orders: the signals that an AppServer obeys, whatever the application does with signals.

An application may handle one of these signals itself: by signal.signal() at import, or by faulthandler.register() or
sigaction(2) at any time, which the interpreter does not notice. It may also ignore or block one. So the AppServer
checks the handlers twice a second (`hold`), and installs its own again; that is logged once. An order that comes
meanwhile is lost. The monitor repeats an order that was not obeyed.
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

_libc = ctypes.PyDLL(None)  # it holds the interpreter lock: these calls return at once
_LARGE_ENOUGH = 512
"""Bytes for a struct sigaction, whose first member is the handler."""


class Orders:
    """The signals `numbers`. Made before the application is imported. Made and used in the main thread."""

    def __init__(self, numbers: Iterable[int]) -> None:
        self._numbers = tuple(numbers)
        self._queue: SimpleQueue[int] = SimpleQueue()
        self._handler = self._put  # one object: `self._put` is a new one each time
        self._expected = {number: _installed(number) for number in self._numbers}
        """the handlers as the kernel knows them: before the application was imported; later, ours"""
        self._taken = Once(len(self._numbers))
        """signals of which it is logged that the application had taken them"""

    def take(self) -> None:
        """Install our handlers."""
        for number in self._numbers:
            if _installed(number) != self._expected[number]:
                self._log(number)
            forks.handles(number, self._handler)
            self._install(number)

    def hold(self) -> None:
        """Install our handlers again where the application has installed its own."""
        for number in self._numbers:
            if signal.getsignal(number) is not self._handler or _installed(number) != self._expected[number]:
                self._log(number)
                self._install(number)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, self._numbers)

    def end(self) -> None:
        """Ignore the signals from now on: the order to stop is being obeyed, and a second one ends nothing early."""
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
        self._expected[number] = _installed(number)

    def _log(self, number: int) -> None:
        if self._taken.first(number):
            name = signal.Signals(number).name
            log.warning(
                "the application has taken %s for itself; orders come by this signal, so it is taken back", name
            )


def _installed(number: int) -> int:
    """The address of the function that handles a signal (sigaction(2)); 0: the default, 1: it is ignored."""
    action = ctypes.create_string_buffer(_LARGE_ENOUGH)
    _libc.sigaction(int(number), None, action)
    return int.from_bytes(action.raw[: ctypes.sizeof(ctypes.c_void_p)], "little")
