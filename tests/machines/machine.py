"""One machine, as a test sees it."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from lbadaptor.contract.address import Table, parse
from lbadaptor.contract.errors import AddressFileError
from lbadaptor.contract.settings import load
from monitor.contract.client import NoAnswer, ask
from monitor.ctl.terminal.rates import Interval
from monitor.demo import httpd
from tests.apache.resources import TIMEOUT, eventually, processes_of

from .places import Place

TORTURE = Path(__file__).parents[1] / "torture"
LBCTL = Path(sys.executable).with_name("lbctl")
SERVERS = 2
MARKS = {
    "apache": "/httpd.conf",
    "arbiter": "/lbadaptor.toml",
    "watcher": " monitor.watcher ",
    "appserver": " lbadaptor.appserver ",
}
"""Of the kinds of processes, in their command lines."""

SAME_NUMBER = "another machine has the number"

Settings = dict[str, dict[str, Any]]

SETTINGS: Settings = {
    "application": {"app": "torture.application:application", "session_cookie": "sid", "session_idle": 120.0},
    "files": {"run_folder": "run", "key_file": "var/keys"},
    "appservers": {"servers": SERVERS, "slots": 4 * SERVERS, "threads": 8},
    "adaptor": {"answer_timeout": 10.0, "wait": 2.0},
    "monitor": {
        "probe_interval": 0.2,
        "probe_timeout": 1.0,
        "failing_limit": 2.0,
        "stop_grace": 5.0,
        "backoff_limit": 0.5,
        "heartbeat": 1.0,
    },
    "sessions": {
        "survive": "anything",
        "folder": "var/sessions",
        "max_bytes": 2**23,
        "save": "torture.application:save",
        "load": "torture.application:load",
    },
    "machine": {},
}


class Machine:
    """`boot` switches it on, `await_up` waits for that. Its files are in `folder`; `var` is its disk."""

    def __init__(self, place: Place, folder: Path, number: int, settings: Settings) -> None:
        """`settings`: sections in place of those that every machine has."""
        self.name = folder.name
        self.place = place
        self.folder = folder
        self.plan = place.plan(self.name, number, folder)
        self._process: subprocess.Popen[bytes] | None = None
        for name, mode in (("", 0o711), ("run", 0o711), ("tmp", 0o1777), ("apps", 0o755), ("apps/torture", 0o755)):
            (folder / name).mkdir()
            (folder / name).chmod(mode)
        place.make_disk(folder / "var")
        for name in ("__init__", "application"):
            shutil.copy(TORTURE / f"{name}.py", folder / "apps" / "torture")
        (folder / "executed").touch()
        base_port, self.agent_port = place.ports(number)
        self.sections = {name: dict(section) for name, section in (SETTINGS | settings).items()}
        self.sections["files"]["apache_group"] = httpd.apache_group()
        self.sections["appservers"]["base_port"] = base_port
        self.sections["machine"] |= {
            "number": number,
            "agent": f"{self.plan.address}:{self.agent_port}",
            "front": [place.front],
        }
        self.write_settings()

    def write_settings(self) -> None:
        """What is in `sections`, from the next boot or release on."""
        lines = []
        for name, section in self.sections.items():
            lines.append(f"[{name}]")
            lines += [f"{key} = {_toml(value)}" for key, value in section.items()]
        self.plan.config.write_text("\n".join(lines) + "\n")
        self.plan.config.chmod(0o644)
        self.settings = load(self.plan.config)

    def file(self, path: Path) -> Path:
        """One of its files, seen from here."""
        return self.place.seen(self.plan, path)

    # Its power.

    @property
    def is_on(self) -> bool:
        return self._process is not None

    def boot(self, clock: int = 0) -> None:
        """`clock`: seconds by which its clock is wrong."""
        self.plan.clock = clock
        self._process = self.place.boot(self.plan)

    def await_up(self) -> None:
        """Wait until all AppServers are OK, orders can be given, and Apache answers."""

        def up() -> bool:
            assert self._process is not None
            assert self._process.poll() is None, self.said()
            return self.is_whole() and bool(self.processes("apache"))

        eventually(f"{self.name} is up", up)

    def shut_down(self) -> None:
        """In order. Asserts that nothing went wrong."""
        if self._process is None:
            return
        assert self._process.stdin is not None
        self._process.stdin.close()
        status = self._process.wait(TIMEOUT)
        self._process = None
        assert status == 0, self.said()

    def lose_power(self) -> None:
        self.place.power_loss(self.plan)
        assert self._process is not None
        self._process.kill()
        self._process.wait(TIMEOUT)
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process = None
        eventually("nothing runs any more", lambda: not processes_of(self.folder))

    def empty_disk(self) -> None:
        """While it is off."""
        for path in self.file(self.folder / "var").iterdir():
            shutil.rmtree(path) if path.is_dir() else path.unlink()

    def end(self) -> list[str]:
        """Shut it down, whatever state it is in. What was left, or went wrong."""
        wrong = []
        if self._process is not None:
            with contextlib.suppress(KeyError, AssertionError):
                self.place.heal(self.plan)
            self.go_on(*MARKS)
            try:
                self.shut_down()
            except (AssertionError, subprocess.TimeoutExpired) as error:
                wrong.append(f"{self.name}: {error}")
        for pid, command in processes_of(self.folder).items():
            wrong.append(f"{self.name}: process {pid} is left: {command}")
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        if self._process is not None:
            self._process.kill()
            self._process.wait(TIMEOUT)
        if "Traceback" in self.said():
            wrong.append(f"{self.name}: {self.said()}")
        if SAME_NUMBER in self.apache_said():
            wrong.append(f"{self.name} takes another machine for one of the same number: {self.apache_said()}")
        return wrong

    # Its processes.

    def processes(self, *kinds: str) -> list[int]:
        """Pids, as this process sees them, of the kinds in MARKS."""
        marks = [MARKS[kind] for kind in kinds]
        found = processes_of(self.folder).items()
        return [pid for pid, command in found if any(mark in f"{command} " for mark in marks)]

    @contextlib.contextmanager
    def hung(self, *kinds: str) -> Iterator[list[int]]:
        """SIGSTOP for all processes of these kinds."""
        pids = self.processes(*kinds)
        assert pids
        for pid in pids:
            os.kill(pid, signal.SIGSTOP)
        try:
            yield pids
        finally:
            self.go_on(*kinds)

    def go_on(self, *kinds: str) -> None:
        for pid in self.processes(*kinds):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGCONT)

    # What it says.

    def is_whole(self) -> bool:
        """All AppServers are OK, and orders can be given."""
        try:
            return len(self.table().ok) >= SERVERS and bool(self.status())
        except (OSError, AddressFileError, NoAnswer):
            return False

    def table(self) -> Table:
        return parse(self.file(self.settings.address_file).read_text())

    def status(self) -> dict[str, Any]:
        return ask(self.file(self.settings.control_socket))

    def sessions(self) -> int:
        """How many it says that it has."""
        found: int = self.status()["machine"]["sessions"]
        return found

    def await_probe(self) -> None:
        """Until each AppServer has told its counters once more."""
        look = Interval()

        def have_told() -> bool:
            status = self.status()
            return look.look(status) and all(server["memory"] is not None for server in status["appservers"])

        have_told()
        eventually("its AppServers have told their counters", have_told)

    def said(self) -> str:
        """What the monitor and its AppServers logged, over all boots."""
        log = self.folder / "monitor.log"
        host = self.folder / "host.log"
        return "".join(file.read_text(errors="replace") for file in (host, log) if file.exists())

    def apache_said(self) -> str:
        """Apache's error log since the last boot."""
        log = self.folder / "httpd" / "error.log"
        return log.read_text(errors="replace") if log.exists() else ""

    def await_said(self, text: str, since: int = 0) -> None:
        """Wait for a text in what is said after so many characters."""
        eventually(f"{self.name} says {text!r}", lambda: text in self.said()[since:])

    def executed(self) -> list[list[str]]:
        """The lines that the application wrote: for each POST its name and the pid; and its count in a session."""
        return [line.split() for line in (self.folder / "executed").read_text().splitlines()]

    def lbctl(self, *words: str, given: str = "") -> str:
        """Call it on the machine, as over ssh; `given` on its standard input. Fails the test where it fails."""
        command = [str(LBCTL), "--config", str(self.plan.config), *words]
        command = self.place.command(self.plan, command)
        done = subprocess.run(command, input=given, capture_output=True, text=True, timeout=TIMEOUT, check=False)
        assert done.returncode == 0, f"{words}: {done.returncode}: {done.stdout}{done.stderr}"
        return done.stdout + done.stderr


def _toml(value: Any) -> str:
    if isinstance(value, str):
        return f'"{value}"'
    if isinstance(value, list):
        return f"[{', '.join(map(_toml, value))}]"
    return str(value).lower()
