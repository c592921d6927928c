"""A real HAProxy in front of the machines, and what it says."""

from __future__ import annotations

import csv
import re
import shutil
import socket
import subprocess
from pathlib import Path
from typing import NamedTuple

from tests.apache.resources import TIMEOUT, eventually

from .places import WITH_US

PROGRAM = shutil.which("haproxy", path="/usr/local/sbin:/usr/sbin:/usr/bin")
BACKEND = "shop"
RESYNC_FINISHED = 0x3
"""In the flags of `show peers`: PEERS_F_RESYNC_LOCAL and _REMOTE."""
BASE = """
global
    stats socket {socket} mode 600 level admin
    log stdout format raw local0
defaults
    mode http
    log global
    log-format "%{{+Q}}r %b/%s %ST %tsc"
    timeout connect 1s
    timeout client 30s
    timeout server 30s
"""
"""What is there before the sections of `lbctl haproxy-config`. Its log has a line for each request: which machine
answered it with which status, and how its two connections ended."""
_LINE = re.compile(r'"\S+ \S*?[?&]n=([\w.-]+)\S* \S+" [^/ ]+/(\S+) (-?\d+) (\S+)')


class Relayed(NamedTuple):
    """A request in HAProxy's log."""

    machine: str
    """<NOSRV>: none"""
    status: int
    ended: str
    """termination state, as in HAProxy's manual, 8.5"""


class Front:
    """One HAProxy. `configure`, `start`; then `reload` and `kill` as often as one likes; `stop` at the end.

    All is to be called at the front (`Place.visiting`).
    """

    def __init__(self, folder: Path, name: str, port: int) -> None:
        assert PROGRAM, "HAProxy is missing; `make test` as root installs it"
        folder.mkdir()
        self.name = name
        self.port = port
        """where visitors come to"""
        self.config = folder / "shop.cfg"
        self.socket = folder / "haproxy.sock"
        base = folder / "haproxy.cfg"
        base.write_text(BASE.format(socket=self.socket))
        self._command = [str(PROGRAM), "-L", name, "-f", str(base), "-f", str(self.config)]
        self.output = folder / "haproxy.log"
        self._process: subprocess.Popen[bytes] | None = None
        self._old: list[subprocess.Popen[bytes]] = []
        """those of before reloads"""

    def configure(self, text: str) -> None:
        """`text`: the sections for the machines. That HAProxy's own check takes them is asserted."""
        self.config.write_text(text)
        done = subprocess.run([*self._command, "-c"], capture_output=True, text=True, timeout=TIMEOUT, check=False)
        assert done.returncode == 0, done.stdout + done.stderr

    def start(self) -> None:
        """Start it, and wait until it answers."""
        self._process = self._begin()
        eventually("HAProxy answers", self.machines)

    def reload(self) -> None:
        """As `systemctl reload` does: another process takes over, and the old one ends with its last connection.

        For five seconds after a start, HAProxy waits for a peer that could teach it the table. Until then it hands
        its own to nobody (peers.c, PEER_RESYNC_TIMEOUT), so this waits, too.
        """
        assert self._process is not None
        eventually("HAProxy could hand its table over", self._could_teach)
        self._old.append(self._process)
        self._process = new = self._begin("-sf", str(self._process.pid))
        eventually("the new HAProxy answers", lambda: f"\nPid: {new.pid}\n" in self.ask("show info"))

    def await_old(self) -> None:
        """Wait until the HAProxy of before the reload has ended. It waits for its visitors' connections."""
        while self._old:
            assert self._old.pop().wait(TIMEOUT) == 0

    def kill(self) -> None:
        assert self._process is not None
        self._process.kill()
        self._process.wait(TIMEOUT)

    def stop(self) -> None:
        for process in (self._process, *self._old):
            if process is not None:
                process.terminate()  # at once, with all connections
                process.wait(TIMEOUT)
        self._old.clear()
        self._process = None

    def ask(self, command: str) -> str:
        """What it says to a command at its socket; empty: nothing."""
        try:
            with socket.socket(socket.AF_UNIX) as connection:
                connection.settimeout(TIMEOUT)
                connection.connect(str(self.socket))
                connection.sendall(f"{command}\n".encode())
                answer = b""
                while piece := connection.recv(65536):
                    answer += piece
        except OSError:
            return ""
        return answer.decode(errors="replace")

    def machines(self) -> dict[str, dict[str, str]]:
        """What it says of each machine, by the names of columns in its manual (management guide, 9.1)."""
        lines = self.ask("show stat -1 4 -1").removeprefix("# ").strip().splitlines()
        return {row["svname"]: row for row in csv.DictReader(lines)}

    def state(self, machine: str) -> str:
        """UP, DOWN, DRAIN …; with what it counts in between, such as `UP 1/2`."""
        return self.machines().get(machine, {}).get("status", "")

    def await_state(self, machine: str, state: str) -> None:
        """Wait until that is its word for a machine, without a doubt such as in `UP 1/3`."""
        eventually(f"HAProxy has {machine} {state}", lambda: self.state(machine).removesuffix(" (agent)") == state)

    def agent(self, machine: str) -> str:
        """How its last question to a machine's agent ended: L7OK, L4TOUT …"""
        return self.machines()[machine]["agent_status"]

    def sticks(self) -> set[str]:
        """The tickets that it knows the machine of."""
        return set(re.findall(r"\bkey=(\S+)", self.ask(f"show table {BACKEND}")))

    def _could_teach(self) -> bool:
        """Whether its table counts as whole: it was learnt, or nobody is there to learn it from."""
        found = re.search(r"flags=0x([0-9a-f]+)", self.ask("show peers"))
        return found is not None and int(found[1], 16) & RESYNC_FINISHED == RESYNC_FINISHED

    def relayed(self) -> dict[str, Relayed]:
        """Its log, by the names of requests; of one that came twice, the last."""
        text = self.output.read_text(errors="replace") if self.output.exists() else ""
        return {name: Relayed(machine, int(status), ended) for name, machine, status, ended in _LINE.findall(text)}

    def _begin(self, *more: str) -> subprocess.Popen[bytes]:
        with self.output.open("ab") as output:
            return subprocess.Popen(
                [*WITH_US, *self._command, "-db", *more],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,
            )
