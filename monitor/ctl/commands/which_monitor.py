"""Which monitor a command is about: `--config` and `--socket`."""

from __future__ import annotations

import argparse
import contextlib
import os
import sys
from pathlib import Path

from lbadaptor.contract.errors import SettingsError
from lbadaptor.contract.settings import DEFAULT_FILE, load, snapshot
from monitor.contract import client
from monitor.contract.client import NoAnswer


def control_socket(options: argparse.Namespace) -> Path:
    """The socket that orders go to. While lbadaptor.toml is broken, that of the monitor that accepted it before.

    Raises SettingsError.
    """
    if options.socket is not None:
        given: Path = options.socket
        return given
    named = options.config or DEFAULT_FILE
    settings, error, folders = snapshot.folders(named)
    if settings is not None:
        return settings.control_socket
    assert error is not None
    for folder in folders:
        with contextlib.suppress(OSError, SettingsError):
            accepted = snapshot.read(folder / snapshot.NAME)
            if accepted.is_of(named):
                print(f"lbctl: note: {error}; the monitor goes by what it has accepted before", file=sys.stderr)
                return accepted.settings.control_socket
    raise error


def config(options: argparse.Namespace) -> Path:
    """The lbadaptor.toml that is meant; with --socket, the one that the monitor behind it goes by.

    Raises NoAnswer where that cannot be found out.
    """
    if options.socket is None:
        named: Path = options.config or DEFAULT_FILE
        return named
    try:
        told = client.ask(options.socket).get("config")
    except NoAnswer as error:
        told = _of_crashed_monitor(options.socket)
        if told is None:
            raise NoAnswer(f"{error}; name its lbadaptor.toml with --config instead") from None
    if not isinstance(told, str):
        raise NoAnswer(f"{options.socket}: the monitor does not tell its lbadaptor.toml; name it with --config")
    found = Path(told)
    there = load(found).control_socket
    if os.path.realpath(there) != os.path.realpath(options.socket):
        raise NoAnswer(
            f"{options.socket}: its monitor goes by {found}, which now has another run folder, {there.parent}"
        )
    return found


def _of_crashed_monitor(control_socket: Path) -> str | None:
    """The lbadaptor.toml that a monitor which crashed went by, from what is in its run folder."""
    try:
        config = snapshot.read(control_socket.parent / snapshot.NAME).config
    except (OSError, SettingsError):
        return None
    return config[0] if config else None
