"""HAProxy before many machines: what it takes. Prints tables in Markdown, for docs/design/scale.md.

    python -m tests.bench.front_scale [--machines 200] [--entries 1000000] [--rounds 5]

The machines are simulated (`front_machines`), HAProxy and its configuration are real. It takes 3 minutes and 1 GB of
memory, and wants two cores that have nothing else to do.
"""

from __future__ import annotations

import argparse
import contextlib
import csv
import json
import os
import re
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

from lbadaptor.contract.address import Address
from lbadaptor.contract.settings import load
from monitor.demo.haproxy import PEER
from monitor.haproxyconfig.compose import Options, compose
from monitor.haproxyconfig.machines import Machine, Peer
from tests.apache.cluster import short_folder
from tests.ports import free_ports

from . import cost, results
from .build_ours import write_config
from .front_machines import TICKET_COOKIE, address, ticket
from .load import LoadFailed
from .markdown import table
from .servers import CHECKOUT, Server

FEW = 3
"""Machines beside which the many are measured."""
APPSERVERS = 4
"""Of each machine. A ticket is an AppServer's, so these are the entries that machines need."""
SAMPLE = 20_000
"""Tickets that visitors of a full table have; more would only make wrk slow."""
CONNECTIONS = 16
SECONDS = 2
"""Of one measurement."""
QUIET = 10.0
"""Seconds for which it is watched without visitors."""
DRAINS = 3
BATCH = 100
"""Entries that are set by one line; HAProxy reads 16 kB at once."""
ROOM = 2_000_000
"""Entries that a table may have."""
SYNC_TIMEOUT = 60.0
SCRIPT = Path(__file__).with_name("front.lua")


@dataclass(frozen=True)
class Plan:
    """What visitors ask for."""

    heads: Sequence[str]
    pause: int = 0
    """ms before each"""


