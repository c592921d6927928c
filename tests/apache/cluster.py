"""A whole lbadaptor for tests: a real monitor, its AppServers, and private Apache httpds before them.

Whatever a test does to it, `Cluster.stop` sees to it, and asserts, that no process and no file is left.
"""

from __future__ import annotations

import contextlib
import os
import random
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import requests

from lbadaptor.adaptor.backends import MAX_TABLE_AGE
from lbadaptor.contract.address import Entry, Table, parse
from lbadaptor.contract.settings import load
from monitor.contract.client import NoAnswer, ask
from monitor.demo import httpd

APPS = Path(__file__).parents[1] / "apps"
LBCTL = Path(sys.executable).with_name("lbctl")
TIMEOUT = 30.0
"""Seconds that anything here may take; nothing takes nearly as long."""
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
TAKEN = 'CustomLog {log} "%{{LBADAPTOR_GENERATION}}e"'
"""Logs for each request the generation that the fast lane has sent it to, or `-`."""
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


_LANE = 2300
"""Ports that one process of a parallel run takes its own from, below those of outgoing connections."""
_FIRST = 12000 + _LANE * (int(os.environ.get("PYTEST_XDIST_WORKER", "gw0")[2:]) % 8)
_given: set[int] = set()


def free_ports(count: int = 1) -> int:
    """The first of so many ports in a row that nobody listens on, nor was given before."""
    for _ in range(200):
        first = random.randrange(_FIRST, _FIRST + _LANE - count)
        ports = range(first, first + count)
        if not _given.isdisjoint(ports):
            continue
        with contextlib.ExitStack() as trials:
            try:
                for port in ports:
                    trial = trials.enter_context(socket.socket())
                    trial.bind(("127.0.0.1", port))
            except OSError:
                continue
            _given.update(ports)
            return first
    raise AssertionError("no free ports")


def eventually(what: str, look: Callable[[], Any], timeout: float = TIMEOUT) -> Any:
    """What `look` returns as soon as that is true."""
    deadline = time.monotonic() + timeout
    while not (found := look()):
        assert time.monotonic() < deadline, f"not within {timeout:.0f} s: {what}"
        time.sleep(0.005)
    return found


@contextlib.contextmanager
def short_folder() -> Iterator[Path]:
    """A folder in /tmp that everybody may enter, and whose name is short enough for sockets."""
    folder = Path(tempfile.mkdtemp(prefix="lbt-", dir="/tmp"))
    folder.chmod(0o711)
    try:
        yield folder
    finally:
        shutil.rmtree(folder)


def processes_of(folder: Path, sessions: frozenset[int] = frozenset()) -> dict[int, str]:
    """Living processes that have to do with a folder: by command, environment, open files, or kernel session."""
    name = str(folder).encode()
    found = {}
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit() or int(entry.name) == os.getpid():
            continue
        with contextlib.suppress(OSError):
            state, *fields = (entry / "stat").read_text().rpartition(")")[2].split()
            if state == "Z":
                continue
            command = (entry / "cmdline").read_bytes()
            traces = [command]
            with contextlib.suppress(PermissionError):
                traces.append((entry / "environ").read_bytes())
                for link in (entry / "fd").iterdir():
                    with contextlib.suppress(OSError):
                        traces.append(os.readlink(link).encode())
            if any(name in trace for trace in traces) or int(fields[2]) in sessions:
                found[int(entry.name)] = command.replace(b"\0", b" ").decode(errors="replace")
    return found


class Gate:
    """A page of the application waits at it, until it is opened."""

    def __init__(self, folder: Path, name: str) -> None:
        self.name = name
        self._path = folder / name
        self._descriptor: int | None = None
        os.mkfifo(self._path)
        self._path.chmod(0o666)

    def reached(self) -> None:
        """Wait until the application is there."""

        def look() -> bool:
            try:
                descriptor = os.open(self._path, os.O_WRONLY | os.O_NONBLOCK)
            except OSError:  # ENXIO: nobody reads
                return False
            if self._descriptor is not None:
                os.close(self._descriptor)
            self._descriptor = descriptor
            return True

        eventually("the application is at the gate", look)

    def open(self) -> None:
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None
        self._path.unlink(missing_ok=True)


