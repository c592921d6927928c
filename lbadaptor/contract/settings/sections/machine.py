"""The section [machine]."""

from __future__ import annotations

from typing import Annotated

from msgspec import Struct

from lbadaptor.contract.settings.sections.row import RELEASE, RELEASE_AND_APACHE, RESTART_AND_APACHE, row

NO_NUMBER = -1
"""Of a machine that is alone."""


class Machine(Struct, forbid_unknown_fields=True, frozen=True):
    """[machine]: one of several machines behind HAProxy ([how](../howto/machines.md))."""

    number: Annotated[
        int,
        row(RESTART_AND_APACHE,
            "The number of this machine: another one for each machine. It makes the tickets of all machines "
            "different, and nobody can read it in them. -1: none, as for one machine alone.", ge=-1, le=999),
    ] = NO_NUMBER  # fmt: skip
    agent: Annotated[
        str,
        row(RELEASE,
            "Where the monitor answers HAProxy's agent-check, such as \"10.0.0.11:9900\": a loopback or private "
            "address of this machine. Empty: nowhere."),
    ] = ""  # fmt: skip
    front: Annotated[
        tuple[str, ...],
        row(RELEASE_AND_APACHE,
            "The addresses of the HAProxies in front. They alone may ask the agent and see the health page; Apache "
            "takes the visitor's address and scheme from nobody else."),
    ] = ()  # fmt: skip
    weight: Annotated[
        int,
        row(RELEASE,
            "This machine's share of new visitors, as against the other machines, for `lbctl haproxy-config`.",
            ge=1, le=256),
    ] = 100  # fmt: skip
    sessions: Annotated[
        int,
        row(RELEASE,
            "How many sessions this machine is made for: the more of them it has, the fewer new visitors it asks "
            "for. 0: sessions do not count, only how busy its AppServers are.", ge=0),
    ] = 0  # fmt: skip
