"""`lbctl restart`: order a release, and wait until all AppServers are replaced."""

from __future__ import annotations

import argparse
import contextlib
import sys
import time

from monitor.contract import client
from monitor.ctl.commands import order, which_monitor
from monitor.ctl.terminal import progress


def arguments(parser: argparse.ArgumentParser) -> None:
    """Besides those of the order."""
    wait = parser.add_mutually_exclusive_group()
    wait.add_argument("--no-wait", action="store_true", help="do not wait until all are replaced")
    wait.add_argument(
        "--wait",
        type=_seconds,
        default=float("inf"),
        metavar="SECONDS",
        help="wait so long at most; the release goes on after that",
    )


def run(options: argparse.Namespace) -> int:
    """The exit status; 1 when not all are replaced. Blocks until the release is over. Raises LbadaptorError."""
    order.run(options)
    if options.no_wait:
        return 0
    path = which_monitor.control_socket(options)
    bar = sys.stdout.isatty()
    return progress.follow(
        lambda: client.ask(path), _write if bar else _write_errors_apart, time.sleep, bar=bar, limit=options.wait
    )


def _seconds(text: str) -> float:
    with contextlib.suppress(ValueError):
        if 0 < (seconds := float(text)) < float("inf"):
            return seconds
    raise argparse.ArgumentTypeError(f"a number of seconds greater than 0 is wanted, not {text!r}")


def _write(text: str) -> None:
    print(text, end="", flush=True)


def _write_errors_apart(text: str) -> None:
    """What went wrong goes to standard error."""
    print(text, end="", flush=True, file=sys.stderr if text.startswith("lbctl: ") else sys.stdout)
