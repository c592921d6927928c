"""Machines and peers, as the options of `lbctl haproxy-config` name them. Pure."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from lbadaptor.contract.address import Address, canonical
from lbadaptor.contract.errors import LbadaptorError
from lbadaptor.contract.settings import Settings

HTTP_PORT = 80
MAX_WEIGHT = 256
"""HAProxy's."""
_NAME = re.compile(r"[0-9A-Za-z_.-]{1,63}", re.ASCII).fullmatch


class Refused(LbadaptorError):
    """The options contradict each other, or HAProxy could not live with what they say."""


@dataclass(frozen=True)
class Machine:
    """One of the machines behind HAProxy."""

    name: str
    address: Address
    """where its Apache listens"""
    weight: int
    agent: Address | None
    """where its monitor answers the agent-check; None: nowhere"""


@dataclass(frozen=True)
class Peer:
    """One of a pair of HAProxies, which tell each other who sticks to which machine."""

    name: str
    address: Address


def machines(texts: Sequence[str], settings: Settings) -> list[Machine]:
    """Of `NAME=ADDRESS[:PORT][,weight=N][,agent=ADDRESS:PORT]`. What a text does not say is as on this machine.

    Raises Refused.
    """
    if not texts:
        raise Refused("no machine is named: --machine web1=10.0.0.11 --machine web2=10.0.0.12")
    found = [_machine(text, settings) for text in texts]
    _refuse_same("machines", "name", (one.name for one in found))
    _refuse_same("machines", "address", (str(one.address) for one in found))
    _refuse_same("machines", "agent", (str(one.agent) for one in found if one.agent))
    return found


def peers(texts: Sequence[str]) -> list[Peer]:
    """Of `NAME=ADDRESS:PORT`. Raises Refused."""
    found = []
    for text in texts:
        option = f"--peer {text}"
        name, address = _named(option, text)
        found.append(Peer(name, _address(option, address)))
    _refuse_same("peers", "name", (one.name for one in found))
    _refuse_same("peers", "address", (str(one.address) for one in found))
    return found


def _machine(text: str, settings: Settings) -> Machine:
    option = f"--machine {text}"
    first, *more = text.split(",")
    name, place = _named(option, first)
    address = _address(option, place, HTTP_PORT)
    said: dict[str, str] = {}
    for word in more:
        key, equals, value = word.partition("=")
        if not equals or key not in ("weight", "agent") or key in said:
            raise Refused(f"{option}: after the address come weight=N and agent=ADDRESS:PORT, each once")
        said[key] = value
    weight = said.get("weight", str(settings.machine.weight))
    if not (weight.isascii() and weight.isdigit() and 1 <= int(weight) <= MAX_WEIGHT):
        raise Refused(f"{option}: a weight is a number from 1 to {MAX_WEIGHT}")
    agent = _address(option, said["agent"]) if "agent" in said else _same_port(option, address, settings)
    return Machine(name, address, int(weight), agent)


def _same_port(option: str, address: Address, settings: Settings) -> Address | None:
    """Where the agent of a machine answers if it is set as this machine's is."""
    if not settings.machine.agent:
        return None
    ours = _address("[machine] agent", settings.machine.agent)
    if _is_loopback(ours) and not _is_loopback(address):
        raise Refused(
            f"{option}: where does its agent answer? [machine] agent = {settings.machine.agent} is this machine's "
            "own loopback address. Set a private address there, or add ,agent=ADDRESS:PORT"
        )
    return Address(address.host, ours.port)


def _named(option: str, text: str) -> tuple[str, str]:
    name, equals, rest = text.partition("=")
    if not (equals and _NAME(name)):
        raise Refused(f"{option}: NAME=ADDRESS is wanted, the name of letters, digits and ._-")
    return name, rest


def _address(option: str, text: str, port: int | None = None) -> Address:
    """An IP address and a port; `port` where none is named. Raises Refused."""
    if (host := _ip(text)) and port is not None:
        return Address(host, port)
    try:
        found = Address.parse(text)
    except ValueError as error:
        raise Refused(f"{option}: {error}, such as 10.0.0.11:9900 or [fd00::11]:9900") from None
    if not (host := _ip(found.host)):
        raise Refused(f"{option}: {found.host!r} is no IP address; HAProxy looks a name up only when it starts")
    if not found.port:
        raise Refused(f"{option}: 0 is no port")
    return Address(host, found.port)


def _ip(text: str) -> str:
    """An IP address as everybody writes it; empty if it is none, or one with a zone, which HAProxy does not know."""
    bare = text.removeprefix("[").removesuffix("]")
    try:
        ipaddress.ip_address(bare)
    except ValueError:
        return ""
    return "" if "%" in bare else canonical(bare)


def _is_loopback(address: Address) -> bool:
    return ipaddress.ip_address(address.host).is_loopback


def _refuse_same(who: str, what: str, values: Iterable[str]) -> None:
    seen = set[str]()
    for value in values:
        if value in seen:
            raise Refused(f"two {who} have one {what}, {value}")
        seen.add(value)
