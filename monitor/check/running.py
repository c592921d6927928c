"""What the running monitor tells, and what tells that none runs."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from lbadaptor.contract.address import parse
from lbadaptor.contract.errors import AddressFileError
from lbadaptor.contract.settings import NOTHING, Settings, snapshot
from lbadaptor.log import texts
from monitor.arbiter.files import session_folder
from monitor.check.facts import Facts
from monitor.check.finding import CannotCheck, Finding, Hangs, NotAllowed, of_text, warning
from monitor.check.users import who_runs_this

STALE = 45.0
"""Seconds after which adaptors take the monitor for gone: three times the longest `heartbeat`."""
MANY = 1000
"""Requests that were answered without any cookie, after which that is told."""


def answers(facts: Facts) -> Iterator[Finding]:
    """Whether a monitor runs for these settings."""
    try:
        status = facts.status
    except NotAllowed:
        raise
    except Hangs as error:
        kill = f"`systemctl kill -s KILL {facts.service}`"
        yield Finding(str(error), f"its log may tell why; {kill}: systemd starts it again, and AppServers stay")
        return
    except CannotCheck as error:
        journal = f"`journalctl -u {facts.service}`"
        yield Finding(str(error), f"`systemctl start {facts.service}`, and look at {journal} if it ends")
        return
    told = status.get("config")
    if isinstance(told, str) and told not in snapshot.paths(facts.config):
        yield Finding(
            f"the monitor that runs from {facts.settings.run_folder} goes by {told}, not by {facts.config}",
            "give each its own [files] run_folder",
        )


def appservers(facts: Facts) -> Iterator[Finding]:
    """AppServers that do not start or do not answer, and what the monitor itself complains of."""
    yield from judge_status(facts.status, facts.lbctl)


def session_cookie(facts: Facts) -> Iterator[Finding]:
    """Whether the application sets the cookie that the settings name."""
    name = facts.settings.application.session_cookie
    if not name:
        return
    try:
        status = facts.status
    except NotAllowed:
        raise
    except CannotCheck:
        raise CannotCheck(
            f'whether the application sets the cookie session_cookie = "{name}" cannot be known before its monitor '
            f"runs and visitors come; then `{facts.lbctl} status` and this check tell"
        ) from None
    yield from judge_cookie(name, status, facts.lbctl)


def survive(facts: Facts) -> Iterator[Finding]:
    """What a change of `survive` means for Apache, and for the session files that there are."""
    try:
        now = facts.status.get("survive", NOTHING)
    except CannotCheck:
        now = NOTHING
    yield from judge_survive(facts.settings, now)


def address_text(facts: Facts) -> Iterator[Finding]:
    """Whether address.text is up to date."""
    path = facts.settings.address_file
    try:
        age = time.time() - path.stat().st_mtime
        text = path.read_text("utf-8")
    except FileNotFoundError:
        raise CannotCheck(f"there is no {path}") from None
    except PermissionError:
        raise NotAllowed(who_runs_this().name, f"read {path}") from None
    except (OSError, UnicodeDecodeError) as error:
        raise CannotCheck(f"{path}: {texts.what(error)}") from None
    listening = {one.port for one in facts.listeners}
    yield from judge_address_text(path, text, age, listening, facts.service, facts.lbctl)


def judge_address_text(
    path: Path, text: str, age: float, listening: set[int], service: str, lbctl: str
) -> Iterator[Finding]:
    """Pure. `age`: seconds since it was written; `listening`: ports on which anybody listens."""
    try:
        entries = parse(text).entries
    except AddressFileError as error:
        yield Finding(f"{path}: {error}", "the monitor writes it anew at its next change; nobody else may write it")
        return
    if age > STALE and entries:
        yield Finding(
            f"{path} is stale: written {age:.0f} s ago, and the monitor writes it every 15 s at least",
            f"the monitor is gone or hangs: `systemctl kill -s KILL {service}`, or start it; AppServers stay",
        )
    gone = [str(entry.address) for entry in entries if entry.address.port not in listening]
    if gone and age > 1:  # one that ended this moment is not in the next
        yield Finding(
            f"{path} names AppServers where nobody listens: {', '.join(gone[:5])}",
            f"`{lbctl} status` tells what the monitor makes of them; if none runs, start it",
        )


def judge_status(status: dict[str, Any], lbctl: str) -> Iterator[Finding]:
    """Pure."""
    for server in status["appservers"]:
        if server["state"] in ("FAILING", "BACKOFF"):
            why = f": {server['why']}" if server.get("why") else ""
            yield Finding(
                f"slot {server['slot']} is {server['state']}{why}",
                f"`{lbctl} events --slot {server['slot']}` and the journal tell more; `{lbctl} restart "
                f"{server['slot']}` tries again at once",
            )
    if status.get("machine", {}).get("leaving"):
        yield warning(
            "this machine is leaving: it has asked balancers for no new visitors",
            f"`{lbctl} undrain --all`, if it is to stay",
        )
    if str(status.get("release", "")).startswith("failed: "):
        yield Finding(f"the release has {status['release']}", f"correct it, and `{lbctl} restart`")
    for problem in status.get("problems", ()):
        yield of_text(str(problem), "the monitor's journal tells more")


def judge_cookie(name: str, status: dict[str, Any], lbctl: str) -> Iterator[Finding]:
    """Pure. `name`: of the settings."""
    told = status.get("session_cookie") or {}
    right = (
        f"set [application] session_cookie to the name of the cookie that holds the session, and `{lbctl} restart`"
    )
    if told.get("name") != name:
        yield warning(
            f'the running monitor goes by session_cookie = "{told.get("name")}" until a release', f"`{lbctl} restart`"
        )
        return
    served = sum(server.get("served") or 0 for server in status["appservers"])
    if told.get("never_set"):
        yield warning(str(told["never_set"]), right)
    elif told.get("seen") is False and served >= MANY:
        yield warning(
            f'session_cookie = "{name}" may be wrong: {served} requests were served, and no answer set any cookie',
            right,
        )
    if told.get("refused"):
        yield Finding(
            f"browsers refuse the session cookie `{name}`, and the ticket with it: {told['refused']}",
            "let the application set Secure (Flask: SESSION_COOKIE_SECURE), and serve the site by https; unless "
            "Apache adds it (`Header edit Set-Cookie`)",
        )


def judge_survive(settings: Settings, now: str) -> Iterator[Finding]:
    """`now`: what the running monitor goes by."""
    then = settings.sessions.survive
    folder = settings.session_folder
    if then != NOTHING and now == NOTHING:
        yield warning(
            f'[sessions] survive = "{then}": adaptors of before do not know MOVED, and visitors get 502',
            "reload Apache before the release or start that sets it, if lbadaptor was upgraded since its last reload",
        )
    elif lost := session_folder.lost_by_change(now, settings):
        yield warning(f"with the next release: {lost}", "leave `survive` as it is, if these sessions matter")
    elif then == NOTHING and session_folder.is_of(settings):
        yield warning(
            f'{folder} is left from when sessions survived: with [sessions] survive = "{NOTHING}" nobody takes up or '
            "removes what is in it",
            "remove it when no AppServer of before is left",
        )


def status_socket(facts: Facts) -> Iterator[Finding]:
    """Whether members of status_group can ask."""
    settings = facts.settings
    _ = facts.status  # where no monitor runs there is none
    if settings.files.status_group and not os.path.lexists(settings.status_socket):
        yield warning(f"[files] status_group is set, and there is no {settings.status_socket}", "restart the monitor")
