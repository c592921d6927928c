"""What goes wrong in systemd's unit of a monitor, its drop-ins, and tmpfiles.d."""

from __future__ import annotations

import contextlib
import grp
import os
import sys
from collections.abc import Iterator
from pathlib import Path

from lbadaptor.contract.settings import Settings
from monitor.check import units
from monitor.check.adaptors import leads_here
from monitor.check.facts import Facts
from monitor.check.finding import CannotCheck, Finding, warning
from monitor.check.units import Unit, seconds
from monitor.contract.installed import SHARE
from monitor.contract.patience import exit_limit

SHIPPED_START, SHIPPED_STOP = 30.0, 60.0
"""Seconds: the time-outs of the unit as it is shipped. The monitor asks systemd for more where it needs more, but for
that it has to come to it: less than this is too little on a busy machine."""
_NOTIFIES = ("notify", "notify-reload")
_HOMES = (Path("/home"), Path("/root"), Path("/run/user"))
_TEMPORARY = (Path("/tmp"), Path("/var/tmp"))
_RELOAD = "`systemctl daemon-reload`"


def user(facts: Facts) -> Iterator[Finding]:
    """Whether everything runs as root."""
    unit = _unit(facts)
    row = unit.last("User")
    if (row is None or row.value in ("", "root", "0")) and not facts.settings.appservers.user:
        where = row.file if row else unit.name
        yield Finding(
            f"{where}: " + ("User=root: " if row else "there is no User=: ") + "monitor and application run as root",
            f"write `User=lbadaptor` there (docs/howto/another-user.md), {_RELOAD}, and restart the service",
        )


def enabled(facts: Facts) -> Iterator[Finding]:
    """Whether it starts at boot."""
    unit = _unit(facts)
    if not facts.enabled:
        yield warning(
            f"{unit.name} is not enabled: after a reboot there are no AppServers until somebody starts it",
            f"`systemctl enable {unit.name}`",
        )


def groups(facts: Facts) -> Iterator[Finding]:
    """Whether the monitor may give files to Apache's group."""
    unit, group = _unit(facts), facts.settings.files.apache_group
    if group and facts.monitor_user.uid and not _is_in(group, facts):
        yield Finding(
            f"{unit.name}: its user {facts.monitor_user.name} is not in the group {group}, [files] apache_group",
            f"`SupplementaryGroups={group}` in a drop-in (`systemctl edit {unit.name}`), and restart the service",
        )


def timeouts(facts: Facts) -> Iterator[Finding]:
    yield from judge_timeouts(_unit(facts), facts.settings)


def program(facts: Facts) -> Iterator[Finding]:
    """Whether the program that the unit starts is there."""
    unit = _unit(facts)
    row = unit.last("ExecStart")
    path = units.program(row.value) if row else ""
    if row and not os.access(path, os.X_OK):
        yield Finding(
            f"{row.file}: there is no program {path} for this user to start", "correct ExecStart= in a drop-in"
        )


def tmpfiles(facts: Facts) -> Iterator[Finding]:
    """Whether the run folder is there when Apache starts at boot."""
    settings = facts.settings
    if not leads_here(facts):
        raise CannotCheck("nothing in Apache's configuration leads to this application")
    if Path("/run") not in settings.run_folder.absolute().parents:
        return
    missing = [
        path
        for path in (settings.run_folder, settings.address_file, settings.caller_keys_file, settings.available_file)
        if str(path) not in facts.tmpfiles
    ]
    if missing:
        yield warning(
            f"nothing in tmpfiles.d makes {missing[0]}: an Apache that starts before the monitor at boot has no fast "
            "lane for first visits until it is reloaded",
            f"copy {SHARE}/tmpfiles.d/lbadaptor.conf to /etc/tmpfiles.d/{facts.config.stem}.conf, with "
            f"{settings.run_folder} in it",
        )


