"""`make machines-demo`: three machines behind an HAProxy, on one screen, until Ctrl-C.

A machine is a monitor with AppServers, an Apache httpd, and their files. Apache and the agent of each listen on a
loopback address of its own. Everything is in one temporary folder, which is removed at the end.
"""

from __future__ import annotations

import argparse
import contextlib
import grp
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lbadaptor.contract.address import Address
from lbadaptor.contract.settings import Settings
from lbadaptor.contract.ticket import make_keys
from lbadaptor.examples.visit_counter import COOKIE, IDLE
from monitor.contract.client import NoAnswer, ask
from monitor.ctl.terminal import keys, screen
from monitor.ctl.terminal.screen import FAINT, HEADING, Line
from monitor.demo import httpd
from monitor.demo.haproxy import PEER, HAProxy, find
from monitor.demo.machines_table import Row, answers, table
from monitor.demo.programs import (
    LOOPBACK,
    DemoFailed,
    End,
    EndedEarly,
    await_appservers,
    bind_error,
    free_ports,
    monitor,
    say,
    status_of,
    temporary_folder,
    write_settings,
)
from monitor.demo.visitors import Visitors
from monitor.haproxyconfig.compose import Options, compose
from monitor.haproxyconfig.machines import Machine, Peer

ADDRESSES = ("127.0.0.11", "127.0.0.12", "127.0.0.13")
"""Of the machines 1, 2 and 3."""
SERVERS = 2
"""AppServers of each machine."""
SLOTS = 4 * SERVERS
"""Ports of each machine's AppServers."""
VISITORS = 12
INTERVAL = 1.0
"""Seconds between two looks."""
APP = "lbadaptor.examples.visit_counter:application"


def main(arguments: Sequence[str] | None = None) -> int:
    """The exit status: 0 done, 1 not done."""
    parser = argparse.ArgumentParser(
        prog="make machines-demo", description="Run three machines behind an HAProxy, until Ctrl-C."
    )
    parser.add_argument(
        "--port", type=int, default=8000, help="the site's port; the next one is for statistics (default 8000)"
    )
    port = parser.parse_args(arguments).port
    return status_of(lambda: run(port))


@dataclass
class Running:
    """A machine whose programs run."""

    number: int
    address: str
    settings: Settings
    site: httpd.Httpd
    status: dict[str, Any]
    """what its monitor has told last; empty: it does not answer"""

    @property
    def name(self) -> str:
        return f"{self.number} {self.address}"

    def keep_asking(self, over: threading.Event) -> None:
        """Ask its monitor again and again. One that hangs keeps nobody waiting but this thread."""
        while not over.wait(INTERVAL):
            try:
                self.status = ask(self.settings.control_socket)
            except NoAnswer:
                self.status = {}


def run(port: int) -> None:
    """Blocks until SIGINT, SIGTERM or SIGHUP. Raises LbadaptorError, OSError, EndedEarly."""
    end = End.at_signals()
    program, apache = find(), httpd.find()
    _require_ports(port)
    with temporary_folder() as folder, contextlib.ExitStack() as stack:
        machines = list(_started(apache, folder, port, stack, end))
        front = HAProxy(program, folder, configuration(port, [machine.settings for machine in machines]))
        front.start()
        stack.callback(front.stop)
        visitors = Visitors(_site(port), VISITORS)
        visitors.start()
        over = threading.Event()
        stack.callback(visitors.stop)
        stack.callback(over.set)
        for machine in machines:
            threading.Thread(target=machine.keep_asking, args=[over], daemon=True).start()
        _show(_look(machines, front), _heading(folder, port), visitors, end)
        say("\nending the demo …")


def _started(
    apache: httpd.Apache, folder: Path, port: int, stack: contextlib.ExitStack, end: End
) -> Iterator[Running]:
    """The machines, all up. Raises LbadaptorError, OSError, EndedEarly."""
    say(f"starting {len(ADDRESSES)} machines with {SERVERS} AppServers each")
    first = free_ports(len(ADDRESSES) * SLOTS, port + 2)
    running = []
    for number, address in enumerate(ADDRESSES, 1):
        settings = _prepared(folder, number, address, port, first + (number - 1) * SLOTS)
        output = stack.enter_context((folder / str(number) / "monitor.log").open("wb"))
        running.append((settings, stack.enter_context(monitor(_config(folder, number), output))))
    for _, process in running:
        stack.callback(process.terminate)  # before the first is waited for: they end at the same time
    for number, (settings, process) in enumerate(running, 1):
        try:
            await_appservers(settings, process, end)
        except DemoFailed as error:
            said = (folder / str(number) / "monitor.log").read_text(errors="replace")
            raise DemoFailed(f"machine {number}: {error}\n{said[-3000:]}") from None
        address, config = ADDRESSES[number - 1], _config(folder, number)
        lanes = 0 if apache.no_fast_lane() else settings.slots
        site = httpd.Httpd(
            apache, folder / str(number), port, "lbadaptor.conf", config, fast_lane=lanes, address=address
        )
        site.start()
        stack.callback(_end, site)
        if end.is_set():
            raise EndedEarly
        yield Running(number, address, settings, site, ask(settings.control_socket))


def _end(site: httpd.Httpd) -> None:
    """Also one that was told to stop and wait."""
    if site.alive():
        os.killpg(site.pid, signal.SIGCONT)
    site.stop()


def _config(folder: Path, number: int) -> Path:
    return folder / f"{number}.toml"


