"""What stands against an installation, before anything is written."""

from __future__ import annotations

import grp
import os
import pwd
import re
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

from monitor.apacheconfig import apache_check
from monitor.check.users import is_user
from monitor.install import virtual_hosts
from monitor.install.facts import Facts
from monitor.install.machine import Machine
from monitor.install.records import Records
from monitor.install.wanted import APACHE, APACHE_GROUP, USER, Refused, Wanted

_PROGRAMS = ("/usr/sbin/a2enmod", "/usr/sbin/apache2ctl")
_MOD_WSGI = "/usr/lib/apache2/modules/mod_wsgi.so"
_LINKED = re.compile(rb"libpython(\d+\.\d+)").search
_NOBODY = "nobody"
"""Whom files are readable for as for a user who is to be made yet."""


def of_machine(machine: Machine) -> Iterator[str]:
    """What is missing before an application is looked at."""
    if os.geteuid() != 0:
        yield "only root can install: it writes in /etc, and starts services"
    if not all(machine.place(program).exists() for program in _PROGRAMS):
        yield "Debian's Apache is missing: apt-get install apache2"
    elif not machine.place(f"{APACHE}/mods-available/wsgi.load").exists():
        yield "Apache's mod_wsgi is missing: apt-get install libapache2-mod-wsgi-py3"
    elif (linked := _python_of_mod_wsgi(machine)) not in ("", ours := f"{sys.version_info[0]}.{sys.version_info[1]}"):
        yield (
            f"Apache's mod_wsgi runs Python {linked}, and lbadaptor is installed in Python {ours} ({sys.prefix}): "
            f"install it in Debian's own, `/usr/bin/python3 -m venv {sys.prefix}`"
        )
    if not machine.place("/run/systemd/system").exists():
        yield "systemd does not run here: the steps by hand are in docs/howto/install-by-hand.md"


def _python_of_mod_wsgi(machine: Machine) -> str:
    try:
        linked = _LINKED(machine.place(_MOD_WSGI).read_bytes())
    except OSError:
        return ""
    return linked[1].decode() if linked else ""


def of_names(machine: Machine, wanted: Wanted, found: Facts, records: Records) -> Iterator[str]:
    """Whether another application, or a site of the administrator's own, has what is wanted."""
    record = records.find(wanted.name)
    if record is None and machine.read(wanted.config) is not None:
        yield (
            f"the name {wanted.name} is taken: {wanted.config} is there, by hand or left by `lbctl uninstall`; take "
            "another name, or move that file away"
        )
    if record and (record.wanted.host, record.wanted.path) != (wanted.host, wanted.path):
        yield (
            f"{wanted.name} is installed at {record.wanted.at}: `lbctl uninstall {wanted.name}` first, to install it "
            "elsewhere"
        )
    sites = virtual_hosts.files(found.dump, wanted.host)
    if not wanted.host and not sites and virtual_hosts.any_is_there(found.dump):
        yield "Debian's default site is not enabled in Apache, and others are: say which one, --host NAME"
    there = {record.wanted.apache_file for record in records if record.wanted.at == wanted.at} | {wanted.apache_file}
    by_hand = there.isdisjoint(apache_check.files(found.dump))
    if by_hand and virtual_hosts.has_adaptor(found.dump, wanted.host, wanted.path):
        yield (
            f"an application that `lbctl install` does not know is at {wanted.at}: take its Include out of that "
            "virtual host, or give this one another --host or --path"
        )
    for other in records.others(wanted.name):
        theirs = other.wanted
        if theirs.host == wanted.host and theirs.path == wanted.path:
            yield f"{theirs.name} is installed at {theirs.at} already: give this one another --host or --path"
        elif theirs.host == wanted.host and wanted.path and theirs.path and _nested(wanted.path, theirs.path):
            yield f"{theirs.name} is installed at {theirs.at}: neither path may lie within the other"


def _nested(one: str, other: str) -> bool:
    return f"{one}/".startswith(f"{other}/") or f"{other}/".startswith(f"{one}/")


def of_application(machine: Machine, wanted: Wanted, found: Facts, toml: str) -> list[str]:
    """What `lbmonitor --check` says as the user that the service will run as. Blocks for a minute at most."""
    with tempfile.TemporaryDirectory(prefix="lbadaptor-") as folder:
        config = Path(folder, f"{wanted.name}.toml")
        config.write_text(toml)
        os.chmod(folder, 0o755)
        config.chmod(0o644)
        as_user: tuple[str, ...] = ()
        if wanted.user in ("", USER):
            user = USER if is_user(USER) else _NOBODY
            as_user = ("runuser", "-u", user, "-G", APACHE_GROUP, "--")
        elif not is_user(wanted.user):
            return [f"there is no user {wanted.user}: `useradd --system {wanted.user}`"]
        elif pwd.getpwnam(wanted.user).pw_uid == 0:
            return ["--user root: an application that visitors reach is not to run as root: take another user"]
        elif _is_in_apaches_group(wanted.user):
            return [
                f"{wanted.user} is in Apache's group, {APACHE_GROUP}, and could read the key file: take another user"
            ]
        done = machine.run(*as_user, f"{found.prefix}/bin/lbmonitor", "--config", str(config), "--check")
        if done.code == 0:
            return []
        lines = [line.replace(f"{config}: ", "").removeprefix("lbmonitor: ") for line in done.said.splitlines()]
        return [line for line in lines if line and not line.startswith("note: ")]


def _is_in_apaches_group(user: str) -> bool:
    try:
        apaches = grp.getgrnam(APACHE_GROUP).gr_gid
    except KeyError:
        return False
    return apaches in os.getgrouplist(user, pwd.getpwnam(user).pw_gid)


def refuse(faults: list[str]) -> None:
    """Raise Refused with all that stands against an installation."""
    if faults:
        raise Refused("nothing was changed:" + ("\n  " if len(faults) > 1 else " ") + "\n  ".join(faults))
