"""`lbctl apache-config`: print or check Apache's configuration for the fast lane."""

from __future__ import annotations

import argparse
from pathlib import Path

from monitor.ctl.commands import which_monitor

ABOUT = "print Apache's configuration for the fast lane, which takes no Python"


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--slots", type=int, metavar="N", help="for so many slots (default: all that there may be)")
    parser.add_argument(
        "--mount", default="", metavar="PATH", help="where the application is mounted (the whole site)"
    )
    parser.add_argument(
        "--apache", default="", metavar="COMMAND", help="what tells Apache's configuration (apache2ctl, apachectl …)"
    )
    parser.add_argument("--share", type=Path, metavar="FOLDER", help="where lbadaptor's snippets are for Apache")
    parser.add_argument(
        "--keep-out",
        action="append",
        default=[],
        metavar="PATH",
        help="a path that is not the application's, besides those that Apache's configuration tells of",
    )
    parser.add_argument(
        "--unchecked",
        action="store_true",
        help="do not look at Apache's configuration, neither for authorisation in <Directory> or <Files> nor for "
        "paths that are not the application's",
    )
    parser.add_argument(
        "--check",
        type=Path,
        metavar="FILE",
        help="write nothing; tell whether a file written before still fits the settings and Apache's configuration",
    )


def run(options: argparse.Namespace) -> int:
    """The exit status. Raises LbadaptorError."""
    from monitor.apacheconfig import write  # the other commands start faster without it

    options.config = which_monitor.config(options)
    return write.run(options)
