"""`lbctl demo`: become the demo, a program of its own, which reads its own options."""

from __future__ import annotations

import os
import sys

import click

from monitor.contract.client import NoAnswer
from monitor.ctl.commands.base import Command
from monitor.ctl.commands.which_monitor import Which


def run(which: Which, words: tuple[str, ...]) -> int:
    """Does not return. `words` are the demo's options. Raises NoAnswer, OSError."""
    if which.socket or which.config:
        raise NoAnswer("the demo has a monitor and settings of its own; it takes neither --config nor --socket")
    os.execv(sys.executable, [sys.executable, "-I", "-m", "monitor.demo", *words])


command = Command(
    "demo",
    "run a private Apache, a monitor and AppServers, until Ctrl-C (demo --help)",
    run,
    [click.Argument(["words"], nargs=-1, type=click.UNPROCESSED)],
    which=False,
    add_help_option=False,
    context_settings={"ignore_unknown_options": True, "allow_interspersed_args": False},
)
