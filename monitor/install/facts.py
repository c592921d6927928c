"""What is on the machine before an installation."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterable
from dataclasses import dataclass

from lbadaptor.contract.errors import SettingsError
from lbadaptor.contract.settings import Settings, load
from monitor.apacheconfig import apache_check, ask_apache
from monitor.check import listeners
from monitor.contract.installed import SHARE
from monitor.install.machine import Machine
from monitor.install.wanted import APACHE, CONFIGS, Wanted

MODULES = ("wsgi", *apache_check.NEEDED, "unique_id")
"""Of Apache: for both lanes, and for one id of a request in all logs."""
_MODULE_FOLDER = "/usr/lib/apache2/modules"
_MAX_NEIGHBOURS = 1000
"""Other lbadaptor.toml files that are read."""


@dataclass(frozen=True)
class Facts:
    """All that the plan needs to know."""

    neighbours: dict[str, Settings]
    """of other applications, by the path of their lbadaptor.toml"""
    mine: Settings | None
    """of an earlier installation of this one; None: there is none that can be used"""
    listening: frozenset[int]
    """ports that somebody listens on"""
    missing_modules: tuple[str, ...]
    """of Apache, that have to be enabled"""
    dump: str
    """Apache's configuration, with those modules"""
    prefix: str = sys.prefix
    """of the Python in which lbadaptor is"""
    share: str = str(SHARE)

    @property
    def lbctl(self) -> str:
        return f"{self.prefix}/bin/lbctl"


def find(machine: Machine, wanted: Wanted) -> Facts:
    """Blocks for half a minute at most. Raises OSError, and CannotRead for Apache's configuration."""
    settings = {}
    for name in [name for name in machine.names(CONFIGS) if name.endswith(".toml")][:_MAX_NEIGHBOURS]:
        with contextlib.suppress(SettingsError):  # it has no monitor then; `lbmonitor --check` says so
            settings[f"{CONFIGS}/{name}"] = load(machine.place(f"{CONFIGS}/{name}"))
    mine = settings.pop(wanted.config, None)
    enabled = {name.removesuffix(".load") for name in machine.names(f"{APACHE}/mods-enabled")}
    missing = tuple(name for name in MODULES if name not in enabled)
    dump = ask_apache.dump(apache_command(missing))
    tables = (machine.read(f"/proc/net/{name}") or "" for name in ("tcp", "tcp6"))
    listening = frozenset(one.port for table in tables for one in listeners.parse(table))
    return Facts(settings, mine, listening, missing, dump)


def apache_command(missing: Iterable[str]) -> str:
    """What tells Apache's configuration, as if some modules were enabled already."""
    load_missing = (f"-C 'LoadModule {name}_module {_MODULE_FOLDER}/mod_{name}.so'" for name in missing)
    return " ".join(("apache2ctl", *load_missing))