def _prepared(folder: Path, number: int, address: str, port: int, base_port: int) -> Settings:
    """The settings of a machine. All have the same key."""
    home = folder / str(number)
    home.mkdir()
    home.chmod(0o711)
    group = httpd.apache_group()
    first = folder / "1" / "keys"
    make_keys(first, grp.getgrnam(group).gr_gid if group else None)
    if number > 1:
        os.link(first, home / "keys")
    return write_settings(
        _config(folder, number),
        {
            "application": {"app": APP, "session_cookie": COOKIE, "session_idle": IDLE},
            "files": {"run_folder": str(number), "key_file": f"{number}/keys", "apache_group": group},
            "appservers": {"servers": SERVERS, "base_port": base_port},
            "appservers.environment": {"MACHINE": str(number)},
            "machine": {"number": number, "agent": f"{address}:{port + 1}", "front": [LOOPBACK]},
        },
    )


def _site(port: int) -> str:
    return f"http://{LOOPBACK}:{port}/"


def configuration(port: int, machines: Sequence[Settings]) -> str:
    """HAProxy's, as `lbctl haproxy-config` writes it, and its page of statistics."""
    of_all = [
        Machine(
            f"machine{one.machine.number}", Address(address, port), one.machine.weight, Address(address, port + 1)
        )
        for address, one in zip(ADDRESSES, machines, strict=True)
    ]
    peer = Peer(PEER, Address(LOOPBACK, free_ports(1, machines[-1].appservers.base_port + SLOTS)))
    options = Options("site", of_all, [peer], [f"{LOOPBACK}:{port}"])
    statistics = (
        f"frontend statistics\n    mode http\n    bind {LOOPBACK}:{port + 1}\n    timeout client 60s\n"
        "    stats enable\n    stats uri /\n    stats refresh 2s\n    stats show-legends\n"
    )
    return f"{compose(options, machines[0], 'make machines-demo')}\n{statistics}"


def _look(machines: Sequence[Running], front: HAProxy) -> Callable[[], list[Row]]:
    """Looks at all machines, and at what they have answered since the last look. The function raises DemoFailed."""
    counted: dict[str, tuple[float, int]] = {}

    def look() -> list[Row]:
        if not front.alive():
            raise DemoFailed("HAProxy has ended")
        now = time.monotonic()
        stats = {server["addr"].rpartition(":")[0]: server for server in front.servers()}
        rows = []
        for machine in machines:
            told = stats.get(machine.address, {})
            before, count = counted.get(machine.name, (now, 0)), answers(told)
            counted[machine.name] = now, count
            rate = max(0, count - before[1]) / (now - before[0]) if now > before[0] else 0.0
            apache = str(machine.site.pid) if machine.site.alive() else "has ended"
            rows.append(Row(machine.name, told, machine.status, apache, rate))
        return rows

    return look


def _heading(folder: Path, port: int) -> list[Line]:
    """Where everything is, and what can be tried."""
    lbctl = str(Path(sys.executable).with_name("lbctl"))
    lbctl = min(lbctl, os.path.relpath(lbctl), key=len)
    return [
        (f"the site        {_site(port)}", ""),
        (f"its HAProxy     {_site(port + 1)}", ""),
        ("", ""),
        ("To be tried in another terminal:", HEADING),
        (f"{lbctl} --config {_config(folder, 1)} drain --all", ""),
        ("    machine 1 gets no new visitors, and is empty after its last session; undrain --all: it is back", FAINT),
        (f"{lbctl} --config {_config(folder, 2)} kill 0", ""),
        ("    an AppServer is killed: its sessions are lost, no others", FAINT),
        (f"{lbctl} --config {_config(folder, 3)} stop", ""),
        ("    machine 3 is off; it is on again after lbmonitor --config …, with the same file", FAINT),
        ("kill -STOP -- -N", ""),
        ("    with N as in the column Apache: a machine hangs; -CONT: it goes on", FAINT),
        ("", ""),
    ]


def _show(look: Callable[[], list[Row]], heading: list[Line], visitors: Visitors, end: End) -> None:
    """Until the end. On a terminal a whole screen; elsewhere lines, whenever the state of a machine changes."""
    if sys.stdout.isatty():
        _draw(look, heading, visitors, end)
        return
    say("\n".join(line for line, _ in [*heading, (ENDS, "")]))
    words: list[tuple[str, str]] = []
    while True:
        rows = look()
        if (now := [row.words for row in rows]) != words:
            words = now
            say("\n".join(line for line, _ in [("", ""), *_below(rows, visitors)]))
        if end.wait(INTERVAL):
            return


ENDS = "Ctrl-C ends it."


def _draw(look: Callable[[], list[Row]], heading: list[Line], visitors: Visitors, end: End) -> None:
    with keys.at_once(), screen.whole() as draw:
        while not end.is_set():
            draw([*heading, *_below(look(), visitors), ("", ""), (ENDS, "")])
            if keys.pressed(INTERVAL) in ("q", "Q"):
                return


def _below(rows: Sequence[Row], visitors: Visitors) -> list[Line]:
    """The table, and what visitors have seen."""
    return [*table(rows), ("", ""), (f"{VISITORS} visitors of this demo: {visitors.counted}", "")]


def _require_ports(port: int) -> None:
    """Raises DemoFailed."""
    for address in (LOOPBACK, *ADDRESSES):
        for wanted in (port, port + 1):
            if why := bind_error(address, wanted):
                raise DemoFailed(
                    f"port {wanted} on {address} cannot be used ({why}); take another: make machines-demo PORT=8080"
                )


if __name__ == "__main__":
    sys.exit(main())
