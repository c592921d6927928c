"""`lbctl stop`: order the end of everything; with `--all`, end whatever runs, with or without a monitor."""

from __future__ import annotations

import argparse

from monitor.ctl.commands import order, which_monitor


def arguments(parser: argparse.ArgumentParser) -> None:
    """Besides those of the order."""
    parser.add_argument(
        "--all",
        action="store_true",
        help="end whatever runs from the run folder, with or without a monitor; needs no control socket",
    )


def run(options: argparse.Namespace) -> int:
    """The exit status. Raises LbadaptorError, OSError."""
    if options.all:
        from monitor.ctl.commands import stop_all  # the other commands start faster without what it imports

        return stop_all.run(which_monitor.settings(options))
    return order.run(options)
