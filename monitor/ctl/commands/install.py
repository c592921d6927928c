"""`lbctl install`: make one application run on Debian's Apache and systemd."""

from __future__ import annotations

import os
import sys
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from monitor.ctl.commands.base import Command, confirm, flag
from monitor.ctl.commands.which_monitor import Which

if TYPE_CHECKING:
    from monitor.install.prepare import Prepared
    from monitor.install.wanted import Wanted

PATIENCE = 20.0
"""Seconds to wait for a page, besides those that an AppServer may take to start."""
NEEDED = {"name": "NAME", "app": "--app", "folder": "--folder", "session_cookie": "--session-cookie"}
OPTIONS: list[click.Parameter] = [
    click.Argument(["name"], required=False, metavar="[NAME]"),
    click.Option(["--app"], metavar="MODULE:CALLABLE", help="The application."),
    click.Option(["--folder"], metavar="FOLDER", help="The folder that its module is in."),
    click.Option(["--session-cookie"], metavar="NAME", help="What the application calls its session cookie."),
    click.Option(
        ["--host"],
        metavar="HOST",
        help="The host that it is on; if Apache has no virtual host for it, one is made (default: Debian's default "
        "site).",
    ),
    click.Option(
        ["--path"], metavar="PATH", help="Where on that host it is mounted (default: it has the whole site)."
    ),
    click.Option(["--servers"], type=click.IntRange(1, 1000), help="How many AppServers (default: 4)."),
    click.Option(["--user"], metavar="USER", help="AppServers run as this user (default: as the monitor's)."),
    flag("yes", "ask nothing"),
    flag("dry-run", "show what would be written, and write nothing"),
    flag("force", "replace files that were changed since they were written, or that somebody else wrote"),
]


def run(which: Which, yes: bool, dry_run: bool, force: bool, **given: Any) -> int:
    """The exit status. Blocks for minutes at most. Raises LbadaptorError, OSError."""
    from monitor.install import doing
    from monitor.install.machine import Machine
    from monitor.install.prepare import prepare
    from monitor.install.records import Records
    from monitor.install.wanted import Refused

    if which.config or which.socket:
        raise click.UsageError("it makes a lbadaptor.toml; it takes neither --config nor --socket")
    machine = Machine()
    records = Records(machine)
    known = records.find(given["name"] or "")
    wanted = _wanted(given, asdict(known.wanted) if known else {}, ask=sys.stdin.isatty() and not yes)
    prepared = prepare(machine, records, wanted, force)
    _show(prepared, whole=dry_run)
    if dry_run:
        return 0
    due = any(change.is_due for change in prepared.all_changes)
    if due and not yes and not confirm("Write this, start the monitor and reload Apache?"):
        return 1
    try:
        if not doing.install(machine, records, prepared, _tell, lambda: _wait_ready(prepared)):
            print("Nothing was to be changed.")
        _wait(prepared)
    except Refused as error:
        print(f"lbctl: {error}", file=sys.stderr)
        _what_now(prepared)
        return 1
    _next(prepared)
    return 0


def _tell(step: str) -> None:
    print(f"  {step}", flush=True)


def _wanted(given: dict[str, Any], known: dict[str, Any], ask: bool) -> Wanted:
    """From the options, an earlier installation, and the answers to questions. Raises UsageError where one is missing
    and nobody can be asked."""
    from monitor.install.wanted import Wanted

    found: dict[str, Any] = {**known, **{name: value for name, value in given.items() if value is not None}}
    missing = [name for name in NEEDED if not found.get(name)]
    if missing and not ask:
        raise click.UsageError(f"missing: {', '.join(NEEDED[name] for name in missing)}")
    for name in missing:
        found[name] = _question(name, found)
    if missing and "host" not in found and "path" not in found:
        found["host"] = click.prompt("Its host, such as www.example.com (empty: the default site)", default="")
        found["path"] = click.prompt("Its path there, such as /shop (/: it has the whole site)", default="/")
    path = found.get("path", "").strip("/")
    found |= {"folder": os.path.abspath(found["folder"]), "path": f"/{path}" if path else ""}
    return Wanted(**{**found, "host": found.get("host", "").lower()})


