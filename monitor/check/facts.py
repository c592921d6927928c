"""The facts that checks judge: what the machine, Apache, systemd and the running monitor say.

Each is gathered once, when a check asks for it first, and not at all where a test gives it.
"""

from __future__ import annotations

import contextlib
import os
import re
import shlex
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lbadaptor.contract.errors import LbadaptorError
from lbadaptor.contract.settings import DEFAULT_FILE, Settings
from lbadaptor.log import texts
from monitor.apacheconfig import ask_apache
from monitor.apacheconfig.ask_apache import CannotRead
from monitor.apacheconfig.directives import directives
from monitor.check import listeners, units, users
from monitor.check.access import Inode, Who
from monitor.check.finding import CannotCheck, Hangs, NotAllowed
from monitor.check.listeners import Listener
from monitor.check.units import Unit
from monitor.contract import client
from monitor.contract.client import NoAnswer

TIMEOUT = 3.0
"""Seconds to wait for `ldd`."""
MAX_BYTES = 1 << 20
"""Of one file of Apache's configuration."""
MAX_FILES = 500
_LOAD = re.compile(r"^\s*LoadModule\s+wsgi_module\s+\"?([^\s\"]+)", re.MULTILINE | re.IGNORECASE)


@dataclass(frozen=True)
class ModWsgi:
    """The module that Apache loads."""

    file: str
    libpython: str
    """the library of Python that it is linked to, links followed; empty: none, or it was not found"""
    missing: bool = False
    """the library was not found"""


class Facts:
    """About one lbadaptor.toml. `known`: facts that a caller has already, by the names of the properties.

    Every property blocks for half a minute at most, unless a disk hangs, and raises CannotCheck.
    """

    def __init__(self, settings: Settings, config: Path, apache: str = "", **known: Any) -> None:
        self.settings = settings
        self.config = config
        self.apache = apache
        """the command that shows Apache's configuration; empty: the usual ones"""
        self._known: dict[str, Any] = known

    def _once(self, name: str, gather: Callable[[], Any]) -> Any:
        if name not in self._known:
            self._known[name] = CannotCheck(f"{name.replace('_', ' ')}: no answer in time")  # as long as it hangs
            try:
                self._known[name] = gather()
            except CannotCheck as error:
                self._known[name] = error
            except OSError as error:
                self._known[name] = CannotCheck(texts.of_os_error(error))
        found = self._known[name]
        if isinstance(found, LbadaptorError):
            raise found
        return found

    @property
    def status(self) -> dict[str, Any]:
        """What the running monitor says."""
        found: dict[str, Any] = self._once("status", lambda: _status(self.settings.control_socket))
        return found

    @property
    def dump(self) -> str:
        """Apache's configuration and modules, as httpd shows them (`monitor.apacheconfig.directives`)."""
        return str(self._once("dump", lambda: _apache(ask_apache.dump, self.apache)))

    @property
    def sources(self) -> dict[str, str]:
        """The files of Apache's configuration as they are written, in the order in which Apache reads them."""

        def gather() -> dict[str, str]:
            with contextlib.suppress(ApacheRefuses):  # then it names its files all the same
                _ = self.dump
            return dict(_texts(_apache(ask_apache.includes, self.apache)))

        found: dict[str, str] = self._once("sources", gather)
        return found

    @property
    def apache_read_at(self) -> float:
        """When Apache read its configuration last; unix time. httpd writes its pid file anew at each start and reload
        (`ap_log_pid`, which every MPM calls)."""
        found: float = self._once("apache_read_at", lambda: _pid_file(self.dump).stat().st_mtime)
        return found

    @property
    def mod_wsgi(self) -> ModWsgi:
        found: ModWsgi = self._once("mod_wsgi", lambda: _mod_wsgi(self.sources, self.dump))
        return found

    @property
    def unit(self) -> Unit | None:
        """systemd's unit of this monitor; None: there is none."""
        found: Unit | None = self._once("unit", lambda: units.of(self.config))
        return found

    @property
    def enabled(self) -> bool:
        """Whether systemd starts the monitor at boot. Only where it has a unit."""
        found: bool = self._once("enabled", lambda: self.unit is not None and units.is_enabled(self.unit.name))
        return found

    @property
    def apache_unit(self) -> Unit | None:
        """systemd's unit of Apache; None: there is none."""
        found: Unit | None = self._once("apache_unit", units.of_apache)
        return found

    @property
    def service(self) -> str:
        """The name of the monitor's unit, for a cure."""
        with contextlib.suppress(CannotCheck):
            if self.unit:
                return self.unit.name.removesuffix(".service")
        return "lbadaptor"

    @property
    def lbctl(self) -> str:
        """The command for this monitor, for a cure."""
        return "lbctl" if self.config == DEFAULT_FILE else f"lbctl --config {shlex.quote(str(self.config))}"

    @property
    def tmpfiles(self) -> dict[str, str]:
        """What systemd makes at boot, and the file that says so."""
        found: dict[str, str] = self._once("tmpfiles", units.tmpfiles)
        return found

    @property
    def listeners(self) -> list[Listener]:
        found: list[Listener] = self._once("listeners", listeners.listeners)
        return found

    @property
    def monitor_user(self) -> Who:
        """By its unit; where there is none, the owner of the run folder, or who runs this."""
        found: Who = self._once("monitor_user", self._monitor_user)
        return found

    @property
    def apache_user(self) -> Who:
        """By Apache's configuration."""
        found: Who = self._once("apache_user", lambda: users.of_apache(self.dump))
        return found

    def way(self, path: Path) -> list[Inode]:
        """A file and the folders above it, outermost first; those to which a link leads, too.

        Raises FileNotFoundError, CannotCheck where this user may not look.
        """
        there = Path(os.path.realpath(path))
        absolute = path.absolute()
        places = [*reversed(absolute.parents)]
        if there != absolute:
            places += [place for place in reversed(there.parents) if place not in places]
        return [self._inode(place) for place in (*places, there)]

    def _inode(self, path: Path) -> Inode:
        known: dict[Path, Inode] = self._known.setdefault("inodes", {})
        if path not in known:
            known[path] = _inode(path)
        return known[path]

    def _monitor_user(self) -> Who:
        if unit := self.unit:
            name = row.value if (row := unit.last("User")) else "root"
            group = row.value if (row := unit.last("Group")) else ""
            more = [word for row in unit.all("SupplementaryGroups") for word in row.value.split()]
            return users.who(name, group, more)
        with contextlib.suppress(OSError):
            return users.who(f"#{self.settings.run_folder.stat().st_uid}")
        return users.who_runs_this()


