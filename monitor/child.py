"""Child processes: the only place that forks, signals and waits.

A child becomes a fresh interpreter at once, in a session of its own; of the parent's descriptors it gets its
end of one channel and nothing else. Its exit makes the pidfd readable, so nobody has to wait for it.
"""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
from collections.abc import Sequence

LONGEST_LINE = 1 << 20
"""Bytes; a child that sends a longer line is not listened to any more."""


class Child:
    """A running child, and the channel to it: lines of bytes, both ways. Nothing here blocks."""

    def __init__(self, process: subprocess.Popen[bytes], channel: socket.socket) -> None:
        self.pid = process.pid
        self.pidfd = os.pidfd_open(process.pid)
        self.channel = channel
        self._process = process
        self._received = b""
        self._unsent = b""

    @classmethod
    def start(cls, command: Sequence[str], environment: dict[str, str] | None = None) -> Child:
        """Fork and exec. `{channel}` in the command becomes the descriptor's number. Raises OSError."""
        ours, theirs = socket.socketpair()
        try:
            with theirs:
                words = [word.replace("{channel}", str(theirs.fileno())) for word in command]
                process = subprocess.Popen(
                    words,
                    stdin=subprocess.DEVNULL,
                    pass_fds=(theirs.fileno(),),
                    start_new_session=True,
                    env=environment,
                )
            ours.setblocking(False)
            try:
                return cls(process, ours)
            except OSError:  # no descriptor is left to watch it by
                process.kill()
                process.wait()
                raise
        except BaseException:
            ours.close()
            raise

    def send(self, line: bytes) -> bool:
        """Send a line, as much as the channel takes now; the rest with the next call. False: it takes no more."""
        self._unsent += line + b"\n" if line else b""
        try:
            while self._unsent:
                self._unsent = self._unsent[self.channel.send(self._unsent) :]
        except BlockingIOError:
            pass
        except OSError:
            return False
        return len(self._unsent) <= LONGEST_LINE

    @property
    def backlog(self) -> bool:
        """Whether some of what was to be sent still waits here. `send(b"")` tries again."""
        return bool(self._unsent)

    def receive(self) -> list[bytes] | None:
        """The lines that came; None when the channel is closed, or was flooded."""
        try:
            data = self.channel.recv(1 << 18)
        except BlockingIOError:
            return []
        except OSError:
            return None
        if not data or len(self._received) > LONGEST_LINE:
            return None
        *lines, self._received = (self._received + data).split(b"\n")
        return lines

    def signal(self, number: int) -> None:
        """Send a signal, to it and nobody else."""
        # It is over, and its pidfd says so; or it has become another user.
        with contextlib.suppress(ProcessLookupError, PermissionError):
            signal.pidfd_send_signal(self.pidfd, number)

    def kill_group(self) -> None:
        """SIGKILL for it and all that it started. Safe until `reap`, since its pid is its own till then."""
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self.pid, signal.SIGKILL)

    def wait(self, timeout: float) -> None:
        """Wait for one that was killed, and release all that belongs to it. Blocks for `timeout` seconds at most."""
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(timeout)
            self.reap()

    def reap(self) -> str | None:
        """How it ended, in words, and all that belongs to it is released; None while it runs.

        None, too, while somebody traces it (gdb, strace): they are told first, its pidfd notwithstanding.
        """
        code = self._process.poll()
        if code is None:
            return None
        os.close(self.pidfd)
        self.channel.close()
        if code < 0:
            return f"was ended by {_signal_name(-code)}"
        return f"exited with status {code}" if code else "exited"


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"