def _question(name: str, found: dict[str, Any]) -> str:
    from monitor.install.wanted import COOKIES, likely_cookie

    if name == "name":
        answer = click.prompt("A name for it, such as shop")
    elif name == "app":
        answer = click.prompt("The application, as module:callable")
    elif name == "folder":
        answer = os.path.abspath(click.prompt("The folder that its module is in", default=os.getcwd()))
    else:
        usual = ", ".join(f"{cookie} ({framework})" for framework, cookie in COOKIES.items())
        framework, likely = likely_cookie(_source(found))
        hint = f"it imports {framework}" if framework else f"usual: {usual}"
        answer = click.prompt(f"Its session cookie; {hint}", default=likely or None)
    return str(answer).strip()


def _source(found: dict[str, Any]) -> str:
    """The text of the application's module, as far as it is plain to see where that is."""
    place = Path(found["folder"], *found["app"].partition(":")[0].split("."))
    for file in (place.with_suffix(".py"), place / "__init__.py"):
        try:
            return file.read_text("utf-8", "replace")
        except OSError:
            continue
    return ""


def _show(prepared: Prepared, whole: bool) -> None:
    """The diff, and what is said of the fast lane."""
    from monitor.install.diff import shown

    colours = {"+": "green", "-": "red", "@": "cyan"}
    for line in shown(prepared.all_changes, whole):
        click.secho(line, fg=colours.get(line[:1]))
    for change in prepared.all_changes:
        if change.is_due:
            print(f"{'new' if change.before is None else 'changed':<8}{change.path}")
    if prepared.found.missing_modules:
        print(f"Apache's modules to be enabled: {', '.join(prepared.found.missing_modules)}")
    if prepared.no_fast_lane:
        print(f"No fast lane; Python handles all requests: {prepared.no_fast_lane}")
    for warning in prepared.warnings:
        print(f"lbctl: {warning}", file=sys.stderr)


def _wait_ready(prepared: Prepared) -> None:
    """Until an AppServer is ready. Raises Refused where none is."""
    from monitor.install import page

    settings = prepared.settings
    page.wait_ready(settings.control_socket, settings.monitor.start_timeout + PATIENCE, _tell)


def _wait(prepared: Prepared) -> None:
    """Until a page comes. Raises Refused where none does."""
    from monitor.install import doing, page, virtual_hosts

    if prepared.include_at:
        raise doing.must_be_included(prepared)
    wanted, monitor = prepared.wanted, prepared.settings.monitor
    place = page.Place(wanted.host, wanted.path, virtual_hosts.port(prepared.found.dump))
    print(f"Waiting for {place}", flush=True)
    print(page.wait(place, prepared.settings.control_socket, monitor.start_timeout + PATIENCE, _tell))


def _next(prepared: Prepared) -> None:
    wanted, lbctl = prepared.wanted, prepared.found.lbctl
    print("Next:")
    commands = (
        (f"{lbctl} --config {wanted.config} status", "the AppServers and their sessions"),
        (f"{lbctl} --config {wanted.config} restart", "a release of the application"),
        (f"{lbctl} --config {wanted.config} settings", "what can be set; then edit that file, and restart"),
        (f"{lbctl} --config {wanted.config} doctor", "what is wrong, if something is"),
        (f"journalctl -u {wanted.service}", "the log"),
        (f"{lbctl} uninstall {wanted.name}", "takes all of this back"),
    )
    width = max(len(command) for command, _ in commands)
    for command, does in commands:
        print(f"  {command:<{width}}  # {does}")


def _what_now(prepared: Prepared) -> None:
    """After something has failed."""
    wanted, lbctl = prepared.wanted, prepared.found.lbctl
    for line in (
        f"Nothing was taken back. Look at `{lbctl} --config {wanted.config} status` and",
        f"`journalctl -u {wanted.service}`, mend it, and give this command again: `{lbctl} install {wanted.name}`.",
        f"To take all back: `{lbctl} uninstall {wanted.name}`.",
    ):
        print(line, file=sys.stderr)


command = Command(
    "install",
    "make an application run on Debian's Apache and systemd: settings, units and Apache's configuration",
    run,
    OPTIONS,
    [
        "lbctl install",
        "lbctl install shop --app shop:application --folder /srv/shop --session-cookie session",
        "lbctl install board --app board:application --folder /srv/board --session-cookie sid --path /board --yes",
        "lbctl install shop    # again: after an upgrade of lbadaptor, for example",
    ],
    more="It asks for what is not given, and shows all files before it writes them. What is installed already stays"
    " as it is. `lbctl uninstall` takes it back.",
    which=False,
)
