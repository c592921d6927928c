"""`lbctl rotate-key`: add a new key to the key file and have it used; `--finish` removes the old ones.

Every step leaves a key file with which all that run can go on: a crash in between costs nothing.
"""

from __future__ import annotations

import os
import secrets
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from lbadaptor.contract.address import parse
from lbadaptor.contract.errors import AddressFileError, KeyFileError
from lbadaptor.contract.settings import NOTHING, Settings
from lbadaptor.contract.ticket import Keys, read_keys
from lbadaptor.log import texts
from monitor.contract import client
from monitor.contract.client import NoAnswer
from monitor.ctl.commands import order, which_monitor
from monitor.ctl.commands.base import Command, flag
from monitor.ctl.commands.which_monitor import Which

UPGRADED_WITHIN = 30.0
"""Seconds in which the monitor has to read the key file anew."""
POLL_INTERVAL = 0.1
"""Seconds between two looks at whether it has."""


def run(which: Which, finish: bool) -> int:
    """The exit status. Blocks until the monitor has read the key file. Raises LbadaptorError, OSError."""
    settings = which_monitor.settings(which)
    status = client.ask(settings.control_socket)
    if finish:
        _finish(which, settings, status)
    else:
        _begin(which, settings, status)
    return 0


def _begin(which: Which, settings: Settings, status: dict[str, Any]) -> None:
    lines = _lines(settings.key_file)
    if len(_keys(lines)) > 1:
        raise NoAnswer(
            f"{settings.key_file} has {len(_keys(lines))} keys: an earlier change is under way; end it with `lbctl "
            "rotate-key --finish`"
        )
    _replace(settings.key_file, [*lines, secrets.token_urlsafe(48)])
    print(f"{settings.key_file}: a new key is added; the old one counts, too", flush=True)
    try:
        _read_anew(which, settings, status)
        print(order.give(which, "restart", now=False), flush=True)
    except NoAnswer as error:
        raise NoAnswer(
            f"{error}. The new key is in the file, and not in use yet: `lbctl reexec` and `lbctl restart` do that"
        ) from None
    print(
        "New AppServers hand out tickets of the new key. When no AppServer of before is left (`lbctl status`), remove"
        " the old key: lbctl rotate-key --finish"
    )


def _finish(which: Which, settings: Settings, status: dict[str, Any]) -> None:
    lines = _lines(settings.key_file)
    keys = _keys(lines)
    if len(keys) < 2:
        raise NoAnswer(f"{settings.key_file} has one key: there is no old one to remove")
    if why := needed_by(settings.address_file, Keys(keys[-1:]), status):
        raise NoAnswer(f"the old key is still needed: {why}; nothing was changed")
    _replace(settings.key_file, keys[-1:])
    try:
        _read_anew(which, settings, status)
    except NoAnswer as error:
        raise NoAnswer(f"{error}. The old key is removed; `lbctl reexec` has the monitor forget it, too") from None
    print(f"{settings.key_file}: the old key is removed, and counts no more; Apache needs a reload to forget it")


def needed_by(address_file: Path, newest: Keys, status: dict[str, Any]) -> str:
    """What still needs the old keys; empty: nothing."""
    try:
        entries = parse(address_file.read_text("utf-8")).entries
    except (OSError, UnicodeDecodeError, AddressFileError) as error:
        return f"{address_file} cannot be read: {texts.what(error)}"
    old = [str(entry.identity.slot) for entry in entries if not newest.signed(entry.ticket)]
    if old:
        return f"the AppServers in slot {', '.join(old)} have a ticket of it, and so have the visitors they hold"
    starting = [str(one["slot"]) for one in status["appservers"] if one["state"] == "STARTING"]
    if starting:
        return f"slot {', '.join(starting)} is STARTING, perhaps with a ticket of it"
    counts = [one["kept"]["waiting"] for one in status["appservers"] if one.get("kept")]
    known = [count for count in counts if count is not None]
    if status["survive"] != NOTHING and not known:
        return "how many saved sessions wait for their visitors is not known yet"
    if waiting := max(known, default=0):
        return (
            f"{texts.count(waiting, 'saved session')} may wait for visitors with a ticket of it, and would be lost "
            "without it"
        )
    return ""


def _read_anew(which: Which, settings: Settings, before: dict[str, Any]) -> None:
    """Have the monitor read the key file, by an upgrade in place. Raises NoAnswer."""
    print(order.give(which, "reexec"), flush=True)
    deadline = time.monotonic() + UPGRADED_WITHIN
    while time.monotonic() < deadline:
        try:
            if client.ask(settings.control_socket).get("began") != before.get("began"):
                return
        except NoAnswer:
            pass  # it is between two programs
        time.sleep(POLL_INTERVAL)
    raise NoAnswer(f"the monitor was not upgraded within {UPGRADED_WITHIN:g} s; its log may tell why")


def _lines(path: Path) -> list[str]:
    """Of the key file, which is checked. Raises KeyFileError."""
    read_keys(path)
    try:
        return path.read_text("ascii").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise KeyFileError(f"key file {path}: {texts.what(error)}") from None


def _keys(lines: Sequence[str]) -> list[str]:
    return [line.strip() for line in lines if line.strip() and not line.startswith("#")]


def _replace(path: Path, lines: Sequence[str]) -> None:
    """Write the key file whole, with its owner, group and mode. Raises OSError; the old one stays then."""
    real = Path(os.path.realpath(path))
    there = os.stat(real)
    beside = real.with_name(f".{real.name}.{os.getpid()}.{secrets.token_hex(4)}")
    descriptor = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        with open(descriptor, "w", encoding="ascii") as file:
            file.write("".join(f"{line}\n" for line in lines))
            file.flush()
            os.fchown(descriptor, there.st_uid, there.st_gid)
            os.fchmod(descriptor, there.st_mode & 0o7777)
            os.fsync(descriptor)
        os.rename(beside, real)
    except BaseException:
        beside.unlink(missing_ok=True)
        raise


command = Command(
    "rotate-key",
    "change the key that signs tickets, so that nobody is logged out",
    run,
    [flag("finish", "remove the old keys, unless an AppServer or a saved session needs them")],
    ["lbctl rotate-key", "lbctl rotate-key --finish"],
    more="It adds a key to the key file, has the monitor read it, and begins a release.",
)