class Site:
    """One private httpd before a cluster."""

    def __init__(self, cluster: Cluster, server: httpd.Httpd, mode: str, mount: str, fast: bool) -> None:
        self.cluster = cluster
        self.httpd = server
        self.mode = mode
        """how it runs the adaptor"""
        self.fast = fast
        """it has a fast lane"""
        self.port = server.port
        self.url = f"http://127.0.0.1:{server.port}{mount}"

    def visitor(self) -> Visitor:
        return Visitor(self.url, self.fast)

    def visitors(self, count: int) -> list[Visitor]:
        """So many visitors with a session, each at an AppServer of their own."""
        visitors: dict[int, Visitor] = {}
        for _ in range(200):
            visitor = self.visitor()
            pid = visitor.count()["pid"]
            if visitors.setdefault(pid, visitor) is not visitor:
                visitor.tell("logout")
                visitor.close()
            if len(visitors) == count:
                return list(visitors.values())
        raise AssertionError(f"200 visitors came to only {len(visitors)} AppServers")

    def log(self) -> str:
        return self.httpd.error_log.read_text(errors="replace")


class Visitor:
    """A browser: it keeps cookies, and here and there it has a session.

    `repeats`: it sends a GET again where Apache has closed a connection that is not its first request's, as browsers
    do: by this the fast lane says that it has lost the AppServer (docs/reference/fast-lane.md).
    """

    def __init__(self, url: str, repeats: bool = False) -> None:
        self.url = url
        self._repeats = repeats
        self._answered = False
        self.visits = 0
        self.http = requests.Session()
        self.http.trust_env = False

    def get(self, page: str, method: str = "GET", **options: Any) -> requests.Response:
        options.setdefault("timeout", TIMEOUT)
        url = f"{self.url}/{page}"
        try:
            answer = self.http.request(method, url, **options)
        except requests.ConnectionError:
            if not (self._repeats and self._answered and method in ("GET", "HEAD")):
                raise
            answer = self.http.request(method, url, **options)
        self._answered = True
        return answer

    def tell(self, page: str, **options: Any) -> dict[str, Any]:
        """The content of a page that has to be there."""
        answer = self.get(page, **options)
        assert answer.status_code == 200, f"{answer.status_code} {answer.reason}: {answer.text[:200]}"
        content: dict[str, Any] = answer.json()
        return content

    def count(self, **options: Any) -> dict[str, Any]:
        """Another visit, which has to be counted on in the session."""
        told = self.tell("count", **options)
        self.visits += 1
        assert told["visits"] == self.visits
        return told

    def forget(self) -> None:
        """The session is over."""
        self.visits = 0

    @property
    def ticket(self) -> str | None:
        return self.http.cookies.get("__PRT__")

    def close(self) -> None:
        self.http.close()


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
        self._fast: list[Path] = []
        """the logs of which requests took a fast lane"""
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
        self._sessions.add(self._process.pid)
        self.await_ok()

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
    ) -> Site:
        """Another httpd before it, as one of SITES says; or with a snippet of the test's own.

        `lint`: whether the lints stand around the adaptor; None: if they do around the application.
        `fast_lane`: slots that it leads to; `fast` in the name: to all, and `stop` asserts that it was taken.
        """
        mode, _, installation = name.partition("-")
        if mode == "fast":
            mode, fast_lane = "embedded", self.settings.slots
            self._fast.append(self.folder / f"lanes{len(self._fast)}")
            extra += "\n" + TAKEN.format(log=self._fast[-1])
        folder = self.folder / f"httpd{len(self._sites)}"
        folder.mkdir()
        folder.chmod(0o711)
        lint = bool(self._linted) if lint is None else lint
        if snippet is None:
            snippet = self._lint_snippet(folder, SNIPPETS[mode]) if lint else Path(SNIPPETS[mode])
        server = httpd.Httpd(
            apache(installation), folder, free_ports(), snippet, self.config, mount, extra, fast_lane
        )
        if lint:
            self._write_lint(folder)
        self._sites.append(server)
        server.start()
        self._sessions.add(server.pid)
        return Site(self, server, mode, mount, bool(fast_lane))

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

    def table(self) -> Table:
        """address.text as of now."""
        return parse(self.address_file.read_text())

    def entry(self, ticket: str | None) -> Entry | None:
        return self.table().by_ticket.get(ticket or "")

    def status(self) -> dict[str, Any]:
        return ask(self.settings.control_socket)

    def await_ok(self) -> Table:
        """Wait until as many AppServers as asked for are OK."""

        def look() -> Table | None:
            assert self._process is not None
            assert self._process.poll() is None, self.said()
            with contextlib.suppress(FileNotFoundError):
                table = self.table()
                return table if len(table.ok) >= self.settings.appservers.servers else None
            return None

        table: Table = eventually("all AppServers are OK", look)
        return table

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
        assert status in (0, None), self.said()
        for log in self._fast:
            assert re.search(r"\d", log.read_text()), "no request took the fast lane"
        assert list(self.temporary.iterdir()) == []
        for said in (self._said, *(server.error_log for server in self._sites)):
            assert not said.exists() or not FOUND.search(said.read_text(errors="replace")), said.read_text()
        left_files = {path.name: path for path in self.settings.run_folder.iterdir() if path.name != "events.jsonl"}
        secrets = {"available.text", "callerkeys.text"}
        assert left_files.keys() <= {"address.text", "keys", "monitor.pid"} | secrets
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


