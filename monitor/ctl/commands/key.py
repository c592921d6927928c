"""`lbctl key make`, `lbctl key export` and `lbctl key import`: the same keys on all machines."""

from __future__ import annotations

import os
import sys
from typing import Any

import click

from lbadaptor.contract.errors import KeyFileError
from lbadaptor.contract.settings import Settings
from lbadaptor.contract.ticket import new_key
from lbadaptor.log import texts
from monitor.contract import client, key_lines
from monitor.contract.client import NoAnswer, NotAllowed, NotInTime
from monitor.contract.key_lines import KeyLines
from monitor.ctl.commands import key_file, which_monitor
from monitor.ctl.commands.base import Command, Group
from monitor.ctl.commands.which_monitor import Which

MAX_BYTES = 64 * 1024
"""Of what is imported."""
_OVER_SSH = "lbctl key export | ssh MACHINE lbctl key import"


def make(which: Which) -> int:
    """The exit status. Raises LbadaptorError, OSError."""
    settings = which_monitor.settings(which)
    path = settings.key_file
    with key_file.locked(settings):
        if os.path.lexists(path):
            raise KeyFileError(f"{path} is there already; nothing was changed")
        key_file.make(settings, KeyLines((new_key(),)))
    print(f"{path}: made, with 1 key. Bring it to the other machines: {_OVER_SSH}")
    return 0


def export(which: Which) -> int:
    """The exit status. Raises LbadaptorError."""
    settings = which_monitor.settings(which)
    lines = key_file.read(settings.key_file)
    if sys.stdout.isatty():
        raise click.UsageError(f"the keys are secret, and would stand on the terminal; into a pipe: {_OVER_SSH}")
    sys.stdout.write(key_lines.exported(lines, os.uname().nodename, settings.machine.number))
    sys.stdout.flush()
    return 0


def import_(which: Which) -> int:
    """The exit status. Blocks until all is read, and until the monitor, if it runs, has read the key file.

    Raises LbadaptorError, OSError.
    """
    if sys.stdin.isatty():
        raise click.UsageError(f"the keys are read from standard input: {_OVER_SSH}")
    settings = which_monitor.settings(which)
    theirs = _given()
    _compare_numbers(settings, theirs)
    path = settings.key_file
    status = _status(settings)
    with key_file.locked(settings):
        ours = key_file.read(path) if os.path.lexists(path) else None
        after = theirs if ours is None else ours.with_those_of(theirs)
        if ours is None:
            key_file.make(settings, KeyLines(after.keys, after.believed))
        elif after != ours:
            key_file.replace(path, after)
    if after == ours:
        print(f"{path}: nothing to change, these keys are there", flush=True)
        if status is None or os.stat(path).st_mtime <= status["began"]:
            return 0  # otherwise an import was broken off before the monitor read the file
    else:
        print(f"{path}: {_what_was_done(ours, after)}", flush=True)
    if status is not None:
        try:
            key_file.read_anew(which, settings, status)
        except NoAnswer as error:
            raise NoAnswer(f"{error}. The keys are in the file; `lbctl reexec` has the monitor read it") from None
    print(_what_comes_next(ours, after, running=status is not None))
    return 0


def _given() -> KeyLines:
    data = sys.stdin.buffer.read(MAX_BYTES + 1)
    try:
        if len(data) > MAX_BYTES:
            raise KeyFileError(f"it is longer than {MAX_BYTES} bytes")
        return key_lines.parse_strictly(data)
    except KeyFileError as error:
        raise KeyFileError(f"standard input is no key file: {error}; nothing was changed") from None


def _compare_numbers(settings: Settings, theirs: KeyLines) -> None:
    found = key_lines.exporter(theirs.comments)
    if found is not None and found[0] != os.uname().nodename and found[1] == settings.machine.number:
        print(
            f"lbctl: note: {found[0]}, where these keys come from, has the same [machine] number as this machine: "
            f"{found[1]}. Give each its own, before AppServers of both get the same ticket",
            file=sys.stderr,
        )


def _status(settings: Settings) -> dict[str, Any] | None:
    """The monitor's; None if it does not run. Raises NoAnswer where it runs and cannot be asked."""
    try:
        return client.ask(settings.control_socket)
    except (NotAllowed, NotInTime):
        raise
    except NoAnswer:
        return None


def _what_was_done(ours: KeyLines | None, after: KeyLines) -> str:
    if ours is None:
        return f"made, with {texts.count(len(after.all), 'key')}"
    said = []
    if after.signing != ours.signing:
        said.append("the key that signs there signs here now; the one of before still verifies tickets")
    if after.believed not in ("", ours.believed):
        said.append("a new key is believed, and does not sign")
    if others := after.all - ours.all - {after.signing, after.believed}:
        said.append(f"{texts.count(len(others), 'older key')} added")
    return (
        "; ".join(said) or "the key that is believed here is an old one there: it verifies tickets, and will not sign"
    )


def _what_comes_next(ours: KeyLines | None, after: KeyLines, *, running: bool) -> str:
    said = []
    if not running:
        said.append("No monitor runs here: it reads the file when it starts.")
    elif ours is not None and after.signing != ours.signing:
        said.append(
            "New AppServers hand out tickets that all machines know. `lbctl restart` replaces those that run; when "
            "none of before is left: lbctl rotate-key --finish"
        )
    if after.believed:
        said.append("When all machines have the key that is believed, have it sign on each: lbctl rotate-key --sign")
    return "\n".join(said) or "Apache knows them within seconds; nothing else is to be done."


command = Group(
    "key",
    "bring the keys of this machine to others",
    [
        Command(
            "make",
            "make the key file of the first machine",
            make,
            examples=["lbctl key make"],
            more="A machine that is alone needs no such command: its monitor makes the file at its first start.",
        ),
        Command(
            "export",
            "write the key file to standard output",
            export,
            examples=[_OVER_SSH],
            more="For root and others who may read the key file.",
        ),
        Command(
            "import",
            "add keys from standard input to the key file",
            import_,
            examples=[_OVER_SSH],
            more=(
                "The key that signs there signs here from now on. This machine's own keys still verify tickets until "
                "`lbctl rotate-key --finish`. It works before the first start of the monitor, too. The same import "
                "again changes nothing."
            ),
        ),
    ],
    [_OVER_SSH],
    more="They are secret: send them over ssh, and never by mail or in a repository.",
)
