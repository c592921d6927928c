"""A whole lbadaptor for tests: a real monitor, its AppServers, and private Apache httpds before them.

Whatever a test does to it, `Cluster.stop` sees to it, and asserts, that no process and no file is left.
"""

from __future__ import annotations

import contextlib
import grp
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

from lbadaptor.adaptor.backends import MAX_TABLE_AGE
from lbadaptor.contract.address import Entry, Table, parse
from lbadaptor.contract.settings import NO_NUMBER, load
from lbadaptor.contract.ticket import make_keys
from monitor.contract.client import NoAnswer, ask
from monitor.demo import httpd
from tests.apache.resources import TIMEOUT, eventually, listens, processes_of, short_folder
from tests.apache.visitors import Gate, Site, raw
from tests.apache.visitors import Load as Load  # who has a cluster has visitors
from tests.apache.visitors import Visitor as Visitor
from tests.ports import free_ports, give_back

APPS = Path(__file__).parents[1] / "apps"
LBCTL = Path(sys.executable).with_name("lbctl")
INSTALLATIONS = ("debian", "pypi")
WSGI_SITES = [f"{mode}-{name}" for mode in ("embedded", "daemon") for name in INSTALLATIONS]
ADAPTOR_SITES = [*WSGI_SITES, "cgi-debian"]
"""How Apache runs the adaptor, and whose mod_wsgi it has loaded."""
LANES = ["embedded-debian", "fast-debian"]
"""The Python lane; and the fast lane, beside the adaptor in embedded mode."""
SITES = [*ADAPTOR_SITES, "fast-debian"]
FAILS_ON_PURPOSE = "RuntimeError: this answer breaks off"
"""The end of a traceback of the applications in tests/apps."""
FOUND = re.compile(r"AssertionError|WSGIWarning: (?!Unknown REQUEST_METHOD)")
"""What the lints say, but for their knowing fewer methods than there are."""
TAKEN = 'CustomLog {log} "%<{{LBADAPTOR_GENERATION}}e"'
"""Logs for each request the generation that the fast lane has sent it to, or `-`. `<`: also if the AppServer did not
answer, and the Python lane took over."""
SNIPPETS = {"embedded": "lbadaptor.conf", "daemon": "lbadaptor-daemon.conf", "cgi": "lbadaptor-cgi.conf"}


LINTED = """#!/usr/bin/env python3
import runpy, sys
sys.dont_write_bytecode = True
sys.path.insert(0, {apps!r})
from linted import linted
application = linted(runpy.run_path({wsgi!r})["application"])
"""
LINTED_CGI = """
import lbadaptor.adaptor.cgi
lbadaptor.adaptor.cgi.application = application
lbadaptor.adaptor.cgi.main()
"""
"""The installed scripts with the lints around the adaptor."""


def apache(name: str) -> httpd.Apache:
    """The installation with Debian's or PyPI's mod_wsgi. Fails the test where it is missing."""
    for found in httpd.installed():
        if ("site-packages" in str(found.mod_wsgi)) == (name == "pypi"):
            return found
    pytest.fail(f"there is no Apache with {name}'s mod_wsgi; `make test` as root installs both")


