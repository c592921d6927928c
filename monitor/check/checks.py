"""The list of all checks, and how they are run: each for a limited time."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

from lbadaptor.log import texts
from monitor.check import apache, application, files, neighbours, ports, readable, running, service
from monitor.check.access import Who
from monitor.check.facts import Facts
from monitor.check.finding import CannotCheck, Finding, NotAllowed, Severity
from monitor.check.users import who_runs_this

LIMIT = 60.0
"""Seconds that one check may take. Apache is asked twice for half a minute at most; a hung disk has no end."""
MODULE = "monitor.check"
"""What is run as the monitor's user."""
_SECURE_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
FILES, APPLICATION, PORTS = "Files and folders", "Application", "Ports"
APACHE, SYSTEMD, RUNNING, OTHERS = "Apache", "systemd", "Running monitor", "Other applications"
SESSION_COOKIE = "session-cookie"


@dataclass(frozen=True)
class Check:
    """One thing that is looked at."""

    name: str
    """as it is named in docs/reference/doctor.md"""
    subject: str
    about: str
    """what is well where nothing is found"""
    look: Callable[[Facts], Iterable[Finding]]
    own: bool = False
    """it is about what the monitor needs to work, and made as the monitor's user"""
    live: bool = False
    """it is about a site that runs; `lbmonitor --check`, which people run before that, passes it over"""

    def is_fault(self, finding: Finding) -> bool:
        """Whether `lbmonitor --check` fails by it: it keeps the monitor from working. Apache's and systemd's are
        notes there, so that a script that asks before a release is not stopped by them."""
        return finding.severity is Severity.ERROR and self.subject in (FILES, APPLICATION, PORTS)


CHECKS = (
    Check("monitor", RUNNING, "the monitor runs", running.answers, live=True),
    Check("appservers", RUNNING, "AppServers", running.appservers, live=True),
    Check("address-text", RUNNING, "address.text is fresh", running.address_text, live=True),
    Check(SESSION_COOKIE, RUNNING, "session cookie", running.session_cookie),
    Check("status-socket", RUNNING, "status.sock", running.status_socket, live=True),
    Check("survive", RUNNING, "sessions that survive", running.survive),
    Check("users-and-groups", FILES, "users and groups", files.names, own=True),
    Check("key-file", FILES, "key file", files.key_file, own=True),
    Check("run-folder", FILES, "run folder", files.run_folder, own=True),
    Check("control-socket", FILES, "control socket", files.control_socket, own=True),
    Check("other-folders", FILES, "spool and own folders", files.folders, own=True),
    Check("session-folder", FILES, "session folder", files.session_folder, own=True),
    Check("logs", FILES, "log files", files.logs, own=True),
    Check("sorry-page", FILES, "sorry page", files.sorry_page, own=True),
    Check("settings-readable", FILES, "settings for the monitor", readable.settings_of_monitor),
    Check("python-of-monitor", FILES, "Python for the monitor", readable.python_of_monitor),
    Check("open-to-all", FILES, "nothing open to all", readable.open_to_all),
    Check("application", APPLICATION, "the application's modules", application.application, own=True),
    Check("ports", PORTS, "ports are free", ports.taken),
    Check("reachable", PORTS, "ports are local", ports.reachable),
    Check("apache-configuration", APACHE, "Apache accepts its configuration", apache.configuration),
    Check("apache-runs", APACHE, "Apache runs", apache.runs, live=True),
    Check("apache-reload", APACHE, "Apache goes by its files", apache.reloaded, live=True),
    Check("apache-include", APACHE, "Include", apache.included, live=True),
    Check("apache-defines", APACHE, "Defines", apache.defines),
    Check("mod-wsgi", APACHE, "mod_wsgi is loaded", apache.module_wsgi),
    Check("main-interpreter", APACHE, "%{GLOBAL}", apache.interpreter),
    Check("passed-on", APACHE, "Authorization, chunks, HEAD", apache.passed_on),
    Check("ticket-cookie", APACHE, "ticket cookie", apache.ticket_cookie),
    Check("apache-file", APACHE, "written file is current", apache.written_files),
    Check("mod-wsgi-python", APACHE, "mod_wsgi's Python", apache.python),
    Check("python-of-apache", APACHE, "Python for Apache", readable.python_of_apache),
    Check("files-of-apache", APACHE, "files for Apache", readable.files_of_apache),
    Check("unit-user", SYSTEMD, "not root", service.user),
    Check("unit-enabled", SYSTEMD, "starts at boot", service.enabled),
    Check("unit-groups", SYSTEMD, "groups", service.groups),
    Check("unit-timeouts", SYSTEMD, "time-outs", service.timeouts),
    Check("unit-program", SYSTEMD, "program", service.program),
    Check("unit-folders", SYSTEMD, "folders that the unit makes", service.folders),
    Check("unit-sandbox", SYSTEMD, "what the unit hides", service.sandbox),
    Check("tmpfiles", SYSTEMD, "tmpfiles.d", service.tmpfiles),
    Check("neighbours", OTHERS, "their settings", neighbours.neighbours),
)
SETTINGS = Check("settings", FILES, "settings", lambda facts: ())
"""What is found where lbadaptor.toml is not to be read."""


