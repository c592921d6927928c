"""The programs that chains are made of: started on loopback with all their files in one folder, and ended."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from lbadaptor.appserver.process import messages
from lbadaptor.contract.address import Address, Entry, Identity, State
from lbadaptor.contract.ticket import Keys
from monitor.demo import httpd

from . import cost
from .load import LoadFailed

CHECKOUT = Path(__file__).parents[2]
APPLICATION = "application:application"
START_TIMEOUT = 180.0
STOP_TIMEOUT = 15.0
APACHE_THREADS = 64
"""Of each httpd process: enough for all connections, should it take them all. One that lacks threads closes those
that are kept alive, under the next request."""
THREADS = 8
"""Of every server that has a number of threads: the AppServer's default."""


def folder_of_application(folder: Path) -> Path:
    """A copy of the application that everybody may read; also what Passenger looks for."""
    place = folder / "application"
    place.mkdir()
    shutil.copy(Path(__file__).with_name("application.py"), place)
    (place / "passenger_wsgi.py").write_text("from application import application  # noqa: F401\n")
    (place / "public").mkdir()
    for path in (place, *place.iterdir()):
        path.chmod(0o755)
    return place


class Server:
    """One program that listens on 127.0.0.1:`port`. `start`, `await_up`, then `stop`.

    `part` is what its cost is booked under.
    """

    def __init__(
        self,
        part: str,
        folder: Path,
        port: int,
        command: Sequence[str | Path],
        environment: Mapping[str, str] | None = None,
        ready: Callable[[], bool] | None = None,
    ) -> None:
        self.part = part
        self.port = port
        self.folder = folder
        self.mark = f"{folder}:{part}:{port}"
        self._command = [*httpd.dies_with_us(), *map(str, command)]
        self._environment = dict(environment or {})
        self._ready = ready or self._listens
        self._log = folder / f"{part}-{port}.log"
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    def start(self, descriptors: Sequence[int] = ()) -> None:
        environment = {
            "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
            "LANG": "C.UTF-8",
            "HOME": str(self.folder),
            "PYTHONPATH": str(self.folder.parent / "application"),
            cost.MARK: self.mark,
            **self._environment,
        }
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(
                self._command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd=self.folder,
                env=environment,
                pass_fds=descriptors,
                start_new_session=True,
            )

    def await_up(self) -> None:
        """Wait until it serves. Raises LoadFailed, with its own last words."""
        assert self._process is not None
        deadline = time.monotonic() + START_TIMEOUT
        while not self._ready():
            if self._process.poll() is not None or time.monotonic() > deadline:
                raise LoadFailed(f"{self.part} does not start: {self.said()[-2000:]}")
            time.sleep(0.02)

    def said(self) -> str:
        logs = [self._log, *self.folder.glob("*error.log")]
        return "\n".join(log.read_text(errors="replace") for log in logs if log.exists())

    def wait(self) -> None:
        """Wait until it has ended. Blocks for STOP_TIMEOUT at most. Raises LoadFailed."""
        assert self._process is not None
        try:
            self._process.wait(STOP_TIMEOUT)
        except subprocess.TimeoutExpired:
            raise LoadFailed(f"{self.part} does not end: {self.said()[-2000:]}") from None

    def order_to_stop(self) -> None:
        if self._process is not None:
            self._process.terminate()

    def stop(self) -> None:
        """End it and all that it started. Blocks for STOP_TIMEOUT at most."""
        if self._process is None:
            return
        self._process.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(STOP_TIMEOUT)
        # Whoever stays behind: Passenger's own processes look to their end when Apache is gone.
        deadline = time.monotonic() + STOP_TIMEOUT / 3
        while (left := self._left()) and time.monotonic() < deadline:
            time.sleep(0.05)
        for pid in left:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self._process.wait()
        self._process = None

    def _left(self) -> set[int]:
        return cost.processes({self.mark: self.pid})[self.mark]

    def _listens(self) -> bool:
        try:
            socket.create_connection(("127.0.0.1", self.port), 1.0).close()
        except OSError:
            return False
        return True


