"""The same load and the same kills, side by side: lbadaptor, and Apache's mod_proxy_balancer with gunicorn.

    .venv/bin/python tests/bench/failover.py [--seconds 60] [--seed 7]

Six processes with sessions in memory; every five seconds one of them is killed with SIGKILL. The balancer has
`stickysession`, `retry=1` (its default leaves a backend out for a minute), and backends that keep connections
for longer than it does. Its backends are gunicorns of one worker: either the whole gunicorn is killed, and a
supervisor starts it anew at once; or the worker alone, which its own master starts anew. Without an installed
gunicorn one is installed into a temporary environment.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib.util
import os
import random
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlencode

from tests.ports import free_ports

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT))

from monitor.demo import httpd  # noqa: E402
from tests.apache.cluster import processes_of, short_folder  # noqa: E402
from tests.torture.application import COOKIE  # noqa: E402
from tests.torture.clients import Line, told_in  # noqa: E402
from tests.torture.records import Outcome  # noqa: E402
from tests.torture.stage import PACKAGE, SERVERS, SETTINGS, SLOTS, Stage, children  # noqa: E402

VISITORS = 20
VISITS = (10, 50)
"""in a session, from and to; visitors in step would all go to one backend, and to the next"""
KILL_PAUSE = 5.0
WARM_UP = 2.0
START_TIMEOUT = 30.0

PLAIN = {name: SETTINGS[name] for name in ("application", "files")} | {
    "appservers": {"servers": SERVERS, "slots": SLOTS}
}
"""lbadaptor's settings: its defaults."""

BALANCER = """
LoadModule proxy_module {modules}/mod_proxy.so
LoadModule proxy_http_module {modules}/mod_proxy_http.so
LoadModule proxy_balancer_module {modules}/mod_proxy_balancer.so
LoadModule lbmethod_byrequests_module {modules}/mod_lbmethod_byrequests.so
LoadModule slotmem_shm_module {modules}/mod_slotmem_shm.so
LoadModule headers_module {modules}/mod_headers.so
<Proxy balancer://app>
{members}
    ProxySet stickysession=ROUTE
    Require all granted
</Proxy>
Header add Set-Cookie "ROUTE=.%{{BALANCER_WORKER_ROUTE}}e; path=/" env=BALANCER_ROUTE_CHANGED
ProxyPass / balancer://app/
"""


@dataclass
class Result:
    """What the visitors met."""

    requests: int = 0
    failed: dict[str, int] = field(default_factory=lambda: {"GET": 0, "POST": 0})
    sessions: int = 0
    lost: int = 0
    """sessions that were gone"""
    said: int = 0
    """of these, where the application was told so"""
    needless: int = 0
    """of these, where its process was alive"""
    kills: list[float] = field(default_factory=list)
    killed: set[int] = field(default_factory=set)
    first_seen: dict[int, float] = field(default_factory=dict)
    """when a process answered for the first time"""

    def strength(self) -> list[float]:
        """For each kill the seconds until a process that was not there before has answered a visitor."""
        found = []
        for kill, following in zip(self.kills, [*self.kills[1:], self.kills[-1] + KILL_PAUSE], strict=True):
            newcomers = [at for at in self.first_seen.values() if kill < at < following]
            found.append(min(newcomers) - kill if newcomers else float("inf"))
        return found