def folders(facts: Facts) -> Iterator[Finding]:
    """Whether the unit makes the folders that the settings name."""
    unit, settings = _unit(facts), facts.settings
    for key, setting, place, top in (
        ("RuntimeDirectory", "run_folder", settings.run_folder, Path("/run")),
        ("StateDirectory", "key_file", settings.key_file.parent, Path("/var/lib")),
    ):
        made = [top / word.partition(":")[0] for row in unit.all(key) for word in row.value.split()]
        if place.absolute().parent == top and made and place.absolute() not in made and not place.exists():
            yield Finding(
                f"[files] {setting} is in {place}, and {unit.name} makes {', '.join(map(str, made))}",
                f"name {made[0]} in {facts.config}, or `{key}={place.name}` in a drop-in",
            )


def sandbox(facts: Facts) -> Iterator[Finding]:
    """Whether units hide from one program what it needs."""
    settings = facts.settings
    unit, apache = facts.unit, None
    with contextlib.suppress(CannotCheck):
        apache = facts.apache_unit if leads_here(facts) else None
    used = [facts.config, settings.run_folder, Path(sys.prefix)]
    if settings.appservers.working_folder:
        used.append(Path(settings.folder, settings.appservers.working_folder))
    for one, wanted in ((unit, used), (apache, [settings.run_folder, settings.key_file])):
        for key, tops, values in (
            ("ProtectHome", _HOMES, ("yes", "true", "1", "on", "tmpfs")),
            ("PrivateTmp", _TEMPORARY, ("yes", "true", "1", "on", "disconnected")),
        ):
            row = one.last(key) if one else None
            if not row or row.value.lower() not in values:
                continue
            hidden = [path for path in wanted if any(top in path.absolute().parents for top in tops)]
            if hidden:
                yield Finding(
                    f"{row.file}: {key}={row.value} hides {hidden[0]}",
                    f"move it to another folder, or write `{key}=no` in a drop-in",
                )


def judge_timeouts(unit: Unit, settings: Settings) -> Iterator[Finding]:
    """Pure. A unit that systemd does not listen to gets no more time, however often the monitor asks."""
    kind, access = unit.last("Type"), unit.last("NotifyAccess")
    heard = kind is not None and kind.value in _NOTIFIES and (access is None or access.value != "none")
    stop = exit_limit(settings.monitor.stop_grace, settings.sessions_survive)
    for key, name, wanted, shipped in (
        ("TimeoutStartSec", "start_timeout", settings.monitor.start_timeout, SHIPPED_START),
        ("TimeoutStopSec", "stop_grace", stop, SHIPPED_STOP),
    ):
        row = unit.last(key) or unit.last("TimeoutSec")
        limit = seconds(row.value) if row else None
        needed = min(wanted, shipped) if heard or key == "TimeoutStartSec" else wanted
        if row is None or limit is None or limit >= needed:
            continue
        so = "the monitor is ended as it starts" if "Start" in key else "AppServers are killed with their sessions"
        yield warning(
            f"{row.file}: {key}={row.value} is less than [monitor] {name} asks for ({wanted:g} s): {so}",
            f"remove the line, or set {key}={max(needed, shipped):.0f}; {_RELOAD}",
        )
    if not heard:
        where = kind.file if kind else unit.name
        yield warning(
            f"{where}: systemd does not hear the monitor (Type={kind.value if kind else 'simple'}, "
            f"NotifyAccess={access.value if access else 'main'}): no time for AppServers to end, no WatchdogSec",
            f"remove the line: the unit as shipped has Type=notify and NotifyAccess=exec; {_RELOAD}",
        )


def _unit(facts: Facts) -> Unit:
    if facts.unit is None:
        raise CannotCheck(f"no systemd unit runs a monitor with {facts.config}")
    return facts.unit


def _is_in(group: str, facts: Facts) -> bool:
    try:
        return grp.getgrnam(group).gr_gid in facts.monitor_user.gids
    except KeyError:
        return True  # files.names says so
