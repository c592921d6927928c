"""`lbctl settings`: each setting's value, where it comes from, and when a change takes effect."""

from __future__ import annotations

import json
import sys
from typing import Any, get_args, get_type_hints

import click
import msgspec

from lbadaptor.contract.settings import load
from lbadaptor.contract.settings.load import given_in
from lbadaptor.contract.settings.schema import SECTIONS
from monitor.contract import client
from monitor.contract.client import NoAnswer
from monitor.contract.fingerprint import fingerprint
from monitor.ctl.commands import which_monitor
from monitor.ctl.commands.base import Command, flag
from monitor.ctl.commands.which_monitor import Which
from monitor.ctl.terminal.table import aligned

COLUMNS = ("setting", "value", "from", "a change takes effect with")
LONGEST = 48
"""Characters of a value that are shown to people."""


def run(which: Which, name: str, as_json: bool) -> int:
    """The exit status. Raises LbadaptorError."""
    config = which_monitor.config(which)
    settings = load(config)
    try:
        status = client.ask(settings.control_socket)
    except NoAnswer as error:
        status = {}
        print(f"lbctl: note: {error}; what was set at run time is not known", file=sys.stderr)
    if status and status.get("settings") != fingerprint(settings):
        print(f"lbctl: note: {config} has changed since the monitor read it; see the last column", file=sys.stderr)
    if status.get("machine", {}).get("leaving"):
        print("lbctl: note: this machine is leaving, by `lbctl drain --all` at run time", file=sys.stderr)
    rows = [
        row
        for row in _rows(settings, given_in(config), status)
        if name in (*row["setting"].split("."), "", row["setting"])
    ]
    if not rows:
        raise NoAnswer(f"there is no setting {name!r}")
    if as_json:
        print(json.dumps(rows, indent=2))
    else:
        cells = [(one["setting"], _short(one["value"]), one["from"], one["takes effect"]) for one in rows]
        print("\n".join(aligned([COLUMNS, *cells])))
    return 0


def _rows(settings: msgspec.Struct, given: set[tuple[str, str]], status: dict[str, Any]) -> list[dict[str, Any]]:
    """Of every setting."""
    run_time = status.get("run_time", {})
    at_run_time = {"servers": run_time.get("servers"), "weights": run_time.get("weights") or None}
    rows = []
    for section, struct in SECTIONS.items():
        for name, hint in get_type_hints(struct, include_extras=True).items():
            value = msgspec.to_builtins(getattr(getattr(settings, section), name))
            source = "lbadaptor.toml" if (section, name) in given else "default"
            effect = " + ".join(step.value for step in get_args(hint)[1].extra["takes effect"])
            if section == "appservers" and at_run_time.get(name) is not None:
                source = f"run time ({source}: {_short(value)})"
                value = at_run_time[name]
            rows.append({"setting": f"{section}.{name}", "value": value, "from": source, "takes effect": effect})
    return rows


def _short(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= LONGEST else f"{text[: LONGEST - 1]}…"


command = Command(
    "settings",
    "show the value of each setting, where it comes from, and when a change takes effect",
    run,
    [
        click.Argument(["name"], default="", metavar="[NAME]"),
        flag("json", "print this as JSON, for programs", "as_json"),
    ],
    ["lbctl settings", "lbctl settings appservers", "lbctl settings servers"],
    more="NAME: of a section, or of a setting. What was set at run time (`lbctl scale`, `lbctl weight`) is marked.",
)
