"""`lbctl`: look at a running monitor and give it orders; `lbctl demo` shows the whole at work.

This names the commands. Each is imported when it is called, so that none waits for what others need.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Sequence

import click

from lbadaptor.commands import version
from lbadaptor.contract.errors import LbadaptorError
from lbadaptor.log import texts
from monitor.contract.orders import ORDERS
from monitor.ctl.commands import base, completion, order
from monitor.ctl.commands.which_monitor import Which

INTERRUPTED = 130
"""The exit status after Ctrl-C, as shells have it."""
LOOKING = ("status", "top", "check", "doctor", "sessions", "events", "log", "settings")
WITH_A_FILE = (
    *LOOKING,
    "drain",
    "restart",
    "stop",
    "rotate-key",
    "key",
    "apache-config",
    "haproxy-config",
    "install",
    "uninstall",
    "demo",
    "completion",
)
"""Commands that have a file of their own in `monitor.ctl.commands`. The others are orders."""
NAMES = tuple(dict.fromkeys((*LOOKING, *ORDERS, *WITH_A_FILE)))
"""As the help lists them."""


class Lbctl(click.Group):
    """The group of all commands."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(NAMES)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name in WITH_A_FILE:
            module = importlib.import_module(f"monitor.ctl.commands.{cmd_name.replace('-', '_')}")
            found: click.Command = module.command
            return found
        return order.of(ORDERS[cmd_name]) if cmd_name in ORDERS else None


lbctl = Lbctl(
    completion.PROGRAM,
    help="Look at a running monitor, and give it orders.",
    no_args_is_help=False,
    params=[
        *base.which_options(),
        click.Option(
            ["--version"],
            is_flag=True,
            expose_value=False,
            is_eager=True,
            callback=lambda ctx, _, given: _version(ctx) if given else None,
            help="Show the version and exit.",
        ),
    ],
)


def _version(context: click.Context) -> None:
    print(f"{completion.PROGRAM} {version()}")
    context.exit()


def main(arguments: Sequence[str] | None = None) -> int:
    """The exit status: 0 done, 1 not done, 130 after Ctrl-C. Wrong options: SystemExit with 2."""
    try:
        given = None if arguments is None else list(arguments)
        return int(
            lbctl.main(
                given,
                completion.PROGRAM,
                complete_var=completion.VARIABLE,
                standalone_mode=False,
                obj=Which(),
            )
        )
    except click.UsageError as error:
        error.show()
        raise SystemExit(error.exit_code) from None
    except click.Abort:
        return INTERRUPTED
    except LbadaptorError as error:
        print(f"lbctl: {error}", file=sys.stderr)
    except OSError as error:
        where = f"{error.filename}: " if error.filename else ""
        print(f"lbctl: {where}{texts.what(error)}", file=sys.stderr)
    return 1
