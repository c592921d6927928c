"""Child processes: only this module forks, signals and waits while the loop runs.

A child executes a new program at once, in a session of its own. Of the parent's descriptors it inherits its end of
one channel only. Its exit makes its pidfd readable, so nothing has to wait for it.

A process that a template has forked becomes a child of this process, its subreaper, and is then like the others.

A process whose parent was an earlier monitor can be adopted. It has no channel, but its pidfd becomes readable when
it ends, and takes signals.
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
from dataclasses import dataclass
from functools import partial
from typing import ClassVar

from monitor.arbiter.processes.process_environment import INHERITED, ProcessEnvironment
from monitor.contract.processes import start_time

_UNKNOWN = 1 << 16
_PR_SET_CHILD_SUBREAPER = 36
"""linux/prctl.h"""
FLAGS = ("-B",) if sys.dont_write_bytecode else ()
"""Interpreter options: children write no bytecode if the monitor writes none."""
SHORTAGE = frozenset(
    (errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.ENOSPC, errno.ENOBUFS, errno.EAGAIN, errno.EINTR)
)
"""Errors that mean that this process or machine is short of something. They say nothing about a child."""
KILL_WAIT = 0.5
"""Seconds, at most, to wait for the end of a process that was killed as soon as it had started."""
MAX_RECEIVE = 1 << 15
"""Bytes that are received at once: so few that it works when the system gives no more memory."""
MAX_LINE = 1 << 20
"""Bytes; nothing more is read from a child that sends a longer line."""


class Child:
    """A running child, and the channel to it: lines of bytes, both ways. Nothing but `wait` blocks."""

    _followed: ClassVar[set[int]] = set()
    """the pids of all that are not released"""

    def __init__(self, pid: int, process: subprocess.Popen[bytes] | None, channel: socket.socket) -> None:
        self.pid = pid
        self.pidfd = os.pidfd_open(pid)
        try:
            self.started = start_time(pid)
            """in clock ticks since the boot; read once, because it may end and its pid be used again at any time"""
        except BaseException:
            os.close(self.pidfd)
            raise
        self._followed.add(pid)
        self.channel = channel
        self.released = False
        """its descriptors here are closed"""
        self.code: int | None = None
        """its exit status, or minus the signal that ended it; None: it runs, or only its parent knows"""
        self._process = process
        self._received = b""
        self._unsent = b""

    @classmethod
    def start(
        cls,
        command: Sequence[str],
        environment: ProcessEnvironment = INHERITED,
        output: bool = False,
        captured: int | None = None,
    ) -> Child:
        """Fork and exec. `{channel}` in the command becomes the number of the channel's descriptor.

        `output`: what it writes to stdout and stderr comes through the channel, too. `captured`: the descriptor of a
        file that gets it instead. Raises OSError.
        """
        ours, theirs = socket.socketpair()
        try:
            with theirs:
                arguments = environment.popen_arguments()
                arguments["preexec_fn"] = partial(_unblock_signals, arguments["preexec_fn"])
                said = theirs.fileno() if output else captured
                words = [word.replace("{channel}", str(theirs.fileno())) for word in command]
                process = subprocess.Popen(
                    words,
                    stdin=subprocess.DEVNULL,
                    stdout=said,
                    stderr=said,
                    pass_fds=(theirs.fileno(),),
                    start_new_session=True,
                    **arguments,
                )
            ours.setblocking(False)
            try:
                return cls(process.pid, process, ours)
            except OSError:  # no descriptor is left for the pidfd, or to read when it was started
                process.kill()
                try:
                    process.wait(KILL_WAIT)
                except subprocess.TimeoutExpired:
                    process.returncode = -signal.SIGKILL  # `Reaper.look` reaps it
                raise
        except subprocess.SubprocessError:
            ours.close()
            raise OSError(errno.EPERM, "limits, nice or user cannot be set") from None
        except ValueError as error:  # a text that the system does not take: a NUL, or a sign that its locale lacks
            ours.close()
            raise OSError(errno.EINVAL, str(error)) from None
        except BaseException:
            ours.close()
            raise

    @classmethod
    def adopt(cls, pid: int, started: int) -> Child:
        """Take over a running process, which was started at `started` (`start_time`).

        Raises ProcessLookupError: it is gone, or its pid is another process's now; other OSErrors (SHORTAGE): that
        cannot be found out now.
        """
        ours, theirs = socket.socketpair()
        theirs.close()  # the process does not have the other end
        child = cls._found(pid, ours)
        try:  # the pidfd is open: what is found now stays true of this process
            if child.started != started or child.over():
                raise ProcessLookupError(f"process {pid} is another one now")
        except BaseException:
            child.release()
            raise
        return child

    @classmethod
    def reparented(cls, pid: int, channel: socket.socket) -> Child:
        """Follow a process that the kernel made a child of this one. The pid comes from the template.

        Raises ProcessLookupError: it is not a child of this process, or is followed already.
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
        """Send a line, as much of it as the channel takes now; the rest with the next call.

        False: the channel is closed, or too much waits to be sent.
        """
        self._unsent += line + b"\n" if line else b""
        try:
            while self._unsent:
                self._unsent = self._unsent[self.channel.send(self._unsent) :]
        except OSError as error:
            if error.errno not in SHORTAGE:
                return False
        return len(self._unsent) <= MAX_LINE

    @property
    def backlog(self) -> bool:
        """Whether something waits to be sent. `send(b"")` tries again."""
        return bool(self._unsent)

    def receive(self) -> list[bytes] | None:
        """The lines that have come; None when the channel is closed, or a line is longer than MAX_LINE."""
        try:
            data = self.channel.recv(MAX_RECEIVE)
        except OSError as error:
            return [] if error.errno in SHORTAGE else None
        if not data or len(self._received) > MAX_LINE:
            return None
        *lines, self._received = (self._received + data).split(b"\n")
        return lines

    def signal(self, number: int) -> None:
        """Send it a signal. It goes to this process only."""
        # It has ended, and its pidfd tells; or it runs as another user now.
        with contextlib.suppress(ProcessLookupError, PermissionError):
            signal.pidfd_send_signal(self.pidfd, number)

    def kill_group(self) -> bool:
        """Send SIGKILL to it and to all that it started. False: not possible now; try again.

        Until `reap` no other process can get a child's pid. The pid of an adopted process is not used again while a
        process of its group is left (setsid(2), fork(2)); whether another process has it is checked here.
        """
        if self._process is None:
            own = self._own_pid()
            if not own:
                return own is False
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self.pid, signal.SIGKILL)
        return True

    def _own_pid(self) -> bool | None:
        """Whether no other process has the pid of this adopted one; None: unknown, because descriptors are short."""
        try:
            os.kill(self.pid, 0)
            return start_time(self.pid) == self.started
        except ProcessLookupError:
            return True
        except OSError as error:
            return None if error.errno in SHORTAGE else False

    def wait(self, timeout: float) -> None:
        """Wait for its end, and reap it. Blocks for `timeout` seconds at most, so not for the arbiter's loop."""
        poll = select.poll()
        poll.register(self.pidfd, select.POLLIN)
        if poll.poll(timeout * 1000):
            self.reap()

    def reap(self) -> str | None:
        """How it ended, in words; None while it runs. When it has ended, it is released, too.

        None, too, while a tracer (gdb, strace) has not been told of its end, although its pidfd is readable.
        """
        code = self._exit_code()
        if code is None:
            return None
        self.release()
        if code == _UNKNOWN:
            return "ended"
        self.code = code
        if code < 0:
            return f"was ended by {_signal_name(-code)}"
        return f"exited with status {code}" if code else "exited"

    def release(self) -> None:
        """Close its descriptors here, whether it runs or not."""
        if not self.released:
            os.close(self.pidfd)
            self.channel.close()
            self._followed.discard(self.pid)
            self.released = True

    def _exit_code(self) -> int | None:
        """As in subprocess; None while it runs; _UNKNOWN when only its parent can know."""
        if self._process is not None:
            return self._process.poll()
        try:  # it may be a child: one that a template forked, or one from before an upgrade in place
            ended = os.waitid(os.P_PIDFD, self.pidfd, os.WEXITED | os.WNOHANG)
        except ChildProcessError:
            return _UNKNOWN if self.over() else None
        if ended is None:
            return None
        return ended.si_status if ended.si_code == os.CLD_EXITED else -ended.si_status


