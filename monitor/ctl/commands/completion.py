"""`lbctl completion bash|zsh`: print what makes a shell complete the words of lbctl."""

from __future__ import annotations

import click
from click.shell_completion import get_completion_class

from monitor.contract.client import NoAnswer
from monitor.ctl.commands.base import Command
from monitor.ctl.commands.which_monitor import Which

PROGRAM = "lbctl"
VARIABLE = "_LBCTL_COMPLETE"
"""The environment variable by which the shell asks lbctl for words."""


def run(which: Which, shell: str) -> int:
    """The exit status. Raises NoAnswer where the shell is not there."""
    kind = get_completion_class(shell)
    assert kind is not None
    try:
        print(kind(click.get_current_context().find_root().command, {}, PROGRAM, VARIABLE).source())
    except OSError as error:
        raise NoAnswer(f"{shell}: {error.strerror}") from None
    return 0


command = Command(
    "completion",
    "print what makes a shell complete lbctl's commands and options",
    run,
    [click.Argument(["shell"], type=click.Choice(["bash", "zsh"]))],
    [
        "lbctl completion bash > /etc/bash_completion.d/lbctl",
        "lbctl completion zsh > /usr/share/zsh/site-functions/_lbctl",
    ],
    which=False,
)
