"""How checks are run, and what `lbctl doctor` says of them."""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Iterable
from pathlib import Path

import pytest
from fake import CONFIG, MONITOR, facts

from monitor.check import checks
from monitor.check.access import Who
from monitor.check.checks import APACHE, CHECKS, FILES, SYSTEMD, Check, Report
from monitor.check.facts import ApacheHangs, ApacheRefuses, Facts
from monitor.check.finding import CannotCheck, Finding, NotAllowed, warning
from monitor.ctl.commands import doctor

BROKEN = Finding("it is broken", "mend it")


def check(name: str, *findings: Finding, error: Exception | None = None, subject: str = FILES) -> Check:
    def look(_: Facts) -> Iterable[Finding]:
        if error:
            raise error
        return findings

    return Check(name, subject, f"the {name}", look)


def test_names_are_names() -> None:
    assert len({one.name for one in CHECKS}) == len(CHECKS)


def test_each_check_is_found_well_or_not_made() -> None:
    given = [
        check("bad", BROKEN, warning("odd")),
        check("good"),
        check("hidden", error=NotAllowed("me", "look")),
        check("crashed", error=KeyError("x")),
    ]
    report = checks.run(facts(), given)
    assert [(one.name, finding.what) for one, finding in report.found] == [("bad", "it is broken"), ("bad", "odd")]
    assert [one.name for one in report.well] == ["good"]
    assert [(one.name, why.partition(":")[0]) for one, why in report.not_made] == [
        ("hidden", "me may not look; ask as root"),
        ("crashed", "it failed"),
    ]


def test_a_check_that_hangs_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    over = threading.Event()
    monkeypatch.setattr(checks, "LIMIT", 0.05)

    def look(one: Facts) -> Iterable[Finding]:
        one._once("disk", over.wait)
        return ()

    hung = Check("hung", FILES, "the disk", look)
    again = Check("again", FILES, "the disk", look)
    report = checks.run(facts(), [hung, again, check("good")])
    over.set()
    assert report.not_made == [(hung, "it took more than 0 s"), (again, "disk: no answer in time")]
    assert [one.name for one in report.well] == ["good"]


def test_an_apache_that_hangs_is_asked_once(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []
    monkeypatch.setattr("monitor.apacheconfig.ask_apache.includes", asked.append)
    with pytest.raises(ApacheHangs):
        _ = facts(dump=ApacheHangs("no answer")).sources
    assert asked == []
    monkeypatch.setattr("monitor.apacheconfig.ask_apache.includes", lambda _: [str(Path(__file__))])
    assert Path(__file__).read_text() in facts(dump=ApacheRefuses("an error")).sources.values()


@pytest.mark.parametrize(
    ("one", "finding", "fault"),
    [
        (check("key-file"), BROKEN, True),
        (check("key-file"), warning("odd"), False),
        (check("x", subject=APACHE), BROKEN, False),
        (check("x", subject=SYSTEMD), BROKEN, False),
    ],
)
def test_lbmonitor_check_fails_by_what_keeps_the_monitor_from_working(
    one: Check, finding: Finding, fault: bool
) -> None:
    assert one.is_fault(finding) is fault


# As the monitor's user.


def test_who_cannot_become_the_monitors_user_is_told_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    with pytest.raises(NotAllowed, match="may not check as the monitor's user lbadaptor; ask as root"):
        checks._ask(facts(), MONITOR)


def test_a_monitors_user_that_cannot_run_this_python(monkeypatch: pytest.MonkeyPatch) -> None:
    me = Who("me", os.geteuid(), frozenset((os.getegid(),)))
    monkeypatch.setattr("sys.executable", "/no/such/python")
    with pytest.raises(CannotCheck, match="as the monitor's user me: /no/such/python: No such file"):
        checks._ask(facts(), me)


def test_what_the_other_process_says_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    own = [one for one in CHECKS if one.own]
    report = Report([(own[0], BROKEN), (own[0], warning("odd"))], own[2:], [(own[1], "hidden")])
    monkeypatch.setattr(checks, "_ask", lambda *_: json.loads(checks.encoded(report)))
    result = checks._as_monitor(facts())
    assert result(own[0]) == [BROKEN, warning("odd")]
    assert str(result(own[1])) == "hidden"
    assert result(own[2]) == []


# What is said.

REPORT = Report(
    [(check("a"), BROKEN), (check("b", subject=APACHE), warning("odd\nand more"))],
    [check("c"), check("d")],
    [(check("e"), "no monitor runs"), (check("f"), "no monitor runs")],
)


def test_for_people_a_line_each() -> None:
    assert doctor.text(CONFIG, REPORT).splitlines() == [
        "Files and folders",
        "  ERROR   it is broken [a]",
        "       CURE mend it",
        "Apache",
        "  WARNING odd and more [b]",
        f"{CONFIG}: 2 findings",
        "Checked and well: the c, the d",
        "Not checked: the e, the f: no monitor runs",
    ]
    assert doctor.text(CONFIG, Report(well=[check("c")])).splitlines()[0] == f"{CONFIG}: nothing is wrong"


def test_for_programs() -> None:
    said = doctor._for_programs(CONFIG, REPORT)
    assert said["findings"][0] == {
        "check": "a",
        "subject": "Files and folders",
        "severity": "error",
        "what": "it is broken",
        "cure": "mend it",
    }
    assert (said["well"], said["not_checked"]) == (["c", "d"], {"e": "no monitor runs", "f": "no monitor runs"})
