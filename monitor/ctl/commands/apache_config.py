"""`lbctl apache-config`: print or check Apache's configuration for the fast lane."""

from __future__ import annotations

import argparse
from pathlib import Path

from monitor.ctl.commands import which_monitor

ABOUT = "print Apache's configuration for the fast lane, in which Apache itself forwards requests"


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--slots", type=int, metavar="N", help="the number of slots (default: all that there may be)")
    parser.add_argument(
        "--mount", default="", metavar="PATH", help="where the application is mounted (default: the whole site)"
    )
    parser.add_argument(
        "--apache",
        default="",
        metavar="COMMAND",
        help="the command that shows Apache's configuration (default: apache2ctl, apachectl, httpd or apache2)",
    )
    parser.add_argument(
        "--share", type=Path, metavar="FOLDER", help="the folder of lbadaptor's snippets, as Apache sees it"
    )
    parser.add_argument(
        "--keep-out",
        action="append",
        default=[],
        metavar="PATH",
        help="a path that is not the application's, besides those in Apache's configuration; can be repeated",
    )
    parser.add_argument(
        "--unchecked",
        action="store_true",
        help="do not look at Apache's configuration: not for authorisation in <Directory> or <Files>, and not for "
        "paths that are not the application's",
    )
    parser.add_argument(
        "--check",
        type=Path,
        metavar="FILE",
        help="print no configuration; tell whether a file that was written before still fits the settings and "
        "Apache's configuration (exit status 1: it does not)",
    )


def run(options: argparse.Namespace) -> int:
    """The exit status. Raises LbadaptorError."""
    from monitor.apacheconfig import write  # the other commands start faster without it

    options.config = which_monitor.config(options)
    return write.run(options)
