"""What becomes of sessions when the processes that hold them end: a release, and kills, under 16 visitors.

    python -m tests.bench.survival release kills

The same load, release and kills for lbadaptor, with sessions that survive and with sessions that do not, and for
Apache's mod_proxy_balancer before gunicorns. Everywhere 4 processes serve Flask with Flask-Session in memory.
"""

from __future__ import annotations

import contextlib
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from lbadaptor.contract.address import State
from monitor.demo import httpd
from tests.apache.cluster import LBCTL, Cluster, short_folder
from tests.ports import free_ports

from .build_others import BALANCER
from .failover import Gunicorns
from .load import LoadFailed
from .servers import apache, folder_of_application
from .session_site import COOKIES
from .visitors import Visitors

SERVERS = 4
FRAMEWORK = "flask"
APPLICATION = "session_site:application"
SYSTEMS = {
    "anything": 'lbadaptor, survive = "anything"',
    "nothing": 'lbadaptor, survive = "nothing"',
    "gunicorn": "mod_proxy_balancer, gunicorn",
}
KILLED_SESSIONS = 64
"""At the kills: few, so that each is in use all the time."""
QUIET = 2.0
"""Seconds under load before anything ends, and after."""
PATIENCE = 120.0
"""Seconds that a release may take beyond drain_limit."""
LOOK = 0.02
"""Seconds between two looks at the processes."""


def absent(name: str) -> str:
    """Why a system is not to be had here; empty: it is."""
    return "gunicorn is missing: pip install gunicorn" if name == "gunicorn" and not find_spec(name) else ""


@dataclass(frozen=True)
class Effort:
    """How much is measured."""

    sessions: int
    """at the release"""
    kills: int
    pause: float
    """seconds between two kills"""
    drain_limit: float
    """seconds that an AppServer waits for the end of its sessions where they do not survive"""
    quiet: float = QUIET


@dataclass
class System:
    """What visitors come to. `holders`: the pids of the processes that hold sessions. `begun`: how many of those that
    replace others take visitors. `release` and `kill` block for a moment only."""

    port: int
    holders: Callable[[], set[int]]
    begun: Callable[[set[int]], int]
    release: Callable[[], object]
    kill: Callable[[random.Random], object]


def release(folder: Path, name: str, effort: Effort) -> dict[str, float]:
    """`gone_s`: seconds from the moment when all new processes take visitors until the last old one is gone.

    Raises LoadFailed.
    """
    with _system(folder, name, effort) as system:
        visitors = Visitors(system.port, effort.sessions)
        visitors.enter()
        old = system.holders()
        with visitors:
            time.sleep(effort.quiet)
            system.release()
            deadline = time.monotonic() + effort.drain_limit + PATIENCE
            begun = 0.0
            while left := old & system.holders():
                if not begun and system.begun(old) >= SERVERS:
                    begun = time.monotonic()
                if time.monotonic() > deadline:
                    raise LoadFailed(f"{name}: {len(left)} old processes are still there")
                time.sleep(LOOK)
            gone = time.monotonic()
            time.sleep(effort.quiet)
        found = _met(visitors, name)
        found |= {
            "gone_s": gone - (begun or gone),
            "sessions": effort.sessions,
            "lost": sum(session.was_lost for session in visitors.sessions),
        }
        return {f"release_{figure} {name}": float(value) for figure, value in found.items()}


def kills(folder: Path, name: str, effort: Effort) -> dict[str, float]:
    """SIGKILL for one process after another. Raises LoadFailed."""
    chance = random.Random(7)
    with _system(folder, name, effort) as system:
        visitors = Visitors(system.port, KILLED_SESSIONS)
        visitors.enter()
        with visitors:
            time.sleep(effort.quiet)
            for _ in range(effort.kills):
                system.kill(chance)
                time.sleep(effort.pause)
        found = _met(visitors, name)
        found |= {"number": effort.kills, "lost": visitors.met.lost}
        return {f"kills_{figure} {name}": float(value) for figure, value in found.items()}


def _met(visitors: Visitors, name: str) -> dict[str, float]:
    """What they have met, after one more look at each session."""
    met = visitors.met
    pause = met.longest
    visitors.look()
    if met.example:
        print(f"{name}: {sum(met.failed.values())} of {met.requests} failed, such as {met.example}", file=sys.stderr)
    return {
        "pause_s": pause,
        "requests": met.requests,
        "failed": sum(met.failed.values()),
        "failed_gets": met.failed["GET"],
    }


