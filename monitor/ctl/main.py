"""`lbctl`: look at a running monitor and give it orders; `lbctl demo` shows the whole at work."""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from lbadaptor.commands import version
from lbadaptor.contract.errors import LbadaptorError, SettingsError
from lbadaptor.contract.settings import DEFAULT_FILE, Settings, load, snapshot
from lbadaptor.log import texts
from monitor.arbiter.systemd import Systemd
from monitor.contract.client import NOT_YOURS, NoAnswer, ask
from monitor.ctl import progress

COLUMNS = ("slot", "state", "for", "sessions", "in flight", "served", "memory", "pid", "address", "note")


def table(status: dict[str, Any]) -> str:
    """The status for people."""
    rows = [COLUMNS, *(_row(server) for server in status["appservers"])]
    widths = [max(len(row[column]) for row in rows) for column in range(len(COLUMNS))]
    lines = ["  ".join(text.ljust(width) for text, width in zip(row, widths, strict=True)).rstrip() for row in rows]
    head = f"monitor {status['pid']} · {status['servers']} AppServers asked for, {status['slots']} slots"
    if status["standby"]:
        head += f" · {status['standby']} in standby"
    if status["release"]:
        done, of = status["replaced"]
        head += f" · release: {done} of {of} replaced, {status['release']}"
    if status["stopping"]:
        head += " · stopping"
    if never_set := status.get("session_cookie", {}).get("never_set"):
        lines += ["", f"note: {never_set}."]
    problems = [f"PROBLEM: {text}" for text in status.get("problems", ())]
    return "\n".join([*problems, head, status["address_file"], "", *lines])


def _row(server: dict[str, Any]) -> tuple[str, ...]:
    notes = (
        [f"to be replaced: {', '.join(server['leaving'])}"] if server["leaving"] and server["state"] == "OK" else []
    )
    if server["standby"]:
        notes.append("standby")
    if server["state"] == "DYING" and server["sessions"]:
        notes.append(f"the last session ends in {server['longest_session'] or 0:.0f} s at the latest")
    if server["why"] or server.get("next_try") is not None:
        notes.append(_why_and_when(server))
    busy = "" if server["in_flight"] is None else f"{server['in_flight']}/{server['threads']}"
    memory = "" if server["memory"] is None else f"{server['memory'] / 1e6:.0f} MB"
    return (
        str(server["slot"]),
        server["state"],
        _duration(server["for"]),
        str(server["sessions"]),
        busy,
        "" if server["served"] is None else str(server["served"]),
        memory,
        str(server["pid"] or ""),
        server["address"],
        "; ".join(notes),
    )


def _why_and_when(server: dict[str, Any]) -> str:
    """Why one does not serve, and when something is done about it."""
    why, due = server["why"], server.get("next_try")
    if due is None:
        return str(why)
    when = "tried again" if server["state"] == "BACKOFF" else "ended, if it does not answer,"
    return f"{when} in {due:.0f} s" + (f": {why}" if why else "")