@dataclass
class _Ending:
    """A child that is to end."""

    child: Child
    until: float
    """when it is killed with its group; monotonic seconds"""
    then: Callable[[], object]


class Reaper:
    """Children that have ended, or were killed or told to stop, and are not reaped yet."""

    def __init__(self) -> None:
        self._children: list[_Ending] = []

    def take(self, child: Child, patience: float = float("inf"), then: Callable[[], object] = lambda: None) -> None:
        """Reap it as soon as it has ended, and call `then`. After `patience` seconds it is killed with its group."""
        self._children.append(_Ending(child, time.monotonic() + patience, then))

    def look(self) -> None:
        """Reap those that have ended, and processes that this one got as a subreaper.

        After an error (memory is short) none is lost: the next call looks at all that are left.
        """
        now = time.monotonic()
        for ending in list(self._children):
            if ending.child.reap() is not None:
                self._children.remove(ending)
                ending.then()
            elif now >= ending.until and ending.child.kill_group():
                ending.until = float("inf")
        with contextlib.suppress(ChildProcessError):
            while (ended := _ended()) and ended.si_pid not in Child._followed:
                os.waitid(os.P_PID, ended.si_pid, os.WEXITED | os.WNOHANG)

    def wait(self, timeout: float) -> None:
        """Wait for all. Blocks for `timeout` seconds at most, at the end of the program."""
        deadline = time.monotonic() + timeout
        for ending in self._children:
            ending.child.wait(max(0.0, deadline - time.monotonic()))


def _unblock_signals(then: Callable[[], object] | None) -> None:
    """In a child, before its program. It would inherit the signals that the arbiter has blocked (signal(7))."""
    signal.pthread_sigmask(signal.SIG_SETMASK, ())
    if then is not None:
        then()


def _ended() -> os.waitid_result | None:
    """A child that has ended and is not reaped. Raises ChildProcessError where there is no child at all."""
    return os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)


def become_subreaper() -> None:
    """From now on, a descendant of this process whose parent ends becomes its child (prctl(2)).

    This lasts over an exec. Raises OSError.
    """
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(_PR_SET_CHILD_SUBREAPER, *map(ctypes.c_ulong, (1, 0, 0, 0))):
        raise OSError(ctypes.get_errno(), "PR_SET_CHILD_SUBREAPER: " + os.strerror(ctypes.get_errno()))


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"