class Front:
    """A HAProxy before so many machines, which are there already."""

    def __init__(self, name: str, folder: Path, machines: int, entries: int, ports: tuple[int, int]) -> None:
        self.name = name
        self.machines = machines
        self.entries = entries
        self.port = free_ports(2)
        self.folder = folder / name
        self.folder.mkdir()
        self.socket = self.folder / "haproxy.sock"
        self._file = self.folder / "haproxy.cfg"
        self._file.write_text(configuration(self.folder, self.socket, self.port, machines, ports))
        self.server = Server("haproxy", self.folder, self.port, self.command())
        self.before_fill = 0.0
        """MB"""

    @property
    def row(self) -> list[str]:
        """How a row of a table begins."""
        return [f"{self.machines}", f"{self.entries:,}"]

    def command(self) -> list[str | Path]:
        return ["haproxy", "-db", "-L", PEER, "-f", self._file]

    def start(self) -> None:
        self.server.start()
        self.server.await_up()

    def fill(self) -> float:
        """Learn the tickets of so many AppServers. The seconds that it took. Raises LoadFailed."""
        self.before_fill = cost.proportional([self.server.pid])
        stats = csv.DictReader(self.ask("show stat -1 4 -1").removeprefix("# ").strip().splitlines())
        ids = {server["svname"]: server["sid"] for server in stats}
        begin = time.monotonic()
        for first in range(0, self.entries, BATCH):
            self.ask(
                "; ".join(
                    f"set table machines key {ticket(number, self.machines)} "
                    f"data.server_id {ids[f'web{number % self.machines}']}"
                    for number in range(first, min(first + BATCH, self.entries))
                )
            )
        if (used := self.used()) != self.entries:
            raise LoadFailed(f"{self.name}: {used} entries, not {self.entries}")
        return time.monotonic() - begin

    def used(self) -> int:
        """How many entries its table has."""
        found = re.search(r"used:(\d+)", self.ask("show table"))
        return int(found[1]) if found else 0

    def ask(self, command: str) -> str:
        """What its socket answers. Raises OSError."""
        return ask(self.socket, command)

    def holders(self) -> Plan:
        """Visitors with tickets, in no order of the table."""
        step = max(1, self.entries // SAMPLE)
        numbers = [number * 7919 % self.entries for number in range(0, self.entries, step)]
        return Plan([head("/page", ticket(number, self.machines)) for number in numbers])


def head(path: str, ticket: str = "") -> str:
    cookie = f"Cookie: sid=0123456789abcdef; {TICKET_COOKIE}={ticket}\r\n" if ticket else ""
    return f"GET {path} HTTP/1.1\r\nHost: www.example.com\r\nUser-Agent: wrk\r\n{cookie}\r\n"


def configuration(folder: Path, stats: Path, port: int, machines: int, ports: tuple[int, int]) -> str:
    """As `lbctl haproxy-config` writes it, but for a table that has room for all entries."""
    web, agent = ports
    of_all = [
        Machine(f"web{number}", Address(address(number), web), 100, Address(address(number), agent))
        for number in range(machines)
    ]
    peer = Peer(PEER, Address("127.0.0.1", port + 1))
    options = Options("machines", of_all, [peer], [f"127.0.0.1:{port}"])
    text = compose(options, load(write_config(folder)), "tests.bench.front_scale")
    return f"global\n    stats socket {stats} level admin\n{re.sub(' size [0-9]+ ', f' size {ROOM} ', text)}"


def ask(place: Path, command: str) -> str:
    with socket.socket(socket.AF_UNIX) as connection:
        connection.settimeout(30.0)
        connection.connect(str(place))
        connection.sendall(f"{command}\n".encode())
        answer = b""
        while more := connection.recv(1 << 16):
            answer += more
    return answer.decode()


def visit(front: Front, plan: Plan, seconds: int = SECONDS, connections: int = CONNECTIONS) -> dict[str, Any]:
    """What wrk tells, and the µs of HAProxy's CPU for each request. Raises LoadFailed."""
    file = front.folder / "plan.lua"
    heads = ",\n".join(map(json.dumps, plan.heads))
    file.write_text(f"return {{ pause = {plan.pause}, heads = {{ {heads} }} }}\n")
    command = ["wrk", "-t1", f"-c{connections}", f"-d{seconds}s", "-s", str(SCRIPT)]
    before = cost.clock(front.server.pid)
    done = subprocess.run(
        [*command, f"http://127.0.0.1:{front.port}/", "--", str(file)], capture_output=True, text=True
    )
    spent = cost.clock(front.server.pid) - before
    if done.returncode:
        raise LoadFailed(f"wrk: {done.stdout[-500:]}{done.stderr[-500:]}")
    told: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    if told["failed"] or not told["requests"]:
        raise LoadFailed(f"{front.name}: {told}")
    return {**told, "cpu": spent / told["requests"]}


# What is measured.


def costs(fronts: Sequence[Front], rounds: int) -> list[list[str]]:
    """Rows: µs of CPU a request, of holders and of visitors who get a ticket; all fronts in turn in each round."""
    plans = {front.name: front.holders() for front in fronts}
    new = Plan([head("/begin")])
    held: dict[str, list[float]] = {front.name: [] for front in fronts}
    begun: dict[str, list[float]] = {front.name: [] for front in fronts}
    for front in fronts:  # connections to all machines, which are kept
        visit(front, plans[front.name], 1)
    for number in range(rounds):
        _say(f"cost of a request, round {number + 1} of {rounds}")
        for front in fronts:
            held[front.name].append(visit(front, plans[front.name])["cpu"])
            begun[front.name].append(visit(front, new, 1)["cpu"])
    return [[*front.row, _spread(held[front.name]), _spread(begun[front.name])] for front in fronts]


def checks(fronts: Sequence[Front], order: Callable[[str], dict[str, Any]]) -> list[list[str]]:
    """Rows: what HAProxy's checks of its machines take while nobody visits."""
    order(f"word 0 {fronts[0].machines} up 100%")
    before = [cost.clock(front.server.pid) for front in fronts]
    _say(f"checks alone, for {QUIET:.0f} s")
    time.sleep(QUIET)
    spent = [cost.clock(front.server.pid) - was for front, was in zip(fronts, before, strict=True)]
    told = order("told")
    asked = [f"{told[kind] / told['seconds']:.0f} {kind} checks" for kind in ("health", "agent")]
    print(f"Of all four HAProxies together: {' and '.join(asked)} a second.\n")
    return [[*front.row, f"{used / QUIET / 1e6:.2%}"] for front, used in zip(fronts, spent, strict=True)]


def drains(front: Front, order: Callable[[str], dict[str, Any]]) -> list[str]:
    """Seconds from the agent's word at half of the machines to the last new visitor at any of them, each time."""
    half = front.machines // 2
    plan = Plan([head("/begin")], pause=2)
    found = []
    for number in range(DRAINS):
        _say(f"drain {number + 1} of {DRAINS}")
        order(f"word 0 {front.machines} ready up 100%")
        visit(front, plan, 3)
        order(f"word 0 {half} drain # leaving")
        visit(front, plan, 4)
        last = order("told")["last_begun"]
        if len(last) <= half:
            raise LoadFailed(f"new visitors came to {len(last)} machines alone")
        found.append(max((when for machine, when in last.items() if int(machine) < half), default=0.0))
    order(f"word 0 {front.machines} ready up 100%")
    return [f"{seconds:.1f}" for seconds in found]


def reload(front: Front) -> list[str]:
    """A reload that hands the table over by `peers`: s until all entries are there, MB on the wire, s of CPU."""
    old = front.server
    before = cost.clock(old.pid)
    front.server = Server("haproxy", front.folder, front.port, [*front.command(), "-sf", str(old.pid)])
    begin = time.monotonic()
    front.start()
    received, cpu = 0, 0.0
    while f"\nPid: {front.server.pid}\n" not in front.ask("show info") or front.used() < front.entries:
        received = max(received, *_peer_bytes(front.server.pid), 0)
        if time.monotonic() > begin + SYNC_TIMEOUT:
            raise LoadFailed(f"after {SYNC_TIMEOUT:.0f} s the new HAProxy has {front.used()} entries")
        with contextlib.suppress(OSError):
            cpu = cost.clock(old.pid) - before
    took = time.monotonic() - begin
    cpu += cost.clock(front.server.pid)
    old.stop()
    return [f"{took:.1f}", f"{received / 1e6:.1f}", f"{cpu / 1e6:.1f}"]


def _peer_bytes(pid: int) -> Iterator[int]:
    """What came in on each TCP connection of a process, as ss(8) tells."""
    said = subprocess.run(["ss", "-tinpOH"], capture_output=True, text=True, check=False).stdout
    for line in said.splitlines():
        if f"pid={pid}," in line and (found := re.search(r"bytes_received:(\d+)", line)):
            yield int(found[1])


def _memory(front: Front, seconds: float) -> list[str]:
    full = cost.proportional([front.server.pid])
    each = (full - front.before_fill) * 1024 * 1024 / front.entries
    return [
        *front.row,
        f"{front.before_fill:.0f}",
        f"{full:.0f}",
        f"{each:.0f}" if front.entries > SAMPLE else "–",
        f"{seconds:.1f}",
    ]


def _spread(values: Sequence[float]) -> str:
    return f"{median(values):.1f} ({min(values):.1f}–{max(values):.1f})"


def _say(what: str) -> None:
    print(what, file=sys.stderr, flush=True)


def main() -> None:
    """Raises LoadFailed."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench.front_scale", description="HAProxy as it grows.")
    parser.add_argument("--machines", type=int, default=200)
    parser.add_argument("--entries", type=int, default=1_000_000)
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    version = subprocess.run(["haproxy", "-v"], capture_output=True, text=True, check=True).stdout.split()[2]
    where = results.machine()
    print(
        f"{where['processor']}, {where['cores']} cores, Linux {where['kernel']}, HAProxy {version}; "
        f"load average before: {os.getloadavg()[0]:.1f}\n"
    )
    with short_folder() as folder, contextlib.ExitStack() as stack:
        web = free_ports(2)
        agent = web + 1
        command = [sys.executable, "-m", "tests.bench.front_machines", folder]
        simulated = Server(
            "machines",
            folder,
            web,
            [*command, str(options.machines), str(web), str(agent)],
            {"PYTHONPATH": str(CHECKOUT)},
            (folder / "orders.sock").exists,
        )
        stack.callback(simulated.stop)
        simulated.start()
        simulated.await_up()

        def order(line: str) -> dict[str, Any]:
            answer = ask(folder / "orders.sock", line)
            return json.loads(answer) if answer else {}

        fronts = []
        for machines in (options.machines, FEW):
            for entries in (machines * APPSERVERS, options.entries):
                front = Front(f"{machines}-{entries}", folder, machines, entries, (web, agent))
                stack.callback(lambda front=front: front.server.stop())
                front.start()
                fronts.append(front)
        memory = []
        for front in fronts:
            _say(f"{front.entries} entries: {front.name}")
            memory.append(_memory(front, front.fill()))
        heads = ["machines", "entries"]
        print(table([*heads, "memory empty, MB", "full, MB", "bytes an entry", "filled in, s"], memory), "\n")
        print(table([*heads, "with a ticket, µs", "gets a ticket, µs"], costs(fronts, options.rounds)), "\n")
        strays = order("told")["strays"]
        print(f"Requests at another machine than the ticket's: {strays}\n")
        quiet = [front for front in fronts if front.entries <= front.machines * APPSERVERS]
        print(table([*heads, "% of a core for checks"], checks(quiet, order)), "\n")
        print("From the agent's `drain` to the last new visitor, s:", ", ".join(drains(fronts[0], order)), "\n")
        heads = [*heads, "after a reload all entries are there after, s", "MB", "CPU of both, s"]
        print(table(heads, [[*front.row, *reload(front)] for front in fronts[:2]]), "\n")
    print(f"load average after: {os.getloadavg()[0]:.1f}")


if __name__ == "__main__":
    try:
        main()
    except LoadFailed as error:
        sys.exit(f"{error}")