def _duration(seconds: float) -> str:
    for unit, size in (("d", 86400), ("h", 3600), ("m", 60)):
        if seconds >= 2 * size:
            return f"{seconds / size:.0f} {unit}"
    return f"{seconds:.0f} s"


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="lbctl", description="Look at a running monitor, and give it orders.")
    where = parser.add_mutually_exclusive_group()
    where.add_argument("--config", type=Path, help=f"the monitor's lbadaptor.toml (default {DEFAULT_FILE})")
    where.add_argument("--socket", type=Path, help="its control socket, instead")
    parser.add_argument("--version", action="version", version=f"lbctl {version()}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    status = commands.add_parser("status", help="the AppServers, one a line")
    status.add_argument("--json", action="store_true", help="everything, for programs")
    for order, about in (
        ("drain", "replace an AppServer; it takes no new visitors, and leaves after its last session"),
        ("undrain", "let a DYING AppServer take new visitors again"),
    ):
        commands.add_parser(order, help=about).add_argument("slot", type=int, metavar="SLOT")
    restart = commands.add_parser(
        "restart", help="a release: replace every AppServer, then drain it, a few at a time"
    )
    restart.add_argument("--now", action="store_true", help="end sessions; only what is in flight may finish")
    wait = restart.add_mutually_exclusive_group()
    wait.add_argument("--no-wait", action="store_true", help="do not wait until all are replaced")
    wait.add_argument(
        "--wait", type=_seconds, default=float("inf"), metavar="SECONDS", help="wait so long, not until it is over"
    )
    commands.add_parser("reexec", help="upgrade the monitor in place; its AppServers go on")
    stop = commands.add_parser("stop", help="end everything in order")
    stop.add_argument(
        "--all", action="store_true", help="with or without a monitor: whatever runs from its run folder"
    )
    apache = commands.add_parser(
        "apache-config", help="print Apache's configuration for the fast lane, which takes no Python"
    )
    apache.add_argument("--slots", type=int, metavar="N", help="for so many slots (default: all that there may be)")
    apache.add_argument(
        "--mount", default="", metavar="PATH", help="where the application is mounted (the whole site)"
    )
    apache.add_argument(
        "--apache", default="", metavar="COMMAND", help="what tells Apache's configuration (apache2ctl, apachectl …)"
    )
    apache.add_argument("--share", type=Path, metavar="FOLDER", help="where lbadaptor's snippets are for Apache")
    apache.add_argument(
        "--keep-out",
        action="append",
        default=[],
        metavar="PATH",
        help="a path that is not the application's, besides those that Apache's configuration tells of",
    )
    apache.add_argument(
        "--unchecked",
        action="store_true",
        help="do not look at Apache's configuration, neither for authorisation in <Directory> or <Files> nor for "
        "paths that are not the application's",
    )
    apache.add_argument(
        "--check",
        type=Path,
        metavar="FILE",
        help="write nothing; tell whether a file written before still fits the settings and Apache's configuration",
    )
    commands.add_parser(
        "demo", add_help=False, help="run a private Apache, a monitor and AppServers, until Ctrl-C (demo --help)"
    )
    return parser


def _seconds(text: str) -> float:
    with contextlib.suppress(ValueError):
        if 0 < (seconds := float(text)) < float("inf"):
            return seconds
    raise argparse.ArgumentTypeError(f"a number of seconds greater than 0 is wanted, not {text!r}")


def _restart(path: Path, options: argparse.Namespace) -> int:
    """Order it, and wait; 1 when not all are replaced."""
    print(ask(path, "restart", now=options.now)["text"], flush=True)
    if options.no_wait:
        return 0
    bar = sys.stdout.isatty()
    return progress.follow(lambda: ask(path), _say if bar else _tell, time.sleep, bar=bar, limit=options.wait)


def _tell(text: str) -> None:
    """What went wrong, to standard error."""
    print(text, end="", flush=True, file=sys.stderr if text.startswith("lbctl: ") else sys.stdout)


def _say(text: str) -> None:
    print(text, end="", flush=True)


def _stop_all(settings: Settings) -> int:
    from monitor.ctl import stop_all

    _refuse_strangers(settings.run_folder)
    # Of a unit's ExecStopPost; it takes twice the grace at most (leftovers.end).
    Systemd(os.environ).extend(2 * (settings.monitor.stop_grace + stop_all.MARGIN) + stop_all.MARGIN)
    left, killed = stop_all.end(settings)
    print(f"nothing runs from {settings.run_folder} any more; {left} AppServers were left over, {killed} were killed")
    return 0


def _refuse_strangers(run_folder: Path) -> None:
    """Whoever may not read state.json nor signal the AppServers would find nothing to end. Raises NoAnswer."""
    try:
        owner = os.stat(run_folder).st_uid
    except FileNotFoundError:
        return
    except OSError as error:
        raise NoAnswer(f"{run_folder}: {texts.what(error)}") from None
    if os.geteuid() not in (0, owner):
        raise NoAnswer(f"{run_folder}: {NOT_YOURS}")


# Which monitor is meant.


def _socket(options: argparse.Namespace) -> Path:
    """Where orders go; while lbadaptor.toml is broken, to the monitor that has accepted it before. Raises
    SettingsError."""
    if options.socket is not None:
        given: Path = options.socket
        return given
    config = options.config or DEFAULT_FILE
    settings, error, folders = snapshot.folders(config)
    if settings is not None:
        return settings.control_socket
    assert error is not None
    for folder in folders:
        with contextlib.suppress(OSError, SettingsError):
            accepted = snapshot.read(folder / snapshot.NAME)
            if accepted.is_of(config):
                print(f"lbctl: note: {error}; the monitor goes by what it has accepted before", file=sys.stderr)
                return accepted.settings.control_socket
    raise error


def _config(options: argparse.Namespace) -> Path:
    """The lbadaptor.toml that is meant: with --socket, the one that the monitor behind it goes by.

    Raises NoAnswer where nobody tells it.
    """
    if options.socket is None:
        named: Path = options.config or DEFAULT_FILE
        return named
    try:
        told = ask(options.socket).get("config")
    except NoAnswer as error:
        told = _left_behind(options.socket)
        if told is None:
            raise NoAnswer(f"{error}; name its lbadaptor.toml with --config instead") from None
    if not isinstance(told, str):
        raise NoAnswer(f"{options.socket}: the monitor does not tell its lbadaptor.toml; name it with --config")
    config = Path(told)
    there = load(config).control_socket
    if os.path.realpath(there) != os.path.realpath(options.socket):
        raise NoAnswer(
            f"{options.socket}: its monitor goes by {config}, which now has another run folder, {there.parent}"
        )
    return config


def _left_behind(control_socket: Path) -> str | None:
    """What a monitor that crashed has left in its run folder."""
    try:
        config = snapshot.read(control_socket.parent / snapshot.NAME).config
    except (OSError, SettingsError):
        return None
    return config[0] if config else None


def main(arguments: Sequence[str] | None = None) -> int:
    """The exit status: 0 done, 1 not done."""
    options, others = _parser().parse_known_args(arguments)
    try:
        if options.command == "demo":
            return _demo(options, others)
        if others:
            _parser().error(f"unrecognized arguments: {' '.join(others)}")
        return _obey(options)
    except LbadaptorError as error:
        print(f"lbctl: {error}", file=sys.stderr)
    except OSError as error:
        where = f"{error.filename}: " if error.filename else ""
        print(f"lbctl: {where}{texts.what(error)}", file=sys.stderr)
    return 1


def _demo(options: argparse.Namespace, others: Sequence[str]) -> int:
    """Become the demo, a program of its own. Raises NoAnswer, OSError."""
    if options.socket or options.config:
        raise NoAnswer("the demo has a monitor and settings of its own; it takes neither --config nor --socket")
    os.execv(sys.executable, [sys.executable, "-I", "-m", "monitor.demo", *others])


def _obey(options: argparse.Namespace) -> int:
    """Raises LbadaptorError, OSError."""
    if options.command == "apache-config":
        from monitor.apacheconfig import write

        options.config = _config(options)
        return write.run(options)
    if options.command == "stop" and options.all:
        return _stop_all(load(_config(options)))
    path = _socket(options)
    if options.command == "restart":
        return _restart(path, options)
    if options.command == "status":
        status = ask(path)
        print(json.dumps(status, indent=2) if options.json else table(status))
    else:
        print(ask(path, options.command, getattr(options, "slot", None))["text"])
    return 0