class Cluster:
    """A monitor with its AppServers. `start`, any number of `site`s, `stop`.

    `settings` are sections of lbadaptor.toml, which go over those that every test has. With `lint`, wsgiref.validate
    and WebTest's lint stand around the application within its AppServers.
    """

    def __init__(
        self,
        folder: Path,
        app: str = "visits:application",
        cookie: str = "sid",
        lint: bool = False,
        **settings: Any,
    ) -> None:
        self.folder = folder
        self._linted = app if lint else ""
        self.config = folder / "lbadaptor.toml"
        self.gates = folder / "gates"
        self.temporary = folder / "tmp"
        self._process: subprocess.Popen[bytes] | None = None
        self._sites: list[httpd.Httpd] = []
        self._ports: list[int] = []
        """those of its sites"""
        self._fast: list[tuple[Site, Path]] = []
        """with a log of which requests took the fast lane"""
        self._sessions: set[int] = set()
        self._gates: list[Gate] = []
        self._said = folder / "monitor.log"
        for name in ("run", "gates", "tmp"):
            (folder / name).mkdir()
            (folder / name).chmod(0o711)
        self.temporary.chmod(0o1777)
        shutil.copytree(APPS, folder / "apps", ignore=shutil.ignore_patterns("__pycache__"))
        _copy_lint(folder / "apps")
        for place in ((folder / "apps"), *(folder / "apps").rglob("*")):
            place.chmod(0o755)
        sections: dict[str, dict[str, Any]] = {
            "application": {"app": "linted:application" if lint else app, "session_cookie": cookie},
            "files": {"run_folder": "run", "key_file": "run/keys", "apache_group": httpd.apache_group()},
            "appservers": {"servers": 4},
            "adaptor": {},
            "monitor": {"probe_interval": 0.1},
            "sessions": {"folder": str(folder / "sessions")},
            "machine": {},
        }
        for name, section in settings.items():
            sections[name].update(section)
        servers = sections["appservers"]
        servers["base_port"] = free_ports(servers.get("slots") or 4 * servers["servers"])
        with self.config.open("w") as file:
            for name, section in sections.items():
                file.write(f"[{name}]\n")
                file.writelines(f"{key} = {_toml(value)}\n" for key, value in section.items())
        self.config.chmod(0o644)
        self.settings = load(self.config)
        if self.settings.machine.number != NO_NUMBER:
            group = httpd.apache_group()
            make_keys(self.settings.key_file, grp.getgrnam(group).gr_gid if group else None)
        self.address_file = self.settings.address_file

    def start(self) -> None:
        """Start, and wait until all AppServers are OK, and orders can be given."""
        environment = {
            **os.environ,
            "PYTHONPATH": str(self.folder / "apps"),
            "VISITS_GATES": str(self.gates),
            "TMPDIR": str(self.temporary),
            "LBADAPTOR_TEST": str(self.folder),
        }
        if self._linted:
            environment["LINTED"] = self._linted
        with self._said.open("ab") as said:
            self._process = subprocess.Popen(
                [*httpd.dies_with_us(), sys.executable, "-I", "-B", "-m", "monitor", "--config", str(self.config)],
                stdin=subprocess.DEVNULL,
                stdout=said,
                stderr=said,
                cwd=self.folder,
                env=environment,
                start_new_session=True,
            )
        begins = not self._sessions
        self._sessions.add(self._process.pid)
        self.await_ok()
        if begins:  # it is written after address.text: without it, the first request might take the Python lane
            eventually("first visits may take the fast lane", self._available)

        def answers() -> bool:
            with contextlib.suppress(NoAnswer):
                return bool(self.status())
            return False

        eventually("the console answers", answers)

    def site(
        self,
        name: str,
        mount: str = "",
        extra: str = "",
        lint: bool | None = None,
        snippet: Path | None = None,
        fast_lane: int = 0,
        modules: Sequence[str] = (),
    ) -> Site:
        """Another httpd before it, as one of SITES says; or with a snippet of the test's own.

        `lint`: whether the lints stand around the adaptor; None: if they do around the application.
        `fast_lane`: slots that it leads to; `fast` in the name: to all, and `stop` asserts that it was taken.
        `modules`: what Apache loads besides.
        """
        mode, _, installation = name.partition("-")
        lanes = self.folder / f"lanes{len(self._fast)}"
        if mode == "fast":
            mode, fast_lane = "embedded", self.settings.slots
            extra += "\n" + TAKEN.format(log=lanes)
        folder = self.folder / f"httpd{len(self._sites)}"
        folder.mkdir()
        folder.chmod(0o711)
        lint = bool(self._linted) if lint is None else lint
        if snippet is None:
            snippet = self._lint_snippet(folder, SNIPPETS[mode]) if lint else Path(SNIPPETS[mode])
        self._ports.append(port := free_ports())
        server = httpd.Httpd(
            apache(installation), folder, port, snippet, self.config, mount, extra, fast_lane, modules
        )
        if lint:
            self._write_lint(folder)
        self.begin(server)
        site = Site(self, server, mode, mount, bool(fast_lane))
        if name.startswith("fast"):
            self._fast.append((site, lanes))
        return site

    def begin(self, server: httpd.Httpd) -> None:
        """Start an httpd; `stop` stops it."""
        self._sites.append(server)
        server.start()
        self._sessions.add(server.pid)

    def _lint_snippet(self, folder: Path, snippet: str) -> Path:
        """A snippet that includes an installed one, its scripts being ours."""
        path = folder / "linted.conf"
        path.write_text(f"Define LBADAPTOR_SHARE {folder / 'linted'}\nInclude {httpd.SHARE / snippet}\n")
        return path

    def _write_lint(self, folder: Path) -> None:
        """The scripts, each around the installed one."""
        copy = folder / "readable" / "share" / "lbadaptor"
        share = copy if copy.exists() else httpd.SHARE
        text = LINTED.format(apps=str(self.folder / "apps"), wsgi=str(share / "lbadaptor.wsgi"))
        scripts = folder / "linted"
        scripts.mkdir()
        shutil.copy(share / "lbadaptor-log.conf", scripts)  # the snippets look for it beside the scripts
        for name, end in (("lbadaptor.wsgi", ""), ("lbadaptor.cgi", LINTED_CGI)):
            script = scripts / name
            script.write_text(text + end)
            script.chmod(0o755)
        scripts.chmod(0o755)

    def gate(self) -> Gate:
        gate = Gate(self.gates, f"gate{len(self._gates)}")
        self._gates.append(gate)
        return gate

    @property
    def monitor_pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    def said(self) -> str:
        """What the monitor and its AppServers logged."""
        return self._said.read_text(errors="replace")

    def await_said(self, text: str) -> None:
        """Wait for what an AppServer logs: the watcher forwards it a little later."""
        eventually(f"it says {text!r}", lambda: text in self.said())

    def table(self) -> Table:
        """address.text as of now."""
        return parse(self.address_file.read_text())

    def entry(self, ticket: str | None) -> Entry | None:
        return self.table().by_ticket.get(ticket or "")

    def status(self) -> dict[str, Any]:
        return ask(self.settings.control_socket)

    def await_ok(self) -> Table:
        """Wait until as many AppServers as asked for are OK.

        Each has to listen, too: the monitor may not have noticed yet that one is dead.
        """

        def look() -> Table | None:
            assert self._process is not None
            assert self._process.poll() is None, self.said()
            with contextlib.suppress(FileNotFoundError):
                table = self.table()
                enough = len(table.ok) >= self.settings.appservers.servers
                return table if enough and all(listens(entry.address) for entry in table.ok) else None
            return None

        table: Table = eventually("all AppServers are OK", look)
        return table

    def _available(self) -> bool:
        """Whether available.text names as many AppServers as asked for."""
        with contextlib.suppress(FileNotFoundError):
            lines = self.settings.available_file.read_text().splitlines()
            return sum(line[:1].isdigit() for line in lines) >= self.settings.appservers.servers
        return False

    def led_to(self) -> set[str]:
        """The slots that Apache itself leads first visits to, by a file that is written after address.text."""
        found = re.search(r"^\w+ +([\d|]+)$", self.settings.available_file.read_text(), re.MULTILINE)
        return set(found[1].split("|")) if found else set()

    def _visit_fast_lanes(self) -> None:
        """Where no request has taken the fast lane so far, one does that brings a ticket.

        A test may have seen a death: for half a minute after it, no first visit may take the fast lane.
        """
        for site, log in self._fast:
            with contextlib.suppress(OSError):
                if not _taken(log) and (ok := self.table().ok):
                    ticket = f"{self.settings.application.ticket_cookie}={ok[0].ticket}"
                    raw(site, f"{site.mount}/", headers={"Cookie": ticket})

    def lbctl(self, *words: str) -> str:
        """Call lbctl as people do. Fails the test where it fails."""
        command = [str(LBCTL), "--config", str(self.config), *words]
        done = subprocess.run(command, capture_output=True, text=True, timeout=TIMEOUT, check=False)
        assert done.returncode == 0, done.stderr
        return done.stdout

    @contextlib.contextmanager
    def stopped_monitor(self) -> Iterator[None]:
        """As long as the monitor is held, address.text is whatever the test writes."""
        os.kill(self.monitor_pid, signal.SIGSTOP)
        try:
            eventually("the monitor is held", lambda: _state(self.monitor_pid) == "T")
            yield
        finally:
            os.kill(self.monitor_pid, signal.SIGCONT)

    def write_addresses(self, text: str | bytes | None) -> None:
        """Put another address.text in place of the monitor's, as a careless hand would; None takes it away.

        Then every adaptor's next look is at it.
        """
        if text is None:
            self.address_file.unlink()
        else:
            beside = self.address_file.with_name("by-hand")
            beside.write_bytes(text.encode() if isinstance(text, str) else text)
            beside.chmod(0o644)
            beside.rename(self.address_file)
        time.sleep(MAX_TABLE_AGE)

    def order_to_stop(self) -> None:
        """Order the monitor to end all AppServers and itself; the httpds stay. `start` begins anew."""
        assert self._process is not None
        self._process.terminate()

    def kill_monitor(self) -> None:
        """SIGKILL for the monitor. `start` begins anew."""
        assert self._process is not None
        self._process.kill()
        self._process.wait(TIMEOUT)

    def await_end(self) -> None:
        """Wait until the monitor has ended."""
        assert self._process is not None
        assert self._process.wait(TIMEOUT) == 0, self.said()

    def stop(self) -> None:
        """End everything in order, and assert that nothing is left."""
        for gate in self._gates:
            gate.open()
        self._visit_fast_lanes()
        status = None
        if self._process is not None:
            self._process.terminate()
        if self._sites:
            with ThreadPoolExecutor(len(self._sites)) as stopping:  # each waits for its processes
                list(stopping.map(httpd.Httpd.stop, self._sites))
        if self._process is not None:
            status = self._process.wait(TIMEOUT)
        left = processes_of(self.folder, frozenset(self._sessions))
        for pid in left:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        assert not left, f"processes are left: {left}\n{self.said()}"
        for first in (self.settings.appservers.base_port, *self._ports):
            give_back(first)
        assert status in (0, None), self.said()
        for _, log in self._fast:
            assert _taken(log), "no request took the fast lane"
        assert list(self.temporary.iterdir()) == []
        for said in (self._said, *(server.error_log for server in self._sites)):
            assert not said.exists() or not FOUND.search(said.read_text(errors="replace")), said.read_text()
        left_files = {path.name: path for path in self.settings.run_folder.iterdir() if path.name != "events.jsonl"}
        secrets = {"available.text", "callerkeys.text"}
        assert left_files.keys() <= {"address.text", "keys", "logs", "monitor.pid"} | secrets
        for name in secrets & left_files.keys():
            assert left_files[name].read_text().count("\n") == 1, f"{name}: a key is left"
        failures = self.said().count("Traceback") - self.said().count(FAILS_ON_PURPOSE)
        assert failures == 0, self.said()


@contextlib.contextmanager
def running_cluster(**settings: Any) -> Iterator[Cluster]:
    """A running cluster."""
    with short_folder() as folder:
        made = Cluster(folder, **settings)
        try:
            made.start()
            yield made
        finally:
            made.stop()


def _copy_lint(folder: Path) -> None:
    """WebTest's lint without the rest of WebTest, where Apache's user and any Python can read it."""
    spec = find_spec("webtest")
    assert spec is not None
    assert spec.origin is not None
    package = folder / "webtest"
    package.mkdir()
    (package / "__init__.py").touch()
    for name in ("lint.py", "compat.py"):
        shutil.copy(Path(spec.origin).with_name(name), package)


def _taken(log: Path) -> bool:
    """Whether any request has taken the fast lane (TAKEN)."""
    return re.search(r"\d", log.read_text()) is not None


def _state(pid: int) -> str:
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]


def _toml(value: Any) -> str:
    if isinstance(value, str):
        return '"' + re.sub(r'(["\\])', r"\\\1", value) + '"'
    return str(value).lower() if isinstance(value, bool) else str(value)
