"""A private HAProxy: for the demo of several machines.

It listens on loopback, and writes nothing outside its own folder.
"""

from __future__ import annotations

import contextlib
import csv
import shutil
import signal
import socket
import subprocess
import time
from pathlib import Path

from monitor.demo.httpd import dies_with_us
from monitor.demo.programs import DemoFailed

MISSING = "HAProxy is missing; as root: apt-get install haproxy"
START_TIMEOUT = 10.0
STOP_TIMEOUT = 5.0
ANSWER_TIMEOUT = 2.0
MOST_BYTES = 1 << 20
"""Of an answer from its socket."""
PEER = "front"
"""Its name among peers."""
_SERVERS = "show stat -1 4 -1\n"

Stats = dict[str, str]
"""What HAProxy tells of one server, by the names of its CSV (its management guide, 9.1)."""


def find() -> str:
    """The program. Raises DemoFailed."""
    found = shutil.which("haproxy", path="/usr/local/sbin:/usr/sbin:/usr/local/bin:/usr/bin")
    if not found:
        raise DemoFailed(MISSING)
    return found


class HAProxy:
    """One HAProxy with its files in `folder`. `start`, then `stop`. `configuration` has all but its socket."""

    def __init__(self, program: str, folder: Path, configuration: str) -> None:
        self.socket = folder / "haproxy.sock"
        self._file = folder / "haproxy.cfg"
        self._output = folder / "haproxy.log"
        self._process: subprocess.Popen[bytes] | None = None
        self._command = [*dies_with_us(), program, "-db", "-L", PEER, "-f", str(self._file)]
        self._file.write_text(f"global\n    stats socket {self.socket} mode 600 level admin\n\n{configuration}")

    def start(self) -> None:
        """Start, and wait until it answers. Raises DemoFailed with its own words."""
        with self._output.open("wb") as file:
            self._process = subprocess.Popen(
                self._command, stdin=subprocess.DEVNULL, stdout=file, stderr=file, start_new_session=True
            )
        deadline = time.monotonic() + START_TIMEOUT
        while not self.servers():
            if not self.alive() or time.monotonic() > deadline:
                words = self._output.read_text(errors="replace")
                self.stop()
                raise DemoFailed(f"HAProxy does not start:\n{words[-3000:]}")
            time.sleep(0.02)

    def alive(self) -> bool:
        return self._process is not None and self._process.poll() is None

    def stop(self) -> None:
        """End it, with all connections. Blocks for STOP_TIMEOUT at most."""
        if self._process is None:
            return
        self._process.send_signal(signal.SIGTERM)
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(STOP_TIMEOUT)
        self._process.kill()
        self._process.wait()
        self._process = None

    def servers(self) -> list[Stats]:
        """What it tells of its servers; none where it does not answer. Blocks for ANSWER_TIMEOUT, about, at most."""
        try:
            with socket.socket(socket.AF_UNIX) as connection:
                connection.settimeout(ANSWER_TIMEOUT)
                connection.connect(str(self.socket))
                connection.sendall(_SERVERS.encode())
                text = b""
                while (more := connection.recv(65536)) and len(text) < MOST_BYTES:
                    text += more
        except OSError:
            return []
        return list(csv.DictReader(text.decode(errors="replace").removeprefix("# ").strip().splitlines()))
