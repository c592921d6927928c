"""The signals of the monitor, read from a descriptor: which ones came, and which process sent each.

They stay blocked and are read by signalfd(2). So none is lost between a read and an exec: a signal that is not read
yet waits in the kernel for the new program.
"""

from __future__ import annotations

import ctypes
import os
import signal
import struct
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

_INFO = struct.Struct("=IiiII108x")
"""signalfd_siginfo: number, errno, code, pid, uid (signalfd(2))"""
_SET_SIZE = 128
"""Bytes of a sigset_t, in glibc and musl."""


@dataclass(frozen=True)
class Received:
    """A signal that came."""

    number: int
    pid: int
    """the process that sent it; 0: the kernel"""
    user: int

    @property
    def sender(self) -> str:
        """The process that sent it, in words."""
        if not self.pid:
            return "the system (a terminal, perhaps)"
        try:
            name = Path(f"/proc/{self.pid}/comm").read_text("utf-8", "replace").strip()
        except OSError:
            name = "ended, or hidden"  # ProtectProc=
        return f"process {self.pid} ({name}) of user {self.user}"


class Signals:
    """Reads these signals; how they were handled before does not matter. Raises OSError. Main thread only."""

    def __init__(self, numbers: Iterable[int]) -> None:
        numbers = tuple(numbers)
        signal.pthread_sigmask(signal.SIG_BLOCK, numbers)
        for number in numbers:
            signal.signal(number, signal.SIG_DFL)  # children would inherit that a signal is ignored (execve(2))
        self._descriptor = _signalfd(numbers)

    def fileno(self) -> int:
        """A descriptor that is readable when signals have come."""
        return self._descriptor

    def read(self) -> Iterator[Received]:
        """The signals that came since the last call. Never blocks."""
        while True:
            try:
                data = os.read(self._descriptor, _INFO.size)
            except BlockingIOError:
                return
            number, _, _, pid, user = _INFO.unpack(data)
            yield Received(number, pid, user)

    def close(self) -> None:
        """Read no more. The signals stay blocked."""
        os.close(self._descriptor)


def _signalfd(numbers: Iterable[int]) -> int:
    libc = ctypes.CDLL(None, use_errno=True)
    wanted = ctypes.create_string_buffer(_SET_SIZE)
    libc.sigemptyset(wanted)
    for number in numbers:
        libc.sigaddset(wanted, ctypes.c_int(number))
    # SFD_CLOEXEC and SFD_NONBLOCK are O_CLOEXEC and O_NONBLOCK
    descriptor = int(libc.signalfd(ctypes.c_int(-1), wanted, ctypes.c_int(os.O_CLOEXEC | os.O_NONBLOCK)))
    if descriptor < 0:
        raise OSError(ctypes.get_errno(), "signalfd: " + os.strerror(ctypes.get_errno()))
    return descriptor
