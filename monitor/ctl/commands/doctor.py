"""`lbctl doctor`: find what is wrong with an installation, and say the cure."""

from __future__ import annotations

import json
import textwrap
from itertools import groupby
from pathlib import Path
from typing import Any

from lbadaptor.contract.errors import SettingsError
from lbadaptor.contract.settings import load
from lbadaptor.log import texts
from monitor.check import checks
from monitor.check.checks import Report
from monitor.check.facts import Facts
from monitor.check.finding import Severity, of_text
from monitor.ctl.commands import which_monitor
from monitor.ctl.commands.apache_config import APACHE
from monitor.ctl.commands.base import Command, flag
from monitor.ctl.commands.which_monitor import Which

LONGEST = 1000
"""Characters of one line."""
_LABEL = {Severity.ERROR: "ERROR  ", Severity.WARNING: "WARNING"}


def run(which: Which, as_json: bool, apache: str) -> int:
    """The exit status: 0 where nothing is found, 1 otherwise. Each check takes a limited time. Raises NoAnswer."""
    config = which_monitor.config(which)
    try:
        report = checks.run_all(Facts(load(config), config, apache))
    except SettingsError as error:
        report = Report()
        report.add(checks.SETTINGS, [of_text(str(error), f"correct {config}: nothing else can be checked before")])
    print(json.dumps(_for_programs(config, report), indent=2) if as_json else text(config, report))
    return 1 if report.found else 0


def text(config: Path, report: Report) -> str:
    """For people: what is wrong, by subjects, each with its cure; then what is well, and what was not checked."""
    lines = []
    for subject, group in groupby(report.found, key=lambda one: one[0].subject):
        lines.append(subject)
        for check, finding in group:
            lines.append(f"  {_LABEL[finding.severity]} {_line(finding.what)} [{check.name}]")
            if finding.cure:
                lines.append(f"       CURE {_line(finding.cure)}")
    count = texts.count(len(report.found), "finding") if report.found else "nothing is wrong"
    lines.append(f"{config}: {count}")
    if report.well:
        lines.append(f"Checked and well: {', '.join(check.about for check in report.well)}")
    why_not: dict[str, list[str]] = {}
    for check, why in report.not_made:
        why_not.setdefault(why, []).append(check.about)
    lines += [f"Not checked: {', '.join(names)}: {_line(why)}" for why, names in why_not.items()]
    return "\n".join(lines)


def _line(said: str) -> str:
    return texts.clean(textwrap.shorten(said, LONGEST, placeholder=" …"), LONGEST + 2)


def _for_programs(config: Path, report: Report) -> dict[str, Any]:
    return {
        "config": str(config),
        "findings": [
            {
                "check": check.name,
                "subject": check.subject,
                "severity": finding.severity.value,
                "what": finding.what,
                "cure": finding.cure,
            }
            for check, finding in report.found
        ],
        "well": [check.name for check in report.well],
        "not_checked": {check.name: why for check, why in report.not_made},
    }


command = Command(
    "doctor",
    "find what is wrong with an installation, and say the cure",
    run,
    [flag("json", "print everything as JSON, for programs", "as_json"), APACHE],
    ["lbctl doctor", "lbctl --config /etc/lbadaptor/shop.toml doctor", "lbctl doctor --json | jq '.findings[].what'"],
    more="Run it as root: another user may not look at everything, and it says what was not checked. It changes "
    "nothing. The exit status is 0 where nothing is wrong, 1 where something is, 2 for wrong options.",
)