def _inode(path: Path) -> Inode:
    try:
        found = path.stat()
    except PermissionError:
        raise NotAllowed(users.who_runs_this().name, f"look at {path}") from None
    except FileNotFoundError:
        raise
    except OSError as error:
        raise CannotCheck(texts.of_os_error(error)) from None
    has_acl = False
    with contextlib.suppress(OSError):
        has_acl = bool(os.getxattr(path, "system.posix_acl_access"))
    return Inode(path, found.st_uid, found.st_gid, found.st_mode, has_acl)


def _status(control_socket: Path) -> dict[str, Any]:
    if not os.path.lexists(control_socket):
        if os.access(control_socket.parent, os.X_OK) or not os.path.lexists(control_socket.parent):
            raise CannotCheck(f"no monitor runs: there is no {control_socket}")
        raise NotAllowed(users.who_runs_this().name, f"look into {control_socket.parent}")
    try:
        content = client.ask(control_socket)
    except client.NotAllowed:
        raise NotAllowed(users.who_runs_this().name, "ask the monitor") from None
    except client.NotInTime:
        raise Hangs(f"the monitor does not answer in time ({control_socket})") from None
    except NoAnswer:
        raise CannotCheck(f"no monitor answers at {control_socket}") from None
    if not isinstance(content, dict) or "appservers" not in content:
        raise CannotCheck(f"what answers at {control_socket} is no monitor")
    return content


def _apache(ask: Callable[[str], Any], program: str) -> Any:
    """What Apache says. It keeps why it refuses its configuration."""
    try:
        return ask(program)
    except ask_apache.NoAnswer as error:
        raise ApacheHangs(str(error)) from None
    except CannotRead as error:
        raise ApacheRefuses(str(error)) from None


class ApacheRefuses(CannotCheck):
    """Apache does not tell its configuration."""


class ApacheHangs(CannotCheck):
    """It is not asked again."""


def _texts(files: list[str]) -> Iterator[tuple[str, str]]:
    for name in files[:MAX_FILES]:
        with contextlib.suppress(OSError), open(name, encoding="utf-8", errors="surrogateescape") as file:
            yield name, file.read(MAX_BYTES)


def _pid_file(dump: str) -> Path:
    rows = [one.words[0] for one in directives(dump) if one.name == "pidfile"]
    if not rows or not os.path.isabs(rows[-1]):
        raise CannotCheck("Apache's configuration has no PidFile with a whole path")
    return Path(rows[-1])


def _mod_wsgi(sources: dict[str, str], dump: str) -> ModWsgi:
    load = next(filter(None, map(_LOAD.search, sources.values())), None)
    if load is None:
        raise CannotCheck("no LoadModule line names mod_wsgi")
    root = next((one.words[0] for one in directives(dump) if one.name == "serverroot"), "/etc/apache2")
    file = str(Path(root, load[1]))
    try:
        done = subprocess.run(["ldd", file], capture_output=True, text=True, timeout=TIMEOUT, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise CannotCheck(f"ldd {file}: {error}") from None
    return linked(file, done.stdout)


def linked(file: str, told: str) -> ModWsgi:
    """What ldd tells of mod_wsgi."""
    if library := re.search(r"libpython\S* => (not found|\S+)", told):
        missing = library[1] == "not found"
        return ModWsgi(file, "" if missing else os.path.realpath(library[1]), missing)
    return ModWsgi(file, "")