class Load:
    """Visitors who come all the time; use it as a context."""

    def __init__(self, port: int, result: Result) -> None:
        self._port = port
        self._result = result
        self._lock = threading.Lock()
        self._over = threading.Event()
        self._threads = [threading.Thread(target=self._come, args=(number,)) for number in range(VISITORS)]

    def __enter__(self) -> Load:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        for thread in self._threads:
            thread.join()

    def _come(self, number: int) -> None:
        chance = random.Random(number)
        line = Line(self._port, keep=True)
        count = 0
        with contextlib.closing(line):
            while not self._over.is_set():
                cookies: dict[str, str] = {}
                holder = 0
                for visit in range(chance.randint(*VISITS)):
                    count += 1
                    holder = self._visit(line, f"v{number}-{count}", "POST" if visit % 2 else "GET", cookies, holder)
                    if self._over.wait(chance.uniform(0.0, 0.03)):
                        break
                self._visit(line, f"v{number}-end{count}", "POST", cookies, 0, page="logout")

    def _visit(
        self, line: Line, name: str, method: str, cookies: dict[str, str], holder: int, page: str = "visit"
    ) -> int:
        """One visit; the pid of the process that holds the session after it."""
        headers = {"Cookie": "; ".join(f"{key}={value}" for key, value in cookies.items())} if cookies else {}
        brought = COOKIE in cookies
        query = urlencode({"n": name, "size": 100, "body": 0, "wait": 0.02})
        answer = line.exchange(method, f"/{page}?{query}", headers, None, 0.0, False)
        told = told_in(answer)
        with self._lock:
            result = self._result
            result.requests += 1
            if answer.outcome is not Outcome.ANSWERED or answer.status != 200 or told is None:
                result.failed[method] += 1
                return holder
            assert answer.headers is not None
            for text in answer.headers.get_all("Set-Cookie") or []:
                key, _, value = text.partition(";")[0].partition("=")
                cookies[key] = value
            result.first_seen.setdefault(told.process.pid, time.monotonic())
            if page == "visit":
                result.sessions += told.new
                if told.new and brought and holder:
                    result.lost += 1
                    result.said += told.lost
                    result.needless += holder not in result.killed
        return told.process.pid


@contextlib.contextmanager
def ours(folder: Path) -> Iterator[tuple[int, Callable[[random.Random], set[int]]]]:
    stage = Stage(folder, PLAIN)
    try:
        stage.start()

        def kill(chance: random.Random) -> set[int]:
            _, process = chance.choice(stage.appservers())
            os.kill(process.pid, signal.SIGKILL)
            return {process.pid}

        yield stage.httpd.port, kill
    finally:
        if left := stage.stop():
            print("left behind:", *left, sep="\n  ")


class Gunicorns:
    """Backends, each started anew as soon as it is over. The application is imported from `folder`/apps."""

    def __init__(
        self, python: str, folder: Path, servers: int = SERVERS, application: str = "application:application"
    ) -> None:
        self.ports = range(first := free_ports(servers), first + servers)
        self._python = python
        self._folder = folder
        self._application = application
        self._processes: dict[int, subprocess.Popen[bytes]] = {}
        self._over = False
        self._threads = [threading.Thread(target=self._supervise, args=(port,)) for port in self.ports]
        for thread in self._threads:
            thread.start()

    def masters(self) -> list[int]:
        return [process.pid for process in self._processes.values() if process.poll() is None]

    def workers(self) -> list[int]:
        return [pid for master in self.masters() for pid in children(master)]

    def stop(self) -> None:
        self._over = True
        for process in self._processes.values():
            process.terminate()
        for thread in self._threads:
            thread.join()

    def _supervise(self, port: int) -> None:
        executed = self._folder / "executed"
        command = [self._python, "-m", "gunicorn", "--bind", f"127.0.0.1:{port}", "--workers", "1", "--threads", "8"]
        command += ["--keep-alive", "75", "--no-control-socket", self._application]
        with (self._folder / "gunicorn.log").open("ab") as log:
            while not self._over:
                self._processes[port] = process = subprocess.Popen(
                    command,
                    cwd=self._folder / "apps",
                    env={**os.environ, "TORTURE_EXECUTED": str(executed)},
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=log,
                    start_new_session=True,
                )
                process.wait()


