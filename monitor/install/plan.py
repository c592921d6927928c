"""From what is wanted and what is there to the files of an installation. Pure.

The texts of units, sysusers.d and tmpfiles.d are those in lbadaptor's share folder.
"""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass

from monitor.install import virtual_hosts
from monitor.install.facts import Facts
from monitor.install.wanted import APACHE, APACHE_GROUP, USER, Refused, Wanted

FIRST_PORT = 9000
STEP = 100
"""Between the first ports of applications."""
LAST_PORT = 30_000
"""Beyond it are the ports that the kernel gives to clients (ip_local_port_range)."""
UNIT, SYSUSERS, TMPFILES = "lbadaptor@.service", "sysusers.d/lbadaptor.conf", "tmpfiles.d/lbadaptor.conf"
"""In the share folder."""
UNITS = "/etc/systemd/system"
SYSUSERS_FILE = "/etc/sysusers.d/lbadaptor.conf"
UNITS_PREFIX = "/opt/lbadaptor"
"""The Python that the units name."""
ROOT_MAY = (
    "CapabilityBoundingSet=CAP_SETUID CAP_SETGID CAP_KILL CAP_CHOWN CAP_FOWNER CAP_DAC_OVERRIDE",
    "CapabilityBoundingSet=CAP_SYS_NICE CAP_SYS_RESOURCE",
)
"""What a monitor needs whose AppServers run as another user (docs/howto/another-user.md)."""


@dataclass(frozen=True)
class File:
    path: str
    text: str


def toml(wanted: Wanted, facts: Facts) -> str:
    """The application's lbadaptor.toml. Raises Refused where no ports are free."""
    first, ticket = _ports_and_ticket(wanted, facts)
    servers = [f"servers = {wanted.servers}"] if wanted.servers else []
    user = [f"user = {_text(wanted.user)}"] if wanted.user else []
    lines = (
        f"# Written by `lbctl install {wanted.name}`. All settings and what they mean: lbctl --config {wanted.config}"
        " settings",
        "",
        "[application]",
        f"app = {_text(wanted.app)}",
        f"session_cookie = {_text(wanted.session_cookie)}",
        f"ticket_cookie = {_text(ticket)}",
        "",
        "[appservers]",
        *servers,
        f"base_port = {first}",
        f"working_folder = {_text(wanted.folder)}",
        *user,
        "",
        "[sessions]",
        '# survive = "anything"  # sessions outlive their process',
        f"folder = {_text(f'{wanted.state_folder}/sessions')}",
        "",
        "[files]",
        f"run_folder = {_text(wanted.run_folder)}",
        f"key_file = {_text(f'{wanted.state_folder}/keys')}",
        f"apache_group = {_text(APACHE_GROUP)}",
    )
    return "\n".join(lines) + "\n"


def _text(value: str) -> str:
    """As TOML has it: its basic strings have the escapes of JSON. Another character than that stays as it is."""
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")


def _ports_and_ticket(wanted: Wanted, facts: Facts) -> tuple[int, str]:
    """The first port, and the ticket's name: those of the earlier installation, or what no other one has."""
    taken = {other.application.ticket_cookie for other in facts.neighbours.values()}
    name = re.sub(r"\W", "_", wanted.name).upper()
    tickets = (f"__{name}{number or ''}__" for number in range(len(taken) + 2))
    ticket = next(one for one in tickets if one not in (*taken, wanted.session_cookie))
    if facts.mine is not None:
        ticket = facts.mine.application.ticket_cookie
    slots = 4 * (wanted.servers or 4)
    others = [
        range(other.appservers.base_port, other.appservers.base_port + other.slots)
        for other in facts.neighbours.values()
    ]
    mine = range(0)
    if facts.mine is not None:
        mine = range(facts.mine.appservers.base_port, facts.mine.appservers.base_port + facts.mine.slots)
    for first in (*mine[:1], *range(FIRST_PORT, LAST_PORT - slots, STEP)):
        ports = range(first, first + slots)
        meets = any(ports.start < other.stop and other.start < ports.stop for other in others)
        if not meets and facts.listening.isdisjoint({*ports} - {*mine}):
            return first, ticket
    raise Refused(f"no {slots} ports in a row are free from {FIRST_PORT} to {LAST_PORT}")


def files(wanted: Wanted, facts: Facts, share: Mapping[str, str], settings: str, apache: str) -> list[File]:
    """The files that an installation has for itself or shares with others that `lbctl install` made.

    `share` has the texts of UNIT, SYSUSERS and TMPFILES. `settings` is its lbadaptor.toml, `apache` what
    `lbctl apache-config` writes.
    """
    found = [
        File(wanted.config, settings),
        File(SYSUSERS_FILE, share[SYSUSERS]),
        File(f"/etc/tmpfiles.d/lbadaptor-{wanted.name}.conf", _of_instance(share[TMPFILES], wanted)),
        File(f"{UNITS}/{UNIT}", share[UNIT]),
    ]
    if rows := [*_other_prefix(facts.prefix, share[UNIT]), *_other_user(wanted)]:
        found.append(File(f"{UNITS}/{wanted.service}.service.d/install.conf", "\n".join(("[Service]", *rows, ""))))
    found.append(File(wanted.apache_file, apache))
    return found


def conf(wanted: Wanted) -> File:
    """What includes the application in an Apache without virtual hosts."""
    head = f"# lbadaptor for {wanted.at}; written by `lbctl install {wanted.name}`."
    text = f"{head}\n{virtual_hosts.includes(wanted.apache_file)}\n"
    return File(f"{APACHE}/conf-available/{wanted.conf_name}.conf", text)


def site(wanted: Wanted, port: int, there: str, before: Collection[str]) -> File:
    """The virtual host that is made for the application's host, with the applications that it includes already.

    `there`: what its file has now. `before`: lines that the application's line has to stand before.
    """
    text = virtual_hosts.made(wanted.host, port, dict.fromkeys(virtual_hosts.application_lines(there)))
    line = virtual_hosts.includes(wanted.apache_file)
    return File(site_file(wanted), virtual_hosts.with_include(text, wanted.host, line, before))


def site_file(wanted: Wanted) -> str:
    return f"{APACHE}/sites-available/{wanted.site_name}.conf"


def _of_instance(text: str, wanted: Wanted) -> str:
    return "".join(
        line if line.startswith("#") else line.replace("/run/lbadaptor", wanted.run_folder, 1)
        for line in text.splitlines(keepends=True)
    )


def _other_prefix(prefix: str, unit: str) -> Iterable[str]:
    """Rows of a drop-in for lbadaptor in another Python than the unit names; it is the unit of all applications."""
    if prefix == UNITS_PREFIX:
        return
    if not re.fullmatch(r"[\w/.+@-]+", prefix):  # it stands within a shell's quotes, too
        raise Refused(
            f"{prefix} cannot stand in a unit: lbadaptor's folder needs a path of letters, digits and /.+@-_"
        )
    for line in unit.splitlines():
        name, equals, value = line.partition("=")
        if name.startswith("Exec") and equals and UNITS_PREFIX in value:
            yield f"{name}="
            yield f"{name}={value.replace(UNITS_PREFIX, prefix)}"


def _other_user(wanted: Wanted) -> Iterable[str]:
    """Rows of a drop-in for AppServers that run as another user than the monitor, which is root then."""
    if wanted.user not in ("", USER):
        yield from ("User=", *ROOT_MAY)
