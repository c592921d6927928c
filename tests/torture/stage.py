"""A private httpd with the adaptor and a monitor with six AppServers, all in one folder."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from lbadaptor.contract.address import Table, parse
from lbadaptor.contract.errors import AddressFileError
from lbadaptor.contract.settings import load
from monitor.contract.client import NoAnswer, ask
from monitor.demo import httpd
from tests.apache.cluster import processes_of
from tests.ports import free_ports

from .application import born
from .disk import Disk
from .records import BEGINS, Limits, Process, Said

SERVERS = 6
SLOTS = 14
SHARE = 2**20
"""Bytes that each AppServer's sessions may have where they have no file system of their own, which could be full."""
START_TIMEOUT = 60.0
STOP_TIMEOUT = 45.0
SETTLE = 5.0
"""Seconds after which a process that starts or ends has done so."""
OWN = "own"
STORES = {OWN: "application", "flask": "flask_application"}
"""The application's module for each store of sessions."""
PACKAGE = "torture"
"""of the copies of these modules"""
KEPT = {"address.text", "available.text", "callerkeys.text", "keys", "logs"}
"""What stays in the run folder after an orderly end, besides the monitor's own (`monitor.*`)."""

SETTINGS: dict[str, dict[str, Any]] = {
    "application": {"session_cookie": "sid", "session_idle": 25.0},
    "files": {"run_folder": "run", "key_file": "run/keys"},
    "appservers": {
        "servers": SERVERS,
        "slots": SLOTS,
        "threads": 8,
        "max_requests": 1500,
        "max_age": 40.0,
        "spread": 50,
    },
    "adaptor": {"answer_timeout": 30.0, "spool_folder": "spool"},
    "monitor": {
        "probe_interval": 0.3,
        "probe_timeout": 0.6,
        "fall": 3,
        "failing_limit": 2.0,
        "start_timeout": 15.0,
        "stop_grace": 8.0,
        "backoff_limit": 2.0,
        "replace_at_once": 2,
        "drain_limit": 12.0,
        "heartbeat": 5.0,
    },
}
"""All times are short, so that everything happens within a short run."""


class StageFailed(Exception):
    """Monitor and AppServers did not start."""