@dataclass
class Report:
    """What came of checks."""

    found: list[tuple[Check, Finding]] = field(default_factory=list)
    well: list[Check] = field(default_factory=list)
    not_made: list[tuple[Check, str]] = field(default_factory=list)
    """with the reason"""

    def add(self, check: Check, findings: list[Finding] | CannotCheck) -> None:
        if isinstance(findings, CannotCheck):
            self.not_made.append((check, texts.clean(str(findings))))
        elif findings:
            self.found += [(check, finding) for finding in findings]
        else:
            self.well.append(check)


def run(facts: Facts, checks: Iterable[Check] = CHECKS) -> Report:
    """Make checks one after another, all of them as the user that runs this. Blocks for LIMIT each at most."""
    report = Report()
    for check in checks:
        report.add(check, _in_time(check, facts))
    return report


def run_all(facts: Facts) -> Report:
    """Make all checks, those of the monitor's own as its user. Blocks for LIMIT each at most."""
    own = _as_monitor(facts)
    report = Report()
    for check in CHECKS:
        report.add(check, own(check) if check.own else _in_time(check, facts))
    return report


def _in_time(check: Check, facts: Facts) -> list[Finding] | CannotCheck:
    """A thread that hangs on a disk cannot be ended: it is left alone, and ends with this process."""
    result: list[list[Finding] | CannotCheck] = []

    def look() -> None:
        try:
            result.append(list(check.look(facts)))
        except CannotCheck as error:
            result.append(error)
        except Exception as error:  # the others are of use nevertheless
            result.append(CannotCheck(f"it failed: {texts.of(error)}"))

    thread = threading.Thread(target=look, name=check.name, daemon=True)
    thread.start()
    thread.join(LIMIT)
    return result[0] if result else CannotCheck(f"it took more than {LIMIT:.0f} s")


# As the monitor's user, in a process of its own.


def encoded(report: Report) -> str:
    """What that process says."""
    return json.dumps(
        {
            "found": [(check.name, one.what, one.cure, one.severity.value) for check, one in report.found],
            "not_made": [(check.name, why) for check, why in report.not_made],
        }
    )


def _as_monitor(facts: Facts) -> Callable[[Check], list[Finding] | CannotCheck]:
    """What came of a check that was made as the monitor's user."""
    try:
        who = facts.monitor_user
        told = _ask(facts, who)
    except CannotCheck as error:
        failed = error
        return lambda check: failed

    def result(check: Check) -> list[Finding] | CannotCheck:
        for name, why in told["not_made"]:
            if name == check.name:
                return CannotCheck(why)
        return [
            Finding(what, cure, Severity(severity))
            for name, what, cure, severity in told["found"]
            if name == check.name
        ]

    return result


def _ask(facts: Facts, who: Who) -> dict[str, Any]:
    """Start the process, and wait for it. Raises CannotCheck."""
    options: dict[str, Any] = {}
    if who.uid != os.geteuid():
        if os.geteuid():
            raise NotAllowed(who_runs_this().name, f"check as the monitor's user {who.name}")
        # Nothing is made, so it does not matter which of the groups is the first one.
        options = {"user": who.uid, "group": min(who.gids), "extra_groups": sorted(who.gids)}
    if facts.unit:  # as systemd starts it
        options |= {"cwd": "/", "env": {"PATH": _SECURE_PATH}}
    try:
        done = subprocess.run(
            [sys.executable, "-I", "-m", MODULE, str(facts.config.absolute())],
            capture_output=True,
            text=True,
            timeout=2 * LIMIT,
            check=False,
            **options,
        )
        told: dict[str, Any] = json.loads(done.stdout)
    except subprocess.TimeoutExpired:
        raise CannotCheck(f"as the monitor's user {who.name} they took more than {2 * LIMIT:.0f} s") from None
    except OSError as error:
        raise CannotCheck(f"as the monitor's user {who.name}: {texts.of_os_error(error)}") from None
    except ValueError:
        last = (done.stderr.strip().splitlines() or [f"exit status {done.returncode}"])[-1]
        raise CannotCheck(f"as the monitor's user {who.name}: {texts.clean(last)}") from None
    return told
