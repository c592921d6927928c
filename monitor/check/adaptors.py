"""Where Apache's configuration leads to lbadaptor, and to which lbadaptor.toml."""

from __future__ import annotations

import contextlib
import os
from dataclasses import dataclass
from pathlib import Path

from monitor.apacheconfig import apache_check
from monitor.apacheconfig.directives import Directive, Place, directives
from monitor.check.facts import Facts

_TELLS_CONFIG = "lbadaptor_config"
_SCRIPTS = ("/lbadaptor.wsgi", "/lbadaptor.cgi")


@dataclass(frozen=True)
class Adaptor:
    """Where Apache's configuration tells the adaptor its lbadaptor.toml."""

    config: str
    place: Place
    host: int


def leads_here(facts: Facts) -> bool:
    """Whether Apache's configuration leads to this application. Raises CannotCheck where Apache does not tell it."""
    return bool(of_config(facts.dump, facts.config))


def adaptors(dump: str) -> list[Adaptor]:
    """All that there are. Pure."""
    return [
        Adaptor(one.words[1], one.place, one.host)
        for one in directives(dump)
        if one.name == "setenv" and len(one.words) > 1 and one.words[0].lower() == _TELLS_CONFIG
    ]


def of_config(dump: str, config: Path) -> list[Adaptor]:
    """Those that go by this lbadaptor.toml, links followed."""
    return [one for one in adaptors(dump) if os.path.realpath(one.config) == os.path.realpath(config)]


def configs(dump: str) -> list[Path]:
    """Every lbadaptor.toml that Apache's configuration names. Pure."""
    return [Path(name) for name in dict.fromkeys(one.config for one in adaptors(dump))]


def leading(dump: str) -> list[Directive]:
    """All directives that lead to one of lbadaptor's scripts. Pure."""
    return [one for one in directives(dump) if apache_check.is_ours(one)]


def scripts(dump: str) -> list[str]:
    """lbadaptor's scripts, as Apache's configuration names them. Pure."""
    return list(dict.fromkeys(word for one in leading(dump) for word in one.words if word.endswith(_SCRIPTS)))


def packages(dump: str) -> list[Path]:
    """Where lbadaptor is installed along with these scripts: in PREFIX/lib/pythonX.Y/site-packages, as the script in
    PREFIX/share/lbadaptor looks for it. Asks the file system."""
    prefixes = dict.fromkeys(Path(os.path.realpath(script)).parents[2] for script in scripts(dump))
    found: list[Path] = []
    for prefix in prefixes:
        with contextlib.suppress(PermissionError):  # who may not look there is told so by what else is checked
            found += prefix.glob("lib/python3*/site-packages/lbadaptor")
    return found


def python_home(dump: str) -> list[str]:
    """WSGIPythonHome; empty: it is not set. Pure."""
    return [one.words[0] for one in directives(dump) if one.name == "wsgipythonhome"][:1]


def hosts(dump: str) -> dict[str, set[str]]:
    """By which names visitors reach the application of each lbadaptor.toml, links followed; without a ServerName the
    whole virtual host counts as a name."""
    names: dict[int, set[str]] = {}
    for one in directives(dump):
        if one.name in ("servername", "serveralias"):
            names.setdefault(one.host, set()).update(word.partition(":")[0].lower() for word in one.words)
    found: dict[str, set[str]] = {}
    for adaptor in adaptors(dump):
        there = names.get(adaptor.host) or {f"virtual host {adaptor.host}"}
        found.setdefault(os.path.realpath(adaptor.config), set()).update(there)
    return found
