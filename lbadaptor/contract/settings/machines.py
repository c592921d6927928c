"""What contradicts itself in [machine]."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterator
from ipaddress import IPv4Address, IPv6Address

from lbadaptor.contract.address import Address
from lbadaptor.contract.settings.schema import Settings
from lbadaptor.contract.settings.sections.machine import NO_NUMBER, Machine

_IP = IPv4Address | IPv6Address


def contradictions(settings: Settings) -> Iterator[tuple[str, str]]:
    """The key that is wrong, and what is wrong with it, in words for people."""
    machine, usual = settings.machine, Machine()
    if machine.number == NO_NUMBER:
        for key in ("agent", "front", "weight", "sessions"):
            if getattr(machine, key) != getattr(usual, key):
                yield key, f"{key} is for one of several machines: it goes with number, which is missing"
    elif machine.sessions and not machine.agent:
        yield "sessions", "sessions has no use without agent, which tells HAProxy how full this machine is"
    for text in machine.front:
        if why := _why_no_address(text):
            yield "front", f'front: "{text}" is {why}; expected the address of a HAProxy, such as "10.0.0.5"'
    if machine.agent:
        yield from (("agent", f'agent = "{machine.agent}" {why}') for why in _agent(settings))


def _agent(settings: Settings) -> Iterator[str]:
    machine, servers = settings.machine, settings.appservers
    try:
        agent = Address.parse(machine.agent)
    except ValueError:
        yield 'is not address:port, such as "10.0.0.11:9900" or "[fd00::11]:9900"'
        return
    if why := _why_no_address(agent.host):
        yield f"has {why}; expected an address of this machine"
        return
    address = _address(agent.host)
    if address.is_global:
        yield "is a public address: anybody could ask there; take a private one, or loopback"
    elif not address.is_loopback and not machine.front:
        yield "is not loopback, and front, which says who may ask there, is missing"
    if not agent.port:
        yield "has port 0; HAProxy has to know the port"
    elif 0 <= agent.port - servers.base_port < settings.slots and _listens(servers.host, address):
        last = servers.base_port + settings.slots - 1
        yield f"takes a port of the AppServers, which are {servers.base_port} to {last}"


def _why_no_address(text: str) -> str:
    """What it is if it is not the address of one machine; empty: it is."""
    try:
        address = _address(text)
    except ValueError:
        return "a network" if "/" in text else "a name"
    if "%" in text:
        return "an address with a zone, which neither Apache nor HAProxy knows"
    if address.is_unspecified:
        return "the wildcard address"
    if address.is_multicast or address == IPv4Address("255.255.255.255"):
        return "a multicast or broadcast address"
    return ""


def _address(text: str) -> _IP:
    """An IPv4 address that is written as IPv6 is that IPv4 address. Raises ValueError."""
    address = ipaddress.ip_address(text)
    return getattr(address, "ipv4_mapped", None) or address


def _listens(host: str, address: _IP) -> bool:
    """Whether AppServers that listen on `host` listen on this address, as far as their names tell."""
    if host == "localhost":
        return address.is_loopback
    try:
        theirs = _address(host)
    except ValueError:
        return False
    return theirs == address or (theirs.is_unspecified and (theirs.version == 6 or address.version == 4))
