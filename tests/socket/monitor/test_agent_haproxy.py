"""What a real HAProxy makes of the agent's lines, by its statistics."""

from __future__ import annotations

import csv
import shutil
import socket
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from scripted import PATIENCE

from lbadaptor.contract.address import Address
from monitor.contract.messages import Availability, Word
from monitor.demo.httpd import dies_with_us
from monitor.watcher import agent
from monitor.watcher.agent import Agent

CONFIGURATION = """
global
    stats socket {folder}/stats level admin
defaults
    mode http
    timeout connect 1s
    timeout client 1s
    timeout server 1s
backend shop
    balance roundrobin
    server web1 {server} weight 200 check inter 2s agent-check agent-addr {agent.host} agent-port {agent.port} \
        agent-inter 20ms agent-send "web1\\n"
"""


class HAProxy:
    """One with a single server, and the agent that it asks."""

    def __init__(self, folder: Path, server: Address) -> None:
        self.asked = 0
        self.says: Availability | None = None
        self.goes_on = threading.Event()
        """cleared: the agent hangs"""
        self.goes_on.set()
        self.agent = Agent(Address("127.0.0.1", 0), (), self._tell)
        self._socket = folder / "stats"
        file = folder / "haproxy.cfg"
        file.write_text(CONFIGURATION.format(folder=folder, server=server, agent=self.agent.address))
        found = shutil.which("haproxy", path="/usr/sbin:/usr/local/sbin:/usr/bin:/usr/local/bin")
        assert found, "there is no haproxy; `make test` as root installs it"
        self._process = subprocess.Popen(
            [*dies_with_us(), found, "-db", "-f", str(file)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )

    def _tell(self) -> Availability | None:
        self.asked += 1
        self.goes_on.wait(PATIENCE)
        return self.says

    def stop(self) -> None:
        self._process.kill()
        self._process.wait(PATIENCE)
        self.agent.close()

    def order(self, line: str) -> str:
        with socket.socket(socket.AF_UNIX) as connection:
            connection.settimeout(PATIENCE)
            connection.connect(str(self._socket))
            connection.sendall(f"{line}\n".encode())
            return b"".join(iter(lambda: connection.recv(65536), b"")).decode()

    @property
    def server(self) -> dict[str, str]:
        """Its row of the statistics."""
        [row] = csv.DictReader(self.order("show stat shop 4 -1").removeprefix("# ").strip().splitlines())
        return row

    def comes(self, status: str, weight: int, last: str = "") -> None:
        """Wait until the statistics show this."""
        self.wait_for(
            lambda row: row["status"] == status and row["weight"] == str(weight) and row["last_agt"] == last
        )

    def wait_for(self, right: Callable[[dict[str, str]], bool]) -> None:
        until = time.monotonic() + PATIENCE
        while True:
            try:
                row = self.server
            except OSError:
                row = None  # it has only begun
            if row is not None and right(row):
                return
            assert time.monotonic() < until, row
            assert self._process.poll() is None
            time.sleep(0.01)

    def stays(self, status: str, weight: int) -> None:
        """Assert that nothing has changed when it has asked several times more."""
        enough, until = self.asked + 5, time.monotonic() + PATIENCE
        while self.asked < enough:
            row = self.server
            assert (row["status"], row["weight"]) == (status, str(weight))
            assert time.monotonic() < until, "it does not ask any more"


@pytest.fixture
def haproxy() -> Iterator[HAProxy]:
    folder = Path(tempfile.mkdtemp(prefix="lb"))  # the path of a Unix socket is short
    with socket.create_server(("127.0.0.1", 0)) as server:
        made = HAProxy(folder, Address(*server.getsockname()))
        yield made
        made.stop()
    shutil.rmtree(folder)


def test_state_and_weight_follow_the_word(haproxy: HAProxy, monkeypatch: pytest.MonkeyPatch) -> None:
    haproxy.says = Availability(Word.UP, 75, "OK 3 of 4")
    haproxy.comes("UP", 150, "via agent : up (OK 3 of 4)")
    haproxy.says = Availability(Word.DRAIN, 0, "leaving")
    haproxy.comes("DRAIN (agent)", 0, "via agent : up (leaving)")
    with monkeypatch.context() as later:
        later.setattr(agent, "INSIST", -1.0)  # `drain` is said no more
        haproxy.stays("DRAIN (agent)", 0)
    haproxy.says = Availability(Word.UP, 1, "OK 4 of 4")
    haproxy.comes("UP", 2, "via agent : up (OK 4 of 4)")
    haproxy.says = Availability(Word.DOWN, 0, "no AppServer serves")
    haproxy.comes("DOWN (agent)", 2, "via agent : down (no AppServer serves)")
    haproxy.says = None
    haproxy.stays("DOWN (agent)", 2)
    haproxy.says = Availability(Word.UP, 100, "OK 4 of 4")
    haproxy.comes("UP", 200, "via agent : up (OK 4 of 4)")
    haproxy.says = None
    haproxy.stays("UP", 200)
    haproxy.goes_on.clear()
    haproxy.wait_for(lambda row: row["agent_status"] == "L7TOUT")
    assert (haproxy.server["status"], haproxy.server["weight"]) == ("UP", "200")
    haproxy.goes_on.set()
    haproxy.agent.close()
    haproxy.wait_for(lambda row: row["agent_status"] == "L4CON")
    assert (haproxy.server["status"], haproxy.server["weight"]) == ("UP", "200")


def test_an_administrators_own_word_stays(haproxy: HAProxy, monkeypatch: pytest.MonkeyPatch) -> None:
    for says, status, weight in (
        (Availability(Word.UP, 50, "OK 2 of 4"), "UP", 100),
        (Availability(Word.DRAIN, 0, "leaving"), "DRAIN (agent)", 0),
    ):
        haproxy.says = says
        haproxy.comes(status, weight, f"via agent : up ({says.reason})")
        with monkeypatch.context() as later:
            later.setattr(agent, "INSIST", -1.0)  # neither `ready` nor `drain` is said any more
            haproxy.stays(haproxy.server["status"], weight)
            haproxy.order("set server shop/web1 state maint")
            haproxy.stays("MAINT", weight)
