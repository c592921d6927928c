"""Finds AppServers that neither state.json nor address.text names, by a request to their sockets.

An AppServer refuses a request without an adaptor's headers, and names its generation in the refusal. The generation
is not a secret, and is believed only when a probe with its own key confirms it.
"""

from __future__ import annotations

import contextlib
import os
import re
import socket
import time
from collections.abc import Collection

from lbadaptor.contract.address import Address, Entry, Identity, State
from lbadaptor.contract.headers import GENERATION, REFUSED, STATUS, Refusal
from lbadaptor.contract.settings import Settings
from lbadaptor.contract.ticket import Keys

ANSWER_TIMEOUT = 0.5
"""Seconds for one answer."""
LIMIT = 3.0
"""Seconds for all."""
_MAX_BYTES = 4096
"""Bytes of an answer."""
_REQUEST = b"GET / HTTP/1.1\r\nHost: lbadaptor\r\nConnection: close\r\n\r\n"
_GENERATION = re.compile(r"\d{1,16}", re.ASCII)


def discover(settings: Settings, keys: Keys, known: Collection[int], ports: bool) -> list[Entry]:
    """The AppServers in other slots than the `known` ones, as entries of address.text.

    `ports`: ask at TCP ports, too, and not only at Unix sockets. Blocks for LIMIT seconds, about, at most.
    """
    deadline = time.monotonic() + LIMIT
    found = []
    for slot in range(settings.slots):
        if slot in known or time.monotonic() >= deadline:
            continue
        address = Address(settings.appservers.host, settings.appservers.base_port + slot)
        fields = _ask_unix(settings.unix_socket(slot)) or (_ask_tcp(address) if ports else {})
        generation = fields.get(GENERATION.lower(), "")
        if fields.get(REFUSED.lower()) == Refusal.INCOMPLETE.value and _GENERATION.fullmatch(generation):
            identity = Identity(slot, int(generation))
            state = State.DYING if fields.get(STATUS.lower()) == State.DYING.value else State.OK
            found.append(Entry(keys.ticket(identity), address, state, identity))
    return found


def _ask_unix(path: str) -> dict[str, str]:
    if not path or not os.path.exists(path):
        return {}
    with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as caller:
        caller.settimeout(ANSWER_TIMEOUT)
        caller.connect(path)
        return _fields(caller)
    return {}


def _ask_tcp(address: Address) -> dict[str, str]:
    with contextlib.suppress(OSError), socket.create_connection(address, ANSWER_TIMEOUT) as caller:
        caller.settimeout(ANSWER_TIMEOUT)
        return _fields(caller)
    return {}


def _fields(caller: socket.socket) -> dict[str, str]:
    """The headers of the answer; names in lower case."""
    caller.sendall(_REQUEST)
    data, deadline = b"", time.monotonic() + ANSWER_TIMEOUT
    while b"\r\n\r\n" not in data and len(data) < _MAX_BYTES and time.monotonic() < deadline:
        more = caller.recv(_MAX_BYTES)
        if not more:
            break
        data += more
    lines = data.partition(b"\r\n\r\n")[0].decode("latin-1").split("\r\n")
    fields = (line.partition(":") for line in lines[1:])
    return {name.strip().lower(): value.strip() for name, _, value in fields}
