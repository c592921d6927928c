"""`lbctl apache-config`: print, write or check the file that Apache's configuration is to include."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from monitor.ctl.commands import base, which_monitor
from monitor.ctl.commands.base import Command
from monitor.ctl.commands.which_monitor import Which

APACHE = click.Option(
    ["--apache"],
    default="",
    metavar="COMMAND",
    help="The command that shows Apache's configuration (default: apache2ctl, apachectl, httpd or apache2).",
)
OPTIONS: list[click.Parameter] = [
    click.Option(
        ["--mode"],
        type=click.Choice(["embedded", "daemon", "cgi"]),
        default="embedded",
        help="How Apache runs the adaptor: within its own processes (the default), in processes of mod_wsgi's daemon "
        "mode, or as CGI.",
    ),
    click.Option(
        ["--lanes"],
        type=click.Choice(["auto", "both", "python"]),
        default="auto",
        help="python: without the fast lane, in which Apache itself forwards requests; both: refuse where it cannot "
        "be (default: auto, with it where it can be).",
    ),
    click.Option(
        ["--slots"],
        type=int,
        metavar="N",
        help="The number of slots in the fast lane (default: all that there may be).",
    ),
    base.mount(),
    APACHE,
    click.Option(
        ["--share"],
        type=click.Path(readable=False, path_type=Path),
        metavar="FOLDER",
        help="The folder of lbadaptor's snippets, as Apache sees it.",
    ),
    click.Option(
        ["--keep-out"],
        multiple=True,
        metavar="PATH",
        help="A path that is not to take the fast lane, besides those in Apache's configuration; can be repeated.",
    ),
    click.Option(
        ["--unchecked"],
        is_flag=True,
        help="Do not look at Apache's configuration: not for authorisation in <Directory> or <Files>, and not for "
        "paths that are not the application's.",
    ),
    base.write(),
    click.Option(
        ["--check"],
        type=click.Path(readable=False, path_type=Path),
        metavar="FILE",
        help="Print no configuration; tell whether a file that was written before still fits the settings and "
        "Apache's configuration (exit status 1: it does not).",
    ),
]


def run(which: Which, write: Path | None, check: Path | None, keep_out: tuple[str, ...], **options: Any) -> int:
    """The exit status. Raises LbadaptorError."""
    if write and check:
        raise click.UsageError("--write and --check exclude each other.")
    from monitor.apacheconfig import write as apacheconfig  # `lbctl --help` starts faster without it
    from monitor.apacheconfig.compose import Options

    chosen = Options(which_monitor.config(which), keep_out=list(keep_out), **options)
    return apacheconfig.run(chosen, write, check)


command = Command(
    "apache-config",
    "print or write the file to include in Apache's configuration: the adaptor, and the fast lane where it can be",
    run,
    OPTIONS,
    [
        "lbctl apache-config --write /etc/apache2/lbadaptor-shop.conf",
        "lbctl apache-config --check /etc/apache2/lbadaptor-shop.conf",
    ],
)