@contextlib.contextmanager
def theirs(folder: Path, python: str, whole: bool) -> Iterator[tuple[int, Callable[[random.Random], set[int]]]]:
    stage = Stage(folder, PLAIN)  # for its folders alone
    gunicorns = Gunicorns(python, folder, application=f"{PACKAGE}.application:application")
    installation = httpd.find()
    members = "\n".join(
        f"    BalancerMember http://127.0.0.1:{port} route=w{number} retry=1 ttl=60"
        for number, port in enumerate(gunicorns.ports)
    )
    extra = BALANCER.format(modules=installation.modules, members=members)
    server = httpd.Httpd(
        installation, folder / "httpd", free_ports(), "lbadaptor.conf", stage.config, "/unused", extra
    )

    def kill(chance: random.Random) -> set[int]:
        if not whole:
            worker = chance.choice(gunicorns.workers())
            os.kill(worker, signal.SIGKILL)
            return {worker}
        master = chance.choice(gunicorns.masters())
        pids = {master, *children(master)}
        os.killpg(master, signal.SIGKILL)
        return pids

    try:
        deadline = time.monotonic() + START_TIMEOUT
        while len(gunicorns.workers()) < SERVERS:
            if time.monotonic() > deadline:
                raise SystemExit(f"gunicorn does not start:\n{(folder / 'gunicorn.log').read_text()[-2000:]}")
            time.sleep(0.1)
        time.sleep(WARM_UP)
        server.start()
        yield server.port, kill
    finally:
        server.stop()
        gunicorns.stop()
        for pid in processes_of(folder):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)


def measure(port: int, kill: Callable[[random.Random], set[int]], seconds: float, seed: int) -> Result:
    """Load for so many seconds, with a kill every few."""
    result = Result()
    chance = random.Random(seed)
    with Load(port, result):
        time.sleep(WARM_UP)
        end = time.monotonic() + seconds
        while time.monotonic() + KILL_PAUSE <= end:
            result.kills.append(time.monotonic())
            result.killed |= kill(chance)
            time.sleep(KILL_PAUSE)
    return result


@contextlib.contextmanager
def gunicorn_python() -> Iterator[str]:
    """A Python that has gunicorn."""
    if importlib.util.find_spec("gunicorn"):
        yield sys.executable
        return
    with tempfile.TemporaryDirectory(prefix="lbt-gunicorn-") as place:
        python = f"{place}/bin/python"
        subprocess.run([sys.executable, "-m", "venv", place], check=True)
        pip = [python, "-m", "pip", "--disable-pip-version-check", "--quiet", "--no-cache-dir", "install"]
        subprocess.run([*pip, "gunicorn"], check=True)
        yield python


def table(results: dict[str, Result]) -> str:
    """Side by side."""
    rows = [["", *results]]

    def row(name: str, value: Callable[[Result], object]) -> None:
        rows.append([name, *(str(value(result)) for result in results.values())])

    row("kills", lambda result: len(result.kills))
    row("requests", lambda result: result.requests)
    row("failed requests", lambda result: sum(result.failed.values()))
    row("  GET", lambda result: result.failed["GET"])
    row("  POST", lambda result: result.failed["POST"])
    row("sessions", lambda result: result.sessions)
    row("lost sessions", lambda result: result.lost)
    row("  of processes that lived", lambda result: result.needless)
    row("  and the application was told", lambda result: result.said)
    row("full strength after, middle", lambda result: _seconds(sorted(result.strength())[len(result.kills) // 2]))
    row("full strength after, longest", lambda result: _seconds(max(result.strength())))
    widths = [max(len(line[column]) for line in rows) for column in range(len(rows[0]))]
    return "\n".join(
        "  ".join(
            (line[0].ljust(widths[0]), *(text.rjust(width) for text, width in zip(line[1:], widths[1:], strict=True)))
        )
        for line in rows
    )


def _seconds(value: float) -> str:
    return f"over {KILL_PAUSE:.0f} s" if value == float("inf") else f"{value:.2f} s"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--seed", type=int, default=7)
    options = parser.parse_args()
    results = {}
    with gunicorn_python() as python:
        for name, place in (
            ("lbadaptor", ours),
            ("balancer, gunicorn killed", lambda folder: theirs(folder, python, whole=True)),
            ("balancer, its worker killed", lambda folder: theirs(folder, python, whole=False)),
        ):
            print(f"{name} … {options.seconds:.0f} s", file=sys.stderr, flush=True)
            with short_folder() as folder, place(folder) as (port, kill):
                results[name] = measure(port, kill, options.seconds, options.seed)
    print(table(results))
    return 0


if __name__ == "__main__":
    sys.exit(main())
