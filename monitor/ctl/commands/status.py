"""`lbctl status`: show the AppServers."""

from __future__ import annotations

import argparse
import json

from monitor.contract import client
from monitor.ctl.commands import which_monitor
from monitor.ctl.terminal.table import table

ABOUT = "show the AppServers, one on a line"


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--json", action="store_true", help="print everything as JSON, for programs")


def run(options: argparse.Namespace) -> int:
    """The exit status. Raises LbadaptorError."""
    status = client.ask(which_monitor.control_socket(options))
    print(json.dumps(status, indent=2) if options.json else table(status))
    return 0
