"""What a chain is: servers that are started, visitors who have a session there, and what it needs.

A chain is started in a folder of its own, and leaves nothing behind.
"""

from __future__ import annotations

import importlib.util
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from monitor.demo import httpd

from . import cost
from .load import LoadFailed, Request, Visitor, log_in, plain
from .servers import Server, folder_of_application

BACKENDS = 4
PAGES_AND_MIX = ("small", "large", "upload", "compute", "wait", "mix")
OURS = "the settings that lbadaptor comes with"


@dataclass
class Built:
    """A chain's servers in the order of their start, and where visitors come in."""

    servers: list[Server]
    port: int
    request: Request = plain
    refresh: Callable[[], None] = lambda: None
    """to be called every 2 s"""
    in_front: int = 1
    """so many of the last servers are started one after the other, each when those before it serve"""


@dataclass
class Chain:
    """One chain. `start`, `stop`; between them it has a port, visitors, and processes."""

    name: str
    what: str
    settings: str
    """its settings, for people"""
    build: Callable[[Path], Built]
    needs: Sequence[Callable[[], str]] = ()
    """each tells why it cannot be set up here; empty: nothing stands against it"""
    pages: Sequence[str] = PAGES_AND_MIX
    """those that it is measured with"""
    backends: int = BACKENDS
    sticky: bool = True
    warm_up: int = 64
    """connections that have been to all its processes"""
    visitors: list[Visitor] = field(default_factory=list)
    built: Built | None = None

    def absent(self) -> str:
        """Why it cannot be set up here; empty: it can."""
        return "; ".join(filter(None, (need() for need in self.needs)))

    def start(self, folder: Path) -> None:
        """Blocks until it serves, and visitors have a session at each backend. Raises LoadFailed."""
        place = folder / self.name
        place.mkdir()
        place.chmod(0o711)
        folder_of_application(place)
        home = place / "run"
        home.mkdir()
        home.chmod(0o711)
        self.built = self.build(home)
        servers, in_front = self.built.servers, self.built.in_front
        for server in servers[:-in_front]:
            server.start()
        for server in servers[:-in_front]:
            server.await_up()
        for server in servers[-in_front:]:  # the fast lane's maps have to be there
            server.start()
            server.await_up()
        self.built.refresh()
        try:
            self.visitors = log_in(self.built.port, self.built.request, self.backends)
        except LoadFailed as error:
            raise LoadFailed(f"{self.name}: {error}\n{self.said()[:3000]}") from None

    @property
    def own(self) -> bool:
        """Whether it is ours: then a failure is no absence."""
        return self.settings == OURS

    def order_to_stop(self) -> None:
        for server in self.built.servers if self.built is not None else ():
            server.order_to_stop()

    def stop(self) -> None:
        """Blocks until nothing of it is left."""
        self.order_to_stop()
        if self.built is not None:
            for server in reversed(self.built.servers):
                server.stop()
            self.built = None

    def said(self) -> str:
        """What its foremost server logged."""
        return self.built.servers[-1].said() if self.built is not None else ""

    def processes(self) -> dict[str, set[int]]:
        """Its living processes, by part."""
        assert self.built is not None
        servers = {server.mark: server for server in self.built.servers}
        parts: dict[str, set[int]] = {}
        for mark, pids in cost.processes({mark: server.pid for mark, server in servers.items()}).items():
            parts.setdefault(servers[mark].part, set()).update(pids)
        return parts


# What a chain may need.


def module(name: str) -> Callable[[], str]:
    """A Python package."""
    return lambda: "" if importlib.util.find_spec(name) else f"{name} is missing: pip install {name}"


def program(name: str, package: str) -> Callable[[], str]:
    return lambda: "" if shutil.which(name) else f"{name} is missing: apt-get install {package}"


def apache_module(name: str, package: str = "") -> Callable[[], str]:
    def look() -> str:
        found = httpd.installed()
        if not found:
            return "Apache httpd with mod_wsgi is missing: apt-get install libapache2-mod-wsgi-py3"
        there = not name or (found[0].modules / f"mod_{name}.so").exists()
        return "" if there else f"mod_{name} is missing: apt-get install {package}"

    return look
