"""`lbctl uninstall`: take back what `lbctl install` wrote and enabled."""

from __future__ import annotations

import os
import sys

import click

from monitor.ctl.commands.base import Command, confirm, flag
from monitor.ctl.commands.which_monitor import Which

PARAMETERS: list[click.Parameter] = [
    click.Argument(["name"], metavar="NAME"),
    flag("yes", "ask nothing"),
    flag("dry-run", "say what would be taken back, and take nothing back"),
    flag("force", "remove files that were changed since they were written, too"),
]


def run(which: Which, name: str, yes: bool, dry_run: bool, force: bool) -> int:
    """The exit status. Blocks for minutes at most. Raises LbadaptorError, OSError."""
    from monitor.install import taking_back
    from monitor.install.machine import Machine
    from monitor.install.records import Records
    from monitor.install.wanted import Refused

    if which.config or which.socket:
        raise click.UsageError("it goes by the application's name; it takes neither --config nor --socket")
    machine = Machine()
    records = Records(machine)
    leaving = taking_back.prepare_leaving(machine, records, name, force)
    for step in taking_back.steps(leaving):
        print(f"  {step}")
    if dry_run:
        return 0
    if os.geteuid() != 0:
        raise Refused("only root can take it back")
    if not yes and not confirm("Take this back?"):
        return 1
    failed = taking_back.take_back(machine, records, leaving, lambda step: print(f"  {step}", flush=True))
    for why in failed:
        print(f"lbctl: {why}", file=sys.stderr)
    if failed:
        print("lbctl: not all was taken back; mend it, and give this command again", file=sys.stderr)
        return 1
    print(f"{name} is taken back. What stays:")
    for line in taking_back.left(leaving, records):
        print(f"  {line}")
    return 0


command = Command(
    "uninstall",
    "take back what install wrote and enabled for an application, and stop it",
    run,
    PARAMETERS,
    ["lbctl uninstall shop"],
    more="Files that were changed since are kept, and named.",
    which=False,
)
