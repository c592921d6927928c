"""Which monitor a command is about: `--config` and `--socket`."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from lbadaptor.contract.errors import SettingsError
from lbadaptor.contract.settings import DEFAULT_FILE, Settings, load, snapshot
from monitor.contract import client
from monitor.contract.client import NoAnswer


@dataclass
class Which:
    """The monitor that is meant: by its lbadaptor.toml or by its control socket. Neither: by the `default` file."""

    config: Path | None = None
    socket: Path | None = None


def default(usual: Path = DEFAULT_FILE) -> Path:
    """The lbadaptor.toml where none is named: the usual one, or the only one beside its place.

    `lbctl install` makes one for each application, with its name. Raises SettingsError where there are several.
    """
    if os.path.exists(usual):
        return usual
    others = sorted(usual.parent.glob("*.toml"))
    if len(others) > 1:
        raise SettingsError(f"which application? Say --config, with one of {', '.join(map(str, others))}")
    return others[0] if others else usual


def control_socket(which: Which) -> Path:
    """The socket that orders go to. While lbadaptor.toml is broken, that of the monitor that accepted it before.

    Raises SettingsError.
    """
    if which.socket is not None:
        return which.socket
    named = which.config or default()
    settings, error, folders = snapshot.folders(named)
    if settings is not None:
        return settings.control_socket
    assert error is not None
    accepted = _accepted(named, folders)
    if accepted is None:
        if (found := _open_to_a_group(named, folders)) is not None:
            return found
        raise error
    print(f"lbctl: note: {error}; the monitor goes by what it has accepted before", file=sys.stderr)
    return accepted.control_socket


def settings(which: Which) -> Settings:
    """The settings of the monitor that is meant. While its lbadaptor.toml is broken, those that it has accepted
    before, as far as settings.json has them: the others have their defaults.

    Raises SettingsError, NoAnswer.
    """
    named = config(which)
    found, error, folders = snapshot.folders(named)
    if found is not None:
        return found
    assert error is not None
    accepted = _accepted(named, folders if which.socket is None else [which.socket.parent])
    if accepted is None:
        raise SettingsError(
            f"{error}; correct it, or name the monitor's control socket instead: lbctl --socket"
            " RUN_FOLDER/control.sock …"
        )
    print(
        f"lbctl: note: {error}; this goes by what the monitor has accepted before, and by the default settings of"
        " [monitor] and [appservers]",
        file=sys.stderr,
    )
    return accepted


def _accepted(named: Path, folders: Iterable[Path]) -> Settings | None:
    """What the monitor of this lbadaptor.toml has accepted, from one of these run folders."""
    for folder in folders:
        with contextlib.suppress(OSError, SettingsError):
            accepted = snapshot.read(folder / snapshot.NAME)
            if accepted.is_of(named):
                return accepted.settings
    return None


def _open_to_a_group(named: Path, folders: Iterable[Path]) -> Path | None:
    """The control socket of the monitor of this lbadaptor.toml, for a user who may look and cannot read that file."""
    for folder in folders:
        if os.access(folder / client.STATUS_SOCKET, os.W_OK):
            with contextlib.suppress(NoAnswer):
                if client.ask(folder / client.STATUS_SOCKET).get("config") in snapshot.paths(named):
                    return folder / "control.sock"
    return None


def config(which: Which) -> Path:
    """The lbadaptor.toml that is meant; with --socket, the one that the monitor behind it goes by.

    Raises NoAnswer where that cannot be found out.
    """
    if which.socket is None:
        return which.config or default()
    try:
        told = client.ask(which.socket).get("config")
    except NoAnswer as error:
        told = _of_crashed_monitor(which.socket)
        if told is None:
            raise NoAnswer(f"{error}; name its lbadaptor.toml with --config instead") from None
    if not isinstance(told, str):
        raise NoAnswer(f"{which.socket}: the monitor does not tell its lbadaptor.toml; name it with --config")
    found = Path(told)
    try:
        there = load(found).control_socket
    except SettingsError:
        return found  # it is for the caller to say so
    if os.path.realpath(there) != os.path.realpath(which.socket):
        raise NoAnswer(
            f"{which.socket}: its monitor goes by {found}, which now has another run folder, {there.parent}"
        )
    return found


def _of_crashed_monitor(control_socket: Path) -> str | None:
    """The lbadaptor.toml that a monitor which crashed went by, from what is in its run folder."""
    try:
        config = snapshot.read(control_socket.parent / snapshot.NAME).config
    except (OSError, SettingsError):
        return None
    return config[0] if config else None