def _system(folder: Path, name: str, effort: Effort) -> contextlib.AbstractContextManager[System]:
    return _gunicorns(folder) if name == "gunicorn" else _lbadaptor(folder, name, effort.drain_limit)


@contextlib.contextmanager
def _lbadaptor(folder: Path, survive: str, drain_limit: float) -> Iterator[System]:
    with short_folder() as place, environment(SESSION_FRAMEWORK=FRAMEWORK):
        limit = {} if survive == "anything" else {"drain_limit": drain_limit}
        cluster = Cluster(
            place,
            APPLICATION,
            COOKIES[FRAMEWORK],
            appservers={"servers": SERVERS},
            monitor={"probe_interval": 1.0, **limit},
            sessions={"survive": survive},
        )
        shutil.copy(Path(__file__).with_name("session_site.py"), place / "apps")

        def holders() -> set[int]:
            return {server["pid"] for server in cluster.status()["appservers"] if server["pid"]}

        def begun(old: set[int]) -> int:
            servers = cluster.status()["appservers"]
            return sum(server["state"] == State.OK.value and server["pid"] not in old for server in servers)

        def release() -> None:
            command = [LBCTL, "--config", cluster.config, "restart"]
            orders.append(subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL))

        def kill(chance: random.Random) -> None:
            ok = [server["pid"] for server in cluster.status()["appservers"] if server["state"] == State.OK.value]
            os.kill(chance.choice(sorted(ok)), signal.SIGKILL)

        orders: list[subprocess.Popen[bytes]] = []
        try:
            cluster.start()
            mod_wsgi = "pypi" if "site-packages" in str(httpd.find().mod_wsgi) else "debian"
            yield System(cluster.site(f"embedded-{mod_wsgi}").port, holders, begun, release, kill)
        except AssertionError as error:
            raise LoadFailed(f"{survive}: {error}") from None
        finally:
            for order in orders:
                order.kill()
                order.wait()
            cluster.stop()


@contextlib.contextmanager
def _gunicorns(folder: Path) -> Iterator[System]:
    """A release is SIGHUP for each one, as its documentation says; a kill is one of a whole gunicorn."""
    apps = folder_of_application(folder)
    apps.rename(folder / "apps")
    (folder / "application").symlink_to("apps")
    shutil.copy(Path(__file__).with_name("session_site.py"), folder / "apps")
    home = folder / "run"
    home.mkdir()
    home.chmod(0o711)
    with environment(SESSION_FRAMEWORK=FRAMEWORK):
        gunicorns = Gunicorns(sys.executable, folder, SERVERS, APPLICATION)
        front = apache(home, free_ports(), httpd.find(), BALANCER, _balancer(gunicorns.ports))

        def holders() -> set[int]:
            return set(gunicorns.workers())

        def begun(old: set[int]) -> int:
            return len(holders() - old)

        def release() -> None:
            for master in gunicorns.masters():
                os.kill(master, signal.SIGHUP)

        def kill(chance: random.Random) -> None:
            os.killpg(chance.choice(gunicorns.masters()), signal.SIGKILL)

        try:
            deadline = time.monotonic() + PATIENCE
            while len(holders()) < SERVERS:
                if time.monotonic() > deadline:
                    raise LoadFailed(f"gunicorn does not start: {(folder / 'gunicorn.log').read_text()[-2000:]}")
                time.sleep(LOOK)
            time.sleep(QUIET)  # a worker is there before it has imported the application
            front.start()
            front.await_up()
            yield System(front.port, holders, begun, release, kill)
        finally:
            front.stop()
            gunicorns.stop()


def _balancer(ports: Sequence[int]) -> str:
    """`retry=1`: its default leaves a backend out for a minute. `ttl`: less than the backends keep a connection."""
    members = "\n".join(
        f"    BalancerMember http://127.0.0.1:{port} route={number} retry=1 ttl=60"
        for number, port in enumerate(ports)
    )
    return (
        'Header add Set-Cookie "ROUTEID=.%{BALANCER_WORKER_ROUTE}e; path=/" env=BALANCER_ROUTE_CHANGED\n'
        f"<Proxy balancer://backends>\n{members}\n    ProxySet stickysession=ROUTEID\n</Proxy>\n"
        "ProxyPass / balancer://backends/"
    )


@contextlib.contextmanager
def environment(**variables: str) -> Iterator[None]:
    """Variables for those that are started meanwhile."""
    before: Mapping[str, str | None] = {name: os.environ.get(name) for name in variables}
    os.environ.update(variables)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value