class Stage:
    """Call `start`, then `supervise` again and again in the same thread, then `stop`."""

    def __init__(
        self,
        folder: Path,
        settings: Mapping[str, Mapping[str, Any]] = SETTINGS,
        fast_lane: bool = False,
        survive: str = "nothing",
        preload: bool = False,
        store: str = OWN,
    ) -> None:
        """`survive`: [sessions] survive; `store`: the module of STORES that is the application."""
        self.folder = folder
        self.fast_lane = fast_lane
        self.survive = survive
        self.preload = preload
        self.store = store
        self.disk = Disk(folder / "disk")
        """where the sessions' folder is"""
        self.run_folder = folder / "run"
        self.spool = folder / "spool"
        self.executed = folder / "executed"
        self.address_file = self.run_folder / "address.text"
        self.monitor_log = folder / "monitor.log"
        self.test_errors: list[str] = []
        self.arbiter_may_end = threading.Event()
        """set by the fault injector when it kills the arbiter, or ends everything in order"""
        self.config = folder / "lbadaptor.toml"
        self._temporary = folder / "tmp"
        self._monitor: subprocess.Popen[bytes] | None = None
        self._again_at = 0.0
        self._kernel_sessions: set[int] = set()
        folder.chmod(0o711)
        for name, mode in (("run", 0o711), ("spool", 0o1777), ("tmp", 0o1777), ("apps", 0o755), ("httpd", 0o711)):
            (folder / name).mkdir()
            (folder / name).chmod(mode)
        package = folder / "apps" / PACKAGE
        package.mkdir(mode=0o755)
        for module in ("__init__", *STORES.values()):
            shutil.copy(Path(__file__).with_name(f"{module}.py"), package)
        self.executed.touch()
        self.base_port = free_ports(SLOTS)
        sections = {name: dict(section) for name, section in settings.items()}
        sections["files"]["apache_group"] = httpd.apache_group()
        sections["appservers"]["base_port"] = self.base_port
        sections.setdefault("adaptor", {})["spool_folder"] = str(self.spool)
        sections["application"]["app"] = f"{PACKAGE}.{STORES[store]}:application"
        if store != OWN:
            sections["application"]["session_count"] = store
        sections["appservers"]["preload"] = preload
        if survive != "nothing":
            sections["sessions"] = {"survive": survive, "folder": str(self.disk.folder / "sessions")}
            if not self.disk.can_be_own:
                sections["sessions"]["max_bytes"] = SLOTS * SHARE
            if store == OWN:
                functions = {name: f"{PACKAGE}.application:{name}" for name in ("save", "load")}
                sections["sessions"] |= functions
        lines = []
        for name, section in sections.items():
            lines.append(f"[{name}]")
            lines += [
                f'{key} = "{value}"' if isinstance(value, str) else f"{key} = {str(value).lower()}"
                for key, value in section.items()
            ]
        self.config.write_text("\n".join(lines) + "\n")
        self.config.chmod(0o644)
        self.settings = load(self.config)
        installation = httpd.find()
        self.lanes = folder / "httpd" / "lanes.log"
        """a line for each request: what the fast lane says of its session, and the status that sent it back"""
        self.httpd = httpd.Httpd(
            installation,
            folder / "httpd",
            free_ports(),
            "lbadaptor.conf",
            self.config,
            extra=f'CustomLog {self.lanes} "%{{LBADAPTOR_SESSION}}e %{{REDIRECT_STATUS}}e"',
            fast_lane=SLOTS if fast_lane else 0,
        )

    def limits(self) -> Limits:
        """From the settings: how soon the monitor may act on an AppServer that answers no probe."""
        monitor = self.settings.monitor
        failing = (monitor.fall - 1) * (monitor.probe_interval + monitor.probe_timeout)
        return Limits(
            failing=failing,
            hung=failing + monitor.failing_limit,
            wait=self.settings.adaptor.wait,
            idle=self.settings.application.session_idle,
        )

    def start(self) -> None:
        """Raises StageFailed, NoApache."""
        if self.survive != "nothing":
            self.disk.mount()
        self._start_monitor()
        deadline = time.monotonic() + START_TIMEOUT
        while not self.at_full_strength():
            if time.monotonic() > deadline or self._ended():
                raise StageFailed(f"the AppServers are not OK:\n{self.monitor_log.read_text()[-3000:]}")
            time.sleep(0.05)
        self.httpd.start()
        self._kernel_sessions.add(self.httpd.pid)

    def supervise(self) -> None:
        """Start a monitor that was killed again, half a second later, as systemd would."""
        if not self._ended():
            return
        assert self._monitor is not None
        if not self._again_at:
            if not self.arbiter_may_end.is_set():
                told = self.monitor_log.read_text(errors="replace")[-3000:]
                self.test_errors.append(
                    f"the monitor has ended by itself, with status {self._monitor.returncode}:\n{told}"
                )
            elif self._monitor.returncode not in (0, -signal.SIGKILL):
                self.test_errors.append(f"the monitor has ended with status {self._monitor.returncode}")
            self.arbiter_may_end.clear()
            self._again_at = time.monotonic() + 0.5
        if time.monotonic() >= self._again_at:
            self._again_at = 0.0
            self._start_monitor()

    @property
    def monitor_pid(self) -> int:
        assert self._monitor is not None
        return self._monitor.pid

    def table(self) -> Table | None:
        """address.text as of now."""
        try:
            return parse(self.address_file.read_text())
        except (OSError, AddressFileError):
            return None

    def at_full_strength(self) -> bool:
        table = self.table()
        return table is not None and len(table.ok) == SERVERS

    def appservers(self) -> list[tuple[int, Process]]:
        """All AppServers with their slots, also those that start or stop.

        With preload only those that the monitor's log names: their command line is that of the template.
        """
        found, slots = [], self._slots() if self.preload else {}
        for pid, words in self._processes("lbadaptor.appserver"):
            with contextlib.suppress(OSError, ValueError, LookupError):
                slot = slots[pid] if self.preload else int(words[words.index("--slot") + 1])
                found.append((slot, Process(pid, born(pid))))
        return sorted(found)

    def _slots(self) -> dict[int, int]:
        """The slots of AppServers, by their pids, as the monitor's log says."""
        log = self.monitor_log.read_text(errors="replace")
        return {int(pid): int(slot) for slot, pid in BEGINS.findall(log)}

    def watchers(self) -> list[Process]:
        found = []
        for pid, _ in self._processes("monitor.watcher"):
            with contextlib.suppress(OSError):
                found.append(Process(pid, born(pid)))
        return found

    def roles(self) -> Iterator[tuple[str, Process]]:
        """All processes that must not grow."""
        pids = [("arbiter", self.monitor_pid), ("httpd", self.httpd.pid)]
        pids += [("watcher", watcher.pid) for watcher in self.watchers()]
        pids += [("httpd child", pid) for pid in children(self.httpd.pid)]
        for role, pid in pids:
            with contextlib.suppress(OSError):
                yield role, Process(pid, born(pid))

    def unknown_processes(self) -> list[str]:
        """Processes that run without the monitor's knowledge, or are dead and not reaped. Call it without faults.

        Blocks for SETTLE seconds if it finds any: a process that just starts or ends is none.
        """
        deadline = time.monotonic() + SETTLE
        while (found := self._unknown_processes()) and time.monotonic() < deadline:
            time.sleep(0.2)
        return found

    def _unknown_processes(self) -> list[str]:
        try:
            known = {server["pid"] for server in ask(self.settings.control_socket)["appservers"]}
        except NoAnswer as error:
            return [f"the monitor cannot be asked: {error}"]
        found = [
            f"AppServer in slot {slot}, pid {process.pid}, which the monitor does not know"
            for slot, process in self.appservers()
            if process.pid not in known
        ]
        if len(self.watchers()) != 1:
            found.append(f"watchers: {len(self.watchers())}")
        return found + [f"zombie {pid} of the arbiter" for pid in children(self.monitor_pid) if _state(pid) == "Z"]

    def stop(self) -> list[str]:
        """End everything in order. Returns what was left behind."""
        left = []
        self.httpd.stop()
        if self._monitor is not None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self._monitor.pid, signal.SIGCONT)
            self._monitor.terminate()
            try:
                status = self._monitor.wait(STOP_TIMEOUT)
                if status:
                    left.append(f"the monitor ended with status {status}")
            except subprocess.TimeoutExpired:
                left.append(f"the monitor, which does not end within {STOP_TIMEOUT:.0f} s")
        for pid, command in processes_of(self.folder, frozenset(self._kernel_sessions)).items():
            left.append(f"process {pid}: {command}")
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        if self._monitor is not None:
            self._monitor.wait(STOP_TIMEOUT)
        if self.survive != "nothing":
            left += self.disk.left_behind(self.disk.folder / "sessions")
        self.disk.unmount()
        ports = {self.httpd.port, *range(self.base_port, self.base_port + SLOTS)}
        left += [f"a socket that listens on port {port}" for port in sorted(_listening() & ports)]
        for folder in (self._temporary, self.spool):
            left += [f"temporary file {path}" for path in folder.iterdir()]
        left += [
            f"{path} in the run folder"
            for path in self.run_folder.iterdir()
            if path.name not in KEPT and not (path.name.startswith(("monitor.", "events.")) and path.is_file())
        ]
        return left

    def _start_monitor(self) -> None:
        environment = {
            **os.environ,
            "PYTHONPATH": str(self.folder / "apps"),
            "TORTURE_EXECUTED": str(self.executed),
            "TMPDIR": str(self._temporary),
        }
        with self.monitor_log.open("ab") as log:
            self._monitor = subprocess.Popen(
                [*httpd.dies_with_us(), sys.executable, "-I", "-B", "-m", "monitor", "--config", str(self.config)],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd=self.folder,
                env=environment,
                start_new_session=True,
            )
        self._kernel_sessions.add(self._monitor.pid)

    def _ended(self) -> bool:
        return self._monitor is not None and self._monitor.poll() is not None

    def _processes(self, module: str) -> Iterator[tuple[int, list[str]]]:
        """Living processes that run a module and belong to this stage."""
        mark = f"TORTURE_EXECUTED={self.executed}\0".encode()
        for entry in Path("/proc").iterdir():
            if not entry.name.isdigit():
                continue
            with contextlib.suppress(OSError):
                words = (entry / "cmdline").read_bytes().decode(errors="replace").split("\0")
                if module in words and mark in (entry / "environ").read_bytes() + b"\0":
                    yield int(entry.name), words


