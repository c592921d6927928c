"""A real AppServer's gateway within the test's own process, for an adaptor to ask."""

from __future__ import annotations

import contextlib
import os
import socket
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from stage import GENERATION, Site

from lbadaptor.appserver.http.admission import Admission
from lbadaptor.appserver.http.gateway import Gateway
from lbadaptor.appserver.http.status import Status
from lbadaptor.appserver.process.messages import Assignment
from lbadaptor.appserver.sessions.table import SessionTable
from lbadaptor.contract.address import Address, Entry, Identity

Application = Callable[[dict[str, Any], Any], Iterable[bytes]]


@contextlib.contextmanager
def living(site: Site, application: Application, *, unix: bool, threads: int = 8, slot: int = 0) -> Iterator[Entry]:
    """An AppServer of a site; the line of address.text that names it, which is still to be published.

    `unix`: it listens on its Unix socket, too, and there an adaptor comes.
    """
    identity = Identity(slot, GENERATION + slot)
    ticket = site.keys.ticket(identity)
    assignment = Assignment(
        "shop:application",
        "sid",
        threads=threads,
        generation=identity.generation,
        ticket=ticket,
        caller_key=site.keys.caller_key(ticket),
    )
    listeners = [socket.socket()]
    listeners[0].bind(("127.0.0.1", 0))
    address = Address(*listeners[0].getsockname())
    if unix:
        path = site.settings.unix_socket(slot)
        os.makedirs(os.path.dirname(path), exist_ok=True)
        listeners.append(socket.socket(socket.AF_UNIX))
        listeners[1].bind(path)
    status = Status(slot, identity.generation, Admission(threads, 256))
    gateway = Gateway(listeners, application, assignment, status, SessionTable(1800.0))
    gateway.start()
    try:
        yield Entry(ticket, address, site.entry(address).state, identity)
    finally:
        gateway.stop(10.0)
