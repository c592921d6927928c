"""`lbctl`: look at a running monitor and give it orders; `lbctl demo` shows the whole at work.

This parses the command line and calls the command.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from lbadaptor.commands import version
from lbadaptor.contract.errors import LbadaptorError
from lbadaptor.contract.settings import DEFAULT_FILE
from lbadaptor.log import texts
from monitor.contract.orders import ORDERS
from monitor.ctl.commands import apache_config, demo, order, restart, status, stop

MORE_THAN_ORDERS = {"restart": restart, "stop": stop}
"""Orders whose command has options of its own besides those of the order."""


def parser() -> argparse.ArgumentParser:
    """A subcommand for each order, and the others. Each sets `run`."""
    made = argparse.ArgumentParser(prog="lbctl", description="Look at a running monitor, and give it orders.")
    where = made.add_mutually_exclusive_group()
    where.add_argument("--config", type=Path, help=f"the monitor's lbadaptor.toml (default {DEFAULT_FILE})")
    where.add_argument("--socket", type=Path, help="the monitor's control socket, instead of its lbadaptor.toml")
    made.add_argument("--version", action="version", version=f"lbctl {version()}")
    commands = made.add_subparsers(dest="command", required=True, metavar="COMMAND")

    def add(
        name: str,
        about: str,
        run: Callable[[argparse.Namespace], int],
        *arguments: Callable[[argparse.ArgumentParser], None],
    ) -> None:
        command = commands.add_parser(name, help=about, description=f"{about[0].upper()}{about[1:]}.")
        for add_to in arguments:
            add_to(command)
        command.set_defaults(run=run)

    add("status", status.ABOUT, status.run, status.arguments)
    for name, one in ORDERS.items():
        if name in MORE_THAN_ORDERS:
            add(name, one.about, MORE_THAN_ORDERS[name].run, order.arguments(one), MORE_THAN_ORDERS[name].arguments)
        else:
            add(name, one.about, order.run, order.arguments(one))
    add("apache-config", apache_config.ABOUT, apache_config.run, apache_config.arguments)
    commands.add_parser("demo", add_help=False, help=demo.ABOUT)
    return made


def main(arguments: Sequence[str] | None = None) -> int:
    """The exit status: 0 done, 1 not done; restart: 130 after Ctrl-C. Wrong options: SystemExit with 2."""
    options, others = parser().parse_known_args(arguments)
    try:
        if options.command == "demo":
            return demo.run(options, others)
        if others:
            parser().error(f"unrecognized arguments: {' '.join(others)}")
        return int(options.run(options))
    except LbadaptorError as error:
        print(f"lbctl: {error}", file=sys.stderr)
    except OSError as error:
        where = f"{error.filename}: " if error.filename else ""
        print(f"lbctl: {where}{texts.what(error)}", file=sys.stderr)
    return 1
