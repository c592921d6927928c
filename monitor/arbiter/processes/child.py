"""Child processes: the only place that forks, signals and waits.

A child becomes a fresh interpreter at once, in a session of its own; of the parent's descriptors it gets its
end of one channel and nothing else. Its exit makes the pidfd readable, so nobody has to wait for it.

What a template forks is handed to this process by the system, and then a child like the others.

A process whose parent was a monitor that is gone can be adopted: it has no channel, but the pidfd tells of its
end and carries signals all the same.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import os
import select
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from functools import partial
from typing import ClassVar

from monitor.arbiter.processes.process_environment import SAME, ProcessEnvironment
from monitor.contract.processes import start_time

_UNKNOWN = 1 << 16
_PR_SET_CHILD_SUBREAPER = 36
"""linux/prctl.h"""
FLAGS = ("-B",) if sys.dont_write_bytecode else ()
"""A monitor that was told to write no bytecode has children that write none."""
SHORTAGE = frozenset(
    (errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.ENOSPC, errno.ENOBUFS, errno.EAGAIN, errno.EINTR)
)
"""What says that this process or machine is short of something, and nothing about a child."""
DEATH = 0.5
"""Seconds, at most, to wait for a process that was killed as soon as it had begun."""
PIECE = 1 << 15
"""Bytes that are received at once: few enough for a process that gets no more memory from the system."""
LONGEST_LINE = 1 << 20
"""Bytes; a child that sends a longer line is not listened to any more."""


class Child:
    """A running child, and the channel to it: lines of bytes, both ways. Nothing here blocks."""

    _followed: ClassVar[set[int]] = set()
    """the pids of all that are not released"""

    def __init__(self, pid: int, process: subprocess.Popen[bytes] | None, channel: socket.socket) -> None:
        self.pid = pid
        self.pidfd = os.pidfd_open(pid)
        try:
            self.started = start_time(pid)
            """in clock ticks since the boot; asked but once, for it may be over, its pid another's, at any time"""
        except BaseException:
            os.close(self.pidfd)
            raise
        self._followed.add(pid)
        self.channel = channel
        self.released = False
        """all that belonged to it here is closed"""
        self._process = process
        self._received = b""
        self._unsent = b""

    @classmethod
    def start(cls, command: Sequence[str], environment: ProcessEnvironment = SAME, output: bool = False) -> Child:
        """Fork and exec. `{channel}` in the command becomes the descriptor's number. `output`: what it writes to
        stdout and stderr comes through the channel, too. Raises OSError."""
        ours, theirs = socket.socketpair()
        try:
            with theirs:
                fork = environment.for_fork()
                fork["preexec_fn"] = partial(_begin_afresh, fork["preexec_fn"])
                words = [word.replace("{channel}", str(theirs.fileno())) for word in command]
                process = subprocess.Popen(
                    words,
                    stdin=subprocess.DEVNULL,
                    stdout=theirs.fileno() if output else None,
                    stderr=theirs.fileno() if output else None,
                    pass_fds=(theirs.fileno(),),
                    start_new_session=True,
                    **fork,
                )
            ours.setblocking(False)
            try:
                return cls(process.pid, process, ours)
            except OSError:  # no descriptor is left to watch it by, or to ask when it was started
                process.kill()
                try:
                    process.wait(DEATH)
                except subprocess.TimeoutExpired:
                    process.returncode = -signal.SIGKILL  # `Reaper.look` reaps it
                raise
        except subprocess.SubprocessError:
            ours.close()
            raise OSError(errno.EPERM, "limits, nice or user cannot be set") from None
        except BaseException:
            ours.close()
            raise

    @classmethod
    def adopt(cls, pid: int, started: int) -> Child:
        """Take over a running process. Raises ProcessLookupError: it is gone, or its pid is another's now; other
        OSErrors (SHORTAGE): that cannot be found out now."""
        ours, theirs = socket.socketpair()
        theirs.close()  # nobody is at the other end
        child = cls._found(pid, ours)
        try:  # with the pidfd in hand: what is found now stays true of it
            if child.started != started or child.over():
                raise ProcessLookupError(f"process {pid} is another one now")
        except BaseException:
            child.release()
            raise
        return child

    @classmethod
    def reparented(cls, pid: int, channel: socket.socket) -> Child:
        """Follow a process that the system made a child of this one. The pid is another's word.

        Raises ProcessLookupError: it is no child of ours, or one that is followed already.
        """
        if pid in cls._followed:
            channel.close()
            raise ProcessLookupError(f"process {pid} is followed already")
        child = cls._found(pid, channel)
        try:
            os.waitid(os.P_PIDFD, child.pidfd, os.WEXITED | os.WNOHANG | os.WNOWAIT)
        except ChildProcessError:
            child.release()
            raise ProcessLookupError(f"process {pid} is another one now") from None
        return child

    @classmethod
    def _found(cls, pid: int, channel: socket.socket) -> Child:
        try:
            return cls(pid, None, channel)
        except BaseException:
            channel.close()
            raise

    def over(self) -> bool:
        """Whether it has ended."""
        poll = select.poll()
        poll.register(self.pidfd, select.POLLIN)
        return bool(poll.poll(0))

    def send(self, line: bytes) -> bool:
        """Send a line, as much as the channel takes now; the rest with the next call. False: it takes no more."""
        self._unsent += line + b"\n" if line else b""
        try:
            while self._unsent:
                self._unsent = self._unsent[self.channel.send(self._unsent) :]
        except OSError as error:
            if error.errno not in SHORTAGE:
                return False
        return len(self._unsent) <= LONGEST_LINE

    @property
    def backlog(self) -> bool:
        """Whether some of what was to be sent still waits here. `send(b"")` tries again."""
        return bool(self._unsent)

    def receive(self) -> list[bytes] | None:
        """The lines that came; None when the channel is closed, or was flooded."""
        try:
            data = self.channel.recv(PIECE)
        except OSError as error:
            return [] if error.errno in SHORTAGE else None
        if not data or len(self._received) > LONGEST_LINE:
            return None
        *lines, self._received = (self._received + data).split(b"\n")
        return lines

    def signal(self, number: int) -> None:
        """Send a signal, to it and nobody else."""
        # It is over, and its pidfd says so; or it has become another user.
        with contextlib.suppress(ProcessLookupError, PermissionError):
            signal.pidfd_send_signal(self.pidfd, number)

    def kill_group(self) -> bool:
        """SIGKILL for it and all that it started. Safe until `reap`, since a child's pid is its own till then.

        An adopted one's is its own as long as anybody is left of its group (setsid(2), fork(2)), unless another
        process has that very pid. False: that cannot be found out now; try again.
        """
        if self._process is None:
            own = self._own_pid()
            if not own:
                return own is False
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self.pid, signal.SIGKILL)
        return True

    def _own_pid(self) -> bool | None:
        """Whether no other process has the pid of one that was adopted; None: unknown, for want of a descriptor."""
        try:
            os.kill(self.pid, 0)
            return start_time(self.pid) == self.started
        except ProcessLookupError:
            return True
        except OSError as error:
            return None if error.errno in SHORTAGE else False

    def wait(self, timeout: float) -> None:
        """Wait for one that was killed, and release all that belongs to it. Blocks for `timeout` seconds at most: not
        for the arbiter's loop."""
        poll = select.poll()
        poll.register(self.pidfd, select.POLLIN)
        if poll.poll(timeout * 1000):
            self.reap()

    def reap(self) -> str | None:
        """How it ended, in words, and all that belongs to it is released; None while it runs.

        None, too, while somebody traces it (gdb, strace): they are told first, its pidfd notwithstanding.
        """
        code = self._exit_code()
        if code is None:
            return None
        self.release()
        if code == _UNKNOWN:
            return "ended"
        if code < 0:
            return f"was ended by {_signal_name(-code)}"
        return f"exited with status {code}" if code else "exited"

    def release(self) -> None:
        """Let go of it, whether it runs or not."""
        if not self.released:
            os.close(self.pidfd)
            self.channel.close()
            self._followed.discard(self.pid)
            self.released = True

    def _exit_code(self) -> int | None:
        """As subprocess gives it; None while it runs; _UNKNOWN when only its parent could have been told."""
        if self._process is not None:
            return self._process.poll()
        try:  # it may be a child all the same: one that was forked for us, or before we were upgraded in place
            ended = os.waitid(os.P_PIDFD, self.pidfd, os.WEXITED | os.WNOHANG)
        except ChildProcessError:
            return _UNKNOWN if self.over() else None
        if ended is None:
            return None
        return ended.si_status if ended.si_code == os.CLD_EXITED else -ended.si_status