class Load:
    """Visitors who come all the time: GET and POST in turn, in sessions that last `length` visits.

    Each visit must be answered, and counted on. Use it as a context: it ends with it, and raises what went wrong.
    """

    def __init__(self, site: Site, visitors: int, length: int, keep_alive: bool = True) -> None:
        self.sessions = 0
        """sessions that ended in order"""
        self.visits = 0
        self._site = site
        self._length = length
        self._keep_alive = keep_alive
        self._over = threading.Event()
        self._failures: list[str] = []
        self._threads = [threading.Thread(target=self._come) for _ in range(visitors)]

    def __enter__(self) -> Load:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        for thread in self._threads:
            thread.join(TIMEOUT)
        assert not any(thread.is_alive() for thread in self._threads)
        assert self._failures == [], "\n".join([*self._failures, self._site.log()[-2000:], self._site.cluster.said()])

    def go_on(self, visits: int) -> None:
        """Wait until so many more visits were counted."""
        goal = self.visits + visits
        eventually("visitors go on", lambda: self.visits >= goal or self._failures)

    def _come(self) -> None:
        visitor = self._site.visitor()
        if not self._keep_alive:
            visitor.http.headers["Connection"] = "close"
        body = b"b" * 3000
        try:
            while not self._over.is_set():
                for number in range(self._length):
                    odd = number % 2
                    told = visitor.count(method="POST" if odd else "GET", data=body if odd else None)
                    assert told["body"] == (len(body) if odd else 0)
                    assert not told["lost"]
                    self.visits += 1
                assert visitor.tell("logout")["known"]
                visitor.forget()
                self.sessions += 1
        except Exception as error:
            self._failures.append(f"visit {visitor.visits + 1}: {type(error).__name__}: {error}")
        finally:
            visitor.close()


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


def _state(pid: int) -> str:
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]


def _toml(value: Any) -> str:
    if isinstance(value, str):
        return '"' + re.sub(r'(["\\])', r"\\\1", value) + '"'
    return str(value).lower() if isinstance(value, bool) else str(value)
