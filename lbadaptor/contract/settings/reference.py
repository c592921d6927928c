"""The page docs/reference/settings.md, written from the rows: `python -m lbadaptor.contract.settings.reference`."""

from __future__ import annotations

import sys
from typing import Any, Literal, get_args, get_origin, get_type_hints

import msgspec
from msgspec import Meta

from lbadaptor.contract.settings.schema import SECTIONS


def page() -> str:
    """The text of docs/reference/settings.md."""
    lines = [
        "# Settings",
        "",
        "Written from `lbadaptor/contract/settings/sections` by `make docs`; do not edit.",
        "",
        "The monitor reads `lbadaptor.toml` when it starts and at each release (`lbctl restart`). It refuses unknown "
        "and contradictory settings. Settings that it has accepted count for all programs from that moment on, in "
        "Apache too, without a reload. Later changes of the file, right or wrong, have no effect until the next "
        "release ([how](../design/settings.md)). `lbmonitor --check` tells what is wrong in the file.",
        "",
        "The last column says what makes a change take effect:",
        "",
        "- *release*: `lbctl restart`. The monitor goes by the new value at once, and the adaptors in Apache as soon "
        "as they read the new address.text.",
        "- *release, with each new AppServer*: `lbctl restart`, too. It replaces every AppServer; new ones have the "
        "new value, and those that are still DYING keep the old one.",
        "- *restart of the monitor*: `systemctl restart lbadaptor`. This ends the AppServers, and their "
        "sessions unless these [survive](#sessions).",
        "- *reload of Apache*: `systemctl reload apache2`.",
        "- *new file for Apache*: write it anew (`lbctl apache-config --write FILE`), and reload Apache.",
        "- *new fast lane file*: write Apache's file anew (`lbctl apache-config --write FILE`), and reload Apache. "
        "Where the file has no [fast lane](fast-lane.md), nothing is to be done.",
    ]
    for section, struct in SECTIONS.items():
        about = (struct.__doc__ or "").partition(": ")[2]
        lines += ["", f"## [{section}]", "", about[0].upper() + about[1:], ""]
        lines += ["| setting | type | default | unit | meaning | takes effect |", "|---|---|---|---|---|---|"]
        hints = get_type_hints(struct, include_extras=True)
        defaults = {field.name: field for field in msgspec.structs.fields(struct)}
        for name, hint in hints.items():
            kind, meta = get_args(hint)
            default = defaults[name].default
            if defaults[name].default_factory is dict:
                default = {}
            shown = "required" if default is msgspec.NODEFAULT else f"`{msgspec.json.encode(default).decode()}`"
            unit, steps = meta.extra["unit"], " + ".join(step.value for step in meta.extra["takes effect"])
            shown = f"{_kind(kind)}{_bounds(meta)} | {shown} | {unit} | {meta.description} | {steps}"
            lines.append(f"| `{name}` | {shown} |")
    return "\n".join(lines) + "\n"


_ITEMS = {str: "text", int: "whole numbers"}
_VALUES = {str: "text", int: "whole number"}


def _kind(kind: Any) -> str:
    if get_origin(kind) is Literal:
        return " or ".join(f"`{value}`" for value in get_args(kind))
    if get_origin(kind) is tuple:
        item, *metas = get_args(get_args(kind)[0]) or get_args(kind)[:1]
        return f"list of {_ITEMS[item]}{''.join(map(_bounds, metas))}"
    if get_origin(kind) is dict:
        names, values = get_args(kind)
        value, *metas = get_args(values) or (values,)
        named = ", ".join(f"`{name}`" for name in get_args(names)) if get_origin(names) is Literal else "name"
        return f"table of {named} = {_VALUES[value]}{''.join(map(_bounds, metas))}"
    return {str: "text", int: "whole number", float: "number", bool: "`true` or `false`"}[kind]


def _bounds(meta: Meta) -> str:
    signs = (("ge", "≥"), ("gt", ">"), ("le", "≤"))
    return "".join(f", {sign} {getattr(meta, name):g}" for name, sign in signs if getattr(meta, name) is not None)


if __name__ == "__main__":
    sys.stdout.write(page())