class Reaper:
    """Children that are over, or were killed or told to stop, and that the system has not told the last of yet."""

    def __init__(self) -> None:
        self._children: list[tuple[Child, float, Callable[[], object]]] = []

    def take(self, child: Child, patience: float = float("inf"), then: Callable[[], object] = lambda: None) -> None:
        """Reap it as soon as that can be, and call `then`. After `patience` seconds it is killed with its group."""
        self._children.append((child, time.monotonic() + patience, then))

    def look(self) -> None:
        """Reap whom it can be, and what processes that are gone have left to this one, as their subreaper."""
        now = time.monotonic()
        children, self._children = self._children, []
        for child, until, then in children:
            if child.reap() is not None:
                then()
                continue
            if now >= until and child.kill_group():
                until = float("inf")
            self._children.append((child, until, then))
        with contextlib.suppress(ChildProcessError):
            while (ended := _ended()) and ended.si_pid not in Child._followed:
                os.waitid(os.P_PID, ended.si_pid, os.WEXITED | os.WNOHANG)

    def wait(self, timeout: float) -> None:
        """Wait for all. Blocks for `timeout` seconds at most, at the end of the program."""
        deadline = time.monotonic() + timeout
        for child, _, _ in self._children:
            child.wait(max(0.0, deadline - time.monotonic()))


def _begin_afresh(then: Callable[[], object] | None) -> None:
    """In a child, before its program: it would inherit the signals that the arbiter has blocked (signal(7))."""
    signal.pthread_sigmask(signal.SIG_SETMASK, ())
    if then is not None:
        then()


def _ended() -> os.waitid_result | None:
    """Some child that is over and not reaped. Raises ChildProcessError where there is no child at all."""
    return os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)


def become_subreaper() -> None:
    """From now on, whoever loses its parent among this process's descendants becomes its child (prctl(2)).

    Outlasts an exec. Raises OSError.
    """
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(_PR_SET_CHILD_SUBREAPER, *map(ctypes.c_ulong, (1, 0, 0, 0))):
        raise OSError(ctypes.get_errno(), "PR_SET_CHILD_SUBREAPER: " + os.strerror(ctypes.get_errno()))


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"
