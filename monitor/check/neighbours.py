"""What `lbmonitor --check` finds beyond one lbadaptor.toml: in the running monitor, and in other settings files."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import requests

from lbadaptor.contract.errors import SettingsError
from lbadaptor.contract.settings import NOTHING, Settings, load
from monitor.arbiter.files import session_folder
from monitor.contract.client import client

TIMEOUT = 3.0
"""Seconds to wait for a running monitor's status."""
MAX_FILES = 100
"""Other files in the folder that are read."""
_EVERY_ADDRESS = ("0.0.0.0", "::")


def findings(settings: Settings, config: Path) -> list[str]:
    """Problems with settings that are valid by themselves; empty: none. Blocks for TIMEOUT seconds at most."""
    status = _status(settings.control_socket)
    return [*_session_cookie(settings, status), *_survive(settings, status), *_neighbours(settings, config)]


def _survive(settings: Settings, status: dict[str, Any] | None) -> Iterator[str]:
    """What a change of `survive` means for Apache, and for the session files that there are."""
    now, then = (status or {}).get("survive", NOTHING), settings.sessions.survive
    folder = settings.session_folder
    if then != NOTHING and now == NOTHING:
        yield (
            f'[sessions] survive = "{then}": reload Apache before the release or start that sets it, if lbadaptor '
            "was upgraded since Apache's last reload: adaptors of before do not know MOVED, and visitors get 502"
        )
    elif lost := session_folder.lost_by_change(now, settings):
        yield f"with the next release: {lost}"
    elif then == NOTHING and session_folder.is_of(settings):
        yield (
            f'{folder} is left from when sessions survived: with [sessions] survive = "{NOTHING}" nobody takes up or '
            "removes what is in it; remove it when no AppServer of before is left"
        )


def _session_cookie(settings: Settings, status: dict[str, Any] | None) -> Iterator[str]:
    name = settings.application.session_cookie
    if not name:
        return
    if status is None:
        yield (
            f'whether the application sets the cookie session_cookie = "{name}" cannot be known before its monitor '
            "runs and visitors come; then `lbctl status` and this check tell"
        )
        return
    told = status.get("session_cookie") or {}
    if told.get("name") != name:
        yield f'the running monitor goes by session_cookie = "{told.get("name")}" until a release (`lbctl restart`)'
    elif told.get("never_set"):
        yield str(told["never_set"])


def _status(control_socket: Path) -> dict[str, Any] | None:
    """The status of a running monitor; None: none runs, or it does not answer."""
    if not os.path.exists(control_socket):
        return None
    try:
        with client(control_socket) as session:
            answer = session.get("http://monitor/status", timeout=TIMEOUT)
            content = answer.json()
    except (requests.RequestException, OSError, ValueError):
        return None
    return content if isinstance(content, dict) else None


def _neighbours(settings: Settings, config: Path) -> Iterator[str]:
    """Conflicts with other lbadaptor.toml files in the same folder. Other programs' files are skipped."""
    mine = os.path.realpath(config)
    for path in sorted(config.absolute().parent.glob("*.toml"))[:MAX_FILES]:
        if os.path.realpath(path) == mine:
            continue
        try:
            other = load(path)
        except SettingsError as error:
            if _looks_like_ours(path):
                yield f"it could not be compared with its neighbour: {error}"
            continue
        yield from _conflicts(settings, other, path)


def _looks_like_ours(path: Path) -> bool:
    try:
        return b"[application]" in path.read_bytes()
    except OSError:
        return False


def _conflicts(settings: Settings, other: Settings, path: Path) -> Iterator[str]:
    ticket = settings.application.ticket_cookie
    if other.application.ticket_cookie == ticket:
        yield (
            f'{path} has the same ticket_cookie = "{ticket}": if both applications are on one host name, each takes '
            "the other's tickets for forged, and sessions are lost; give each its own"
        )
    mine, theirs = _ports(settings), _ports(other)
    same_host = settings.appservers.host == other.appservers.host or any(
        one.appservers.host in _EVERY_ADDRESS for one in (settings, other)
    )
    if same_host and mine.start < theirs.stop and theirs.start < mine.stop:
        yield (
            f"{path} has some of the same ports: {mine.start} to {mine.stop - 1} here, {theirs.start} to "
            f"{theirs.stop - 1} there; give it another base_port"
        )
    for name, one, another in (
        ("run_folder", settings.run_folder, other.run_folder),
        ("key_file", settings.key_file, other.key_file),
    ):
        if os.path.realpath(one) == os.path.realpath(another):
            yield f"{path} has the same {name}, {one}; each application needs its own"
    folder = settings.session_folder
    both = settings.sessions_survive and other.sessions_survive
    if both and os.path.realpath(folder) == os.path.realpath(other.session_folder):
        yield f"{path} has the same [sessions] folder, {folder}; each application needs its own"


def _ports(settings: Settings) -> range:
    first = settings.appservers.base_port
    return range(first, first + settings.slots)
