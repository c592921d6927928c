"""`lbctl rotate-key`: add a new key to the key file and have it used; `--finish` removes the old ones.

Where there are several machines, a key has to be believed on all of them before it signs on any: `--believe`, `lbctl
key export` and `import`, then `--sign`. Every step leaves a key file with which all that run can go on: a crash in
between costs nothing.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from lbadaptor.contract.address import parse
from lbadaptor.contract.errors import AddressFileError
from lbadaptor.contract.settings import NOTHING, Settings
from lbadaptor.contract.ticket import Keys, new_key
from lbadaptor.log import texts
from monitor.contract import client
from monitor.contract.client import NoAnswer
from monitor.ctl.commands import key_file, order, which_monitor
from monitor.ctl.commands.base import Command, flag
from monitor.ctl.commands.which_monitor import Which


def run(which: Which, believe: bool, sign: bool, finish: bool) -> int:
    """The exit status. Blocks until the monitor has read the key file. Raises LbadaptorError, OSError."""
    if believe + sign + finish > 1:
        raise click.UsageError("--believe, --sign and --finish are three steps: one at a time")
    settings = which_monitor.settings(which)
    status = client.ask(settings.control_socket)
    if believe:
        _believe(which, settings, status)
    elif sign:
        _sign(which, settings, status)
    elif finish:
        _finish(which, settings, status)
    else:
        _begin(which, settings, status)
    return 0


def _begin(which: Which, settings: Settings, status: dict[str, Any]) -> None:
    if settings.machine.number >= 0:
        raise NoAnswer(
            "this is one of several machines ([machine] number): a new key that signs here at once would be unknown "
            "to the others. Go in three steps: `lbctl rotate-key --believe` here, and `lbctl key export` to each "
            "other machine; then `lbctl rotate-key --sign` on each; then `lbctl rotate-key --finish` on each"
        )
    path = settings.key_file
    with key_file.locked(settings):
        lines = key_file.read(path)
        if len(lines.all) > 1:
            end = "`lbctl rotate-key --sign` and then " if lines.believed else ""
            raise NoAnswer(
                f"{path} has {len(lines.all)} keys: an earlier change is under way; end it with {end}`lbctl "
                "rotate-key --finish`"
            )
        key_file.replace(path, lines.add(new_key()))
    print(f"{path}: a new key is added; the old one counts, too", flush=True)
    _put_to_use(which, settings, status)


def _believe(which: Which, settings: Settings, status: dict[str, Any]) -> None:
    path = settings.key_file
    with key_file.locked(settings):
        key_file.replace(path, key_file.read(path).believe(new_key()))
    print(f"{path}: a new key is added, which is believed, and does not sign", flush=True)
    try:
        key_file.read_anew(which, settings, status)
    except NoAnswer as error:
        raise NoAnswer(f"{error}. The new key is in the file; `lbctl reexec` has the monitor read it") from None
    print(
        "Bring it to each other machine: lbctl key export | ssh MACHINE lbctl key import\n"
        "When all have it, have it sign on each: lbctl rotate-key --sign"
    )


def _sign(which: Which, settings: Settings, status: dict[str, Any]) -> None:
    path = settings.key_file
    with key_file.locked(settings):
        key_file.replace(path, key_file.read(path).sign())
    print(f"{path}: the key that was believed signs now; the old one counts, too", flush=True)
    _put_to_use(which, settings, status)


def _put_to_use(which: Which, settings: Settings, status: dict[str, Any]) -> None:
    """Have the monitor read the file, whose last key is new, and begin a release."""
    try:
        key_file.read_anew(which, settings, status)
        print(order.give(which, "restart", now=False), flush=True)
    except NoAnswer as error:
        raise NoAnswer(
            f"{error}. The new key is in the file, and not in use yet: `lbctl reexec` and `lbctl restart` do that"
        ) from None
    others = " on any machine" if settings.machine.number >= 0 else ""
    print(
        f"New AppServers hand out tickets of the new key. When no AppServer of before is left{others} (`lbctl "
        "status`), remove the old key: lbctl rotate-key --finish"
    )


def _finish(which: Which, settings: Settings, status: dict[str, Any]) -> None:
    path = settings.key_file
    with key_file.locked(settings):
        lines = key_file.read(path)
        if not lines.older:
            sign = "; a key is believed: `lbctl rotate-key --sign` comes first" if lines.believed else ""
            raise NoAnswer(f"{path} has one key: there is no old one to remove{sign}")
        if why := needed_by(settings.address_file, Keys([lines.signing]), status):
            raise NoAnswer(f"the old key is still needed: {why}; nothing was changed")
        key_file.replace(path, lines.without_older())
    try:
        key_file.read_anew(which, settings, status)
    except NoAnswer as error:
        raise NoAnswer(f"{error}. The old key is removed; `lbctl reexec` has the monitor forget it, too") from None
    print(f"{path}: the old key is removed, and counts no more; Apache forgets it within seconds")


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


command = Command(
    "rotate-key",
    "change the key that signs tickets, so that nobody is logged out",
    run,
    [
        flag("believe", "step 1 of 3 on several machines: add a new key that verifies tickets and signs none"),
        flag("sign", "step 2, when all machines have that key: it signs here, and a release begins"),
        flag("finish", "the last step: remove the old keys, unless an AppServer or a saved session needs them"),
    ],
    ["lbctl rotate-key", "lbctl rotate-key --believe", "lbctl rotate-key --finish"],
    more="Without an option it adds a key to the key file, has the monitor read it, and begins a release. One of "
    "several machines refuses that: there it goes in three steps.",
)