class AppServer(Server):
    """One of our AppServers, which is handed its keys as by the monitor, but by us.

    `assignment`: other fields of it than are usual here.
    """

    def __init__(
        self,
        folder: Path,
        port: int,
        keys: Keys,
        slot: int,
        unix_socket: str = "",
        environment: Mapping[str, str] | None = None,
        **assignment: Any,
    ) -> None:
        self.identity = Identity(slot, time.time_ns() // 1_000_000 + slot)
        self.ticket = keys.ticket(self.identity)
        self.caller_key = keys.caller_key(self.ticket)
        self._probe_key = keys.probe_key(self.ticket)
        usual = {"app": APPLICATION, "session_cookie": "sid", "threads": THREADS, "unix_socket": unix_socket}
        self._assignment = usual | assignment
        self._ours, self._its = socket.socketpair()
        self._its.set_inheritable(True)
        command = [sys.executable, "-m", "lbadaptor.appserver", "--slot", str(slot), "--address", f"127.0.0.1:{port}"]
        command += ["--channel", str(self._its.fileno())]
        self._told = b""
        super().__init__("backend", folder, port, command, environment, self._is_ready)

    @property
    def entry(self) -> Entry:
        """Its line of address.text."""
        return Entry(self.ticket, Address("127.0.0.1", self.port), State.OK, self.identity)

    def start(self, descriptors: Sequence[int] = ()) -> None:
        super().start([self._its.fileno()])
        self._its.close()
        self._ours.sendall(
            messages.encode(
                messages.Assignment(
                    **self._assignment,
                    generation=self.identity.generation,
                    ticket=self.ticket,
                    caller_key=self.caller_key,
                    probe_key=self._probe_key,
                )
            )
            + b"\n"
        )

    def _is_ready(self) -> bool:
        """Whether it has said so: before, it listens already, but does not keep sessions yet. Raises LoadFailed."""
        with contextlib.suppress(BlockingIOError):
            self._told += self._ours.recv(65536, socket.MSG_DONTWAIT)
        *lines, _ = self._told.split(b"\n")
        for report in map(messages.decode_report, lines):
            if isinstance(report, messages.Failed):
                raise LoadFailed(f"an AppServer does not start: {report.why}")
            if isinstance(report, messages.Ready):
                return True
        return False

    def stop(self) -> None:
        super().stop()
        self._ours.close()


def apache(
    folder: Path,
    port: int,
    installed: httpd.Apache,
    modules: Sequence[str],
    configuration: str,
    processes: int = 4,
    part: str = "httpd",
) -> Server:
    """A private Apache httpd: the same settings for every chain, but for `modules` and `configuration`."""
    user = [f"User {httpd.apache_group()}", f"Group {httpd.apache_group()}"] if os.geteuid() == 0 else []
    files = {name: installed.modules / f"mod_{name}.so" for name in ("mpm_event", "unixd", "authz_core", *modules)}
    if "wsgi" in files:
        files["wsgi"] = installed.mod_wsgi
    lines = [
        f"ServerRoot {folder}",
        f"DefaultRuntimeDir {folder}",
        f"PidFile {folder}/httpd.pid",
        f"DocumentRoot {folder.parent}/application/public",
        f"Listen 127.0.0.1:{port}",
        f"ServerName 127.0.0.1:{port}",
        *(
            f"LoadModule {name}_module {file}"
            for name, file in files.items()
            if file.exists()  # what is built in has none
        ),
        *user,
        f"Mutex file:{folder} default",
        f"ErrorLog {folder}/httpd-error.log",
        "LogLevel warn",
        *settings(processes),
        "<Directory />\n    AllowOverride None\n    Require all denied\n</Directory>",
        configuration,
        "",
    ]
    file = folder / "httpd.conf"
    file.write_text("\n".join(lines))
    environment = {"LD_LIBRARY_PATH": installed.libraries} if installed.libraries else {}
    return Server(part, folder, port, [installed.binary, "-DFOREGROUND", "-f", file], environment)


def settings(processes: int) -> list[str]:
    """What every httpd is set to. Processes neither come nor go while it is measured."""
    return [
        f"ServerLimit {processes}",
        f"StartServers {processes}",
        f"ThreadsPerChild {APACHE_THREADS}",
        f"MaxRequestWorkers {APACHE_THREADS * processes}",
        "MinSpareThreads 1",
        f"MaxSpareThreads {APACHE_THREADS * processes}",
        "KeepAlive On",
        "MaxKeepAliveRequests 0",
        "Timeout 60",
    ]


def readable_adaptor(folder: Path) -> Path:
    """A copy of the adaptor and of what it imports, as it is now, that Apache's user can read: its share folder."""
    prefix = folder / "adaptor"
    shutil.copytree(CHECKOUT / "apache", prefix / "share" / "lbadaptor")
    site = prefix / "lib" / f"python{sys.version_info[0]}.{sys.version_info[1]}" / "site-packages"
    for package in httpd.PACKAGES:
        spec = find_spec(package)
        if spec is not None and spec.origin is not None:
            hidden = shutil.ignore_patterns("__pycache__")
            shutil.copytree(Path(spec.origin).parent, site / package, ignore=hidden)
    for path in (prefix, *prefix.rglob("*")):
        path.chmod(0o755)
    return prefix / "share" / "lbadaptor"
