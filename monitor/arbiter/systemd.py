"""systemd's notify protocol (sd_notify(3)): one datagram for each message. Without systemd it does nothing."""

from __future__ import annotations

import contextlib
import os
import socket
from collections.abc import Mapping

VARIABLES = ("NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID")
"""Environment variables for the monitor alone; no child gets them."""


class Systemd:
    """Reports the state of the monitor to systemd. Never raises, never blocks (test_systemd.py)."""

    def __init__(self, environment: Mapping[str, str]) -> None:
        self._address = environment.get("NOTIFY_SOCKET", "")
        if self._address.startswith("@"):
            self._address = "\0" + self._address[1:]
        usec = environment.get("WATCHDOG_USEC", "")
        for_this_process = environment.get("WATCHDOG_PID", str(os.getpid())) == str(os.getpid())
        self.watchdog = int(usec) / 2e6 if for_this_process and usec.isdecimal() and int(usec) else float("inf")
        """Seconds between two signs of life: half of what systemd allows."""

    def notify(self, *messages: str) -> None:
        """Send messages such as `READY=1`."""
        if not self._address:
            return
        with (
            contextlib.suppress(OSError),
            socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as sender,
        ):
            sender.setblocking(False)
            sender.sendto("\n".join(messages).encode(), self._address)

    def extend(self, seconds: float) -> None:
        """Ask for so much more time to start or to stop, from now on (EXTEND_TIMEOUT_USEC)."""
        self.notify(f"EXTEND_TIMEOUT_USEC={seconds * 1e6:.0f}")
