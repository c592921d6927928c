"""What the monitor's and Apache's users can read, and what others can. By owners and modes alone (`access`)."""

from __future__ import annotations

import contextlib
import grp
import os
import sys
from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path

import lbadaptor
from monitor.check.access import ENTER, READ, WRITE, Inode, Who, mode, obstacle
from monitor.check.adaptors import leads_here, packages, python_home, scripts
from monitor.check.facts import Facts
from monitor.check.finding import CannotCheck, Finding, NotAllowed
from monitor.check.units import program
from monitor.check.users import who_runs_this

MOST_SOCKETS = 8
"""AppServers' sockets that are looked at."""


def python_of_monitor(facts: Facts) -> Iterator[Finding]:
    """Whether the monitor's user can use this Python and what is installed in it."""
    places = [sys.executable, os.__file__, lbadaptor.__file__]
    if facts.unit and (row := facts.unit.last("ExecStart")):
        places.append(program(row.value))
    yield from _unreadable(facts, facts.monitor_user, places, "the monitor and the AppServers cannot start")


def settings_of_monitor(facts: Facts) -> Iterator[Finding]:
    """Apache reads them, too: where the monitor's user is in Apache's group, one cure is for both."""
    who, apache = facts.monitor_user, facts.settings.files.apache_group
    with contextlib.suppress(KeyError):
        if grp.getgrnam(apache).gr_gid in who.gids:
            who = replace(who, group=apache)
    yield from _unreadable(facts, who, [facts.config], "the monitor cannot start")


def python_of_apache(facts: Facts) -> Iterator[Finding]:
    """Whether Apache's user can use the adaptor and its Python; without it every request gets a bare 500 or 504."""
    _refuse_without_adaptor(facts)
    places = [*scripts(facts.dump), *map(str, packages(facts.dump)), *python_home(facts.dump)]
    yield from _unreadable(facts, facts.apache_user, places, "every request fails")


def files_of_apache(facts: Facts) -> Iterator[Finding]:
    """What the adaptor and the fast lane read as Apache's user."""
    _refuse_without_adaptor(facts)
    settings = facts.settings
    places = [
        facts.config,
        settings.snapshot_file,
        settings.address_file,
        settings.caller_keys_file,
        settings.available_file,
    ]
    yield from _unreadable(facts, facts.apache_user, places, "Apache finds no AppServer")
    yield from _unreadable(facts, facts.apache_user, [settings.key_file], "Apache takes every ticket for forged")
    yield from _unreadable(
        facts, facts.apache_user, _sockets(facts), "Apache connects by TCP, which costs more, or not at all", WRITE
    )


def open_to_all(facts: Facts) -> Iterator[Finding]:
    """What only Apache and the monitor may read, and everybody can."""
    settings = facts.settings
    secrets = {
        settings.address_file: "tickets",
        settings.caller_keys_file: "the callers' keys, and ask the AppServers past Apache,",
        settings.available_file: "the callers' keys, and ask the AppServers past Apache,",
    }
    for path, what in secrets.items():
        way = _way(facts, path)
        if way and _all_may(facts, path, READ):
            yield Finding(f"everybody can read {what} in {path} ({mode(way[-1])})", f"`chmod 0640 {path}`")
    for path, what in (
        *((Path(name), "connect to an AppServer") for name in _sockets(facts)[:1]),
        (settings.control_socket, "give orders to the monitor"),
    ):
        if _way(facts, path) and _all_may(facts, path, WRITE):
            yield Finding(
                f"everybody can {what} by {path}",
                f"`chmod o-rwx {path}`; if it comes back, look who changes modes or the umask",
            )


def _refuse_without_adaptor(facts: Facts) -> None:
    if not leads_here(facts):
        raise CannotCheck("nothing in Apache's configuration leads to this application")


def _unreadable(facts: Facts, who: Who, places: Iterable[str | Path], so: str, what: int = READ) -> Iterator[Finding]:
    """What stands in this user's way to files that there are; each obstacle once."""
    told: set[str] = set()
    for place in [Path(one) for one in places]:
        way = _way(facts, place)
        if not way:
            continue
        why, cure = obstacle(who, way, ENTER if way[-1].is_folder else what)
        if why and why not in told:
            told.add(why)
            yield Finding(f"{so}: {why}" + (f", and needs {place}" if str(place) not in why else ""), cure)


def _all_may(facts: Facts, path: Path, what: int) -> bool:
    nobody = Who("everybody", -1, frozenset())
    return not obstacle(nobody, facts.way(path), what)[0]


def _way(facts: Facts, path: Path) -> list[Inode]:
    """The file, and the folders above it; empty where there is no such file."""
    try:
        return facts.way(path)
    except FileNotFoundError:
        return []


def _sockets(facts: Facts) -> list[str]:
    folder = facts.settings.socket_folder
    try:
        names = sorted(os.listdir(folder))[:MOST_SOCKETS]
    except FileNotFoundError:
        return []
    except PermissionError:
        raise NotAllowed(who_runs_this().name, f"look into {folder}") from None
    return [str(folder / name) for name in names if (folder / name).is_socket()]