class LogTail:
    """Follows the monitor's log, whose lines have no time. Call `look` often."""

    def __init__(self, path: Path, said: list[Said]) -> None:
        self._path = path
        self._said = said
        self._offset = 0

    def look(self) -> None:
        with contextlib.suppress(FileNotFoundError), self._path.open("rb") as file:
            file.seek(self._offset)
            data = file.read()
            whole = data[: data.rfind(b"\n") + 1]
            self._offset += len(whole)
            now = time.time()
            self._said += [Said(now, line) for line in whole.decode(errors="replace").splitlines()]


def children(parent: int) -> list[int]:
    """The pids of a process's children, also of dead ones that it has not reaped."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with contextlib.suppress(OSError, IndexError):
                if int((entry / "stat").read_text().rpartition(")")[2].split()[1]) == parent:
                    found.append(int(entry.name))
    return found


def _state(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return ""


def _listening() -> set[int]:
    """The ports of this machine on which a process listens."""
    ports = set()
    for name in ("/proc/net/tcp", "/proc/net/tcp6"):
        with contextlib.suppress(FileNotFoundError):
            for line in Path(name).read_text().splitlines()[1:]:
                _, local, _, state, *_ = line.split()
                if state == "0A":
                    ports.add(int(local.rpartition(":")[2], 16))
    return ports
