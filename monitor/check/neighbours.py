"""Conflicts with the settings of other applications on this machine."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Collection, Iterator
from pathlib import Path

from lbadaptor.contract.errors import SettingsError
from lbadaptor.contract.settings import NO_NUMBER, Settings, load
from monitor.check.adaptors import configs, hosts
from monitor.check.facts import Facts
from monitor.check.finding import CannotCheck, Finding, warning

MAX_FILES = 100
"""Other files that are read."""
_EVERY_ADDRESS = ("0.0.0.0", "::")


def neighbours(facts: Facts) -> Iterator[Finding]:
    """With other lbadaptor.toml files in the same folder, and those that Apache's configuration names.

    Other programs' files are skipped.
    """
    config = facts.config
    seen = {os.path.realpath(config)}
    places = sorted(config.absolute().parent.glob("*.toml"))
    names: dict[str, set[str]] = {}
    with contextlib.suppress(CannotCheck):  # the folder alone, then
        places += configs(facts.dump)
        names = hosts(facts.dump)
    mine = names.get(os.path.realpath(config), set())
    for path in places[:MAX_FILES]:
        if os.path.realpath(path) in seen:
            continue
        seen.add(os.path.realpath(path))
        try:
            other = load(path)
        except SettingsError as error:
            if _looks_like_ours(path):
                yield warning(f"it could not be compared with its neighbour: {error}", "correct that file")
            continue
        theirs = names.get(os.path.realpath(path), set())
        yield from conflicts(facts.settings, other, path, mine & theirs, bool(mine and theirs and not mine & theirs))


def _looks_like_ours(path: Path) -> bool:
    try:
        return b"[application]" in path.read_bytes()
    except OSError:
        return False


def conflicts(
    settings: Settings, other: Settings, path: Path, shared: Collection[str] = (), apart: bool = False
) -> Iterator[Finding]:
    """With another application's settings, in the file `path`. Pure, but for links.

    `shared`: host names that Apache gives both; `apart`: Apache gives them other names.
    """
    ticket = settings.application.ticket_cookie
    machines = _are_two_machines(settings, other)
    same = other.application.ticket_cookie == ticket and not machines
    if same and shared:
        names = ", ".join(sorted(shared))
        yield Finding(
            f'{path} has the same ticket_cookie = "{ticket}", and both applications are on {names}: '
            "each takes the other's tickets for forged, and sessions are lost",
            "set another ticket_cookie in one of them, and `lbctl restart` there",
        )
    elif same and not apart:
        yield warning(
            f'{path} has the same ticket_cookie = "{ticket}": if both applications are on one host name, each takes '
            "the other's tickets for forged, and sessions are lost",
            "set another ticket_cookie in one of them, and `lbctl restart` there",
        )
    mine, theirs = _ports(settings), _ports(other)
    same_host = settings.appservers.host == other.appservers.host or any(
        one.appservers.host in _EVERY_ADDRESS for one in (settings, other)
    )
    if same_host and mine.start < theirs.stop and theirs.start < mine.stop:
        yield warning(
            f"{path} has some of the same ports: {mine.start} to {mine.stop - 1} here, {theirs.start} to "
            f"{theirs.stop - 1} there",
            "give it another base_port",
        )
    for name, one, another, may in (
        ("run_folder", settings.run_folder, other.run_folder, False),
        ("key_file", settings.key_file, other.key_file, machines),
    ):
        if not may and os.path.realpath(one) == os.path.realpath(another):
            yield warning(f"{path} has the same {name}, {one}", "each application needs its own")
    folder = settings.session_folder
    both = settings.sessions_survive and other.sessions_survive
    if both and os.path.realpath(folder) == os.path.realpath(other.session_folder):
        yield warning(f"{path} has the same [sessions] folder, {folder}", "each application needs its own")


def _are_two_machines(settings: Settings, other: Settings) -> bool:
    """Whether they are of one application, on two machines; a demo has both of them on one. These share tickets."""
    numbers = {settings.machine.number, other.machine.number}
    return len(numbers) == 2 and NO_NUMBER not in numbers


def _ports(settings: Settings) -> range:
    first = settings.appservers.base_port
    return range(first, first + settings.slots)
