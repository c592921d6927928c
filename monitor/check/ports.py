"""The AppServers' ports: whether they are free, and who reaches them."""

from __future__ import annotations

import contextlib
import errno
import ipaddress
import socket
from collections.abc import Iterator

from lbadaptor.contract.address import Address, parse
from lbadaptor.contract.errors import AddressFileError
from lbadaptor.log import texts
from monitor.check.facts import Facts
from monitor.check.finding import CannotCheck, Finding, NotAllowed, warning
from monitor.check.listeners import Listener, owner
from monitor.check.users import who_runs_this

MAX_PORTS_NAMED = 5
"""Ports in use that are named."""


def taken(facts: Facts) -> Iterator[Finding]:
    """Ports that another program has."""
    servers = facts.settings.appservers
    family = socket.AF_INET6 if ":" in servers.host else socket.AF_INET
    in_use = []
    for port in range(servers.base_port, servers.base_port + facts.settings.slots):
        with socket.socket(family) as trial:
            trial.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                trial.bind((servers.host, port))
            except OSError as error:
                if error.errno == errno.EADDRINUSE:
                    in_use.append(port)
                    continue
                yield Finding(
                    f"[appservers] nobody can listen on {Address(servers.host, port)} (host, base_port): "
                    f"{texts.what(error)}",
                    "name an address of this machine, and a base_port above 1023",
                )
                return
    if in_use and (in_use := [port for port in in_use if port not in _ours(facts)]):
        named = ", ".join(map(str, in_use[:MAX_PORTS_NAMED])) + (" …" if len(in_use) > MAX_PORTS_NAMED else "")
        by = _by_whom(facts, in_use)
        yield Finding(
            f"[appservers] base_port: ports {named} on {servers.host} are somebody else's{by}",
            "choose another base_port",
        )


def reachable(facts: Facts) -> Iterator[Finding]:
    """Ports that other machines reach, past Apache."""
    servers = facts.settings.appservers
    cure = 'set [appservers] host = "127.0.0.1", or close the ports to all but Apache\'s machine in the firewall'
    if not _is_local(servers.host):
        yield warning(f"[appservers] host = {servers.host!r}: other machines reach the AppServers, past Apache", cure)
        return
    ports = range(servers.base_port, servers.base_port + facts.settings.slots)
    for one in facts.listeners:
        if one.port in ports and not one.is_local and one.port in _ours(facts):
            yield warning(
                f"an AppServer listens on {Address(one.host, one.port)}, which other machines reach, although "
                f"[appservers] host is {servers.host!r} now",
                f"`{facts.lbctl} restart` starts AppServers with the new settings",
            )


def _is_local(host: str) -> bool:
    """Names are not looked up: that may take long. The setting's usual name counts as what it is."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host in ("localhost", "ip6-localhost")


def _by_whom(facts: Facts, ports: list[int]) -> str:
    try:
        there: list[Listener] = facts.listeners
    except CannotCheck:
        return ""
    owners = dict.fromkeys(owner(one) for one in there if one.port in ports[:MAX_PORTS_NAMED])
    return f": {', '.join(owners)}" if owners else ""


def _ours(facts: Facts) -> set[int]:
    """Ports that AppServers of this application have now. The monitor also tells of those that end, which are not in
    address.text. Raises NotAllowed."""
    ours = set()
    with contextlib.suppress(CannotCheck):
        ours = {int(server["address"].rpartition(":")[2]) for server in facts.status["appservers"] if server["pid"]}
    path = facts.settings.address_file
    try:
        ours |= {entry.address.port for entry in parse(path.read_text("utf-8")).entries}
    except PermissionError:
        raise NotAllowed(who_runs_this().name, f"read {path}") from None
    except (OSError, UnicodeDecodeError, AddressFileError):
        pass
    return ours
