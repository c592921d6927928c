"""In a forked child: descriptors that no object of the gateway holds."""

from __future__ import annotations

import contextlib
import os
import re
import socket
from collections.abc import Sequence

_Socket = socket.socket  # applications replace such names


def close_accepted(addresses: Sequence[object]) -> None:
    """Close every connection that was accepted at one of these addresses.

    At the fork another thread may just have accepted one: its descriptor is open here, and nothing refers to it.
    """
    timeout = socket.getdefaulttimeout()
    socket.setdefaulttimeout(None)  # with a timeout, to make a socket object would make others' sockets non-blocking
    for name in os.listdir("/proc/self/fd"):
        with contextlib.suppress(OSError, ValueError):
            found = _Socket(fileno=int(name))
            if any(_is_at(found.getsockname(), address) for address in addresses):
                found.close()
            else:
                found.detach()
    socket.setdefaulttimeout(timeout)


def close_stat_files(pid: int) -> None:
    """Close the files that tell what the threads of the process `pid` do, which has opened them (`schedule_fast`).

    At the fork another thread may just have opened its own.
    """
    is_its = re.compile(rf"/proc/{pid}/task/\d+/stat").fullmatch
    for name in os.listdir("/proc/self/fd"):
        with contextlib.suppress(OSError):
            if is_its(os.readlink(f"/proc/self/fd/{name}")):
                os.close(int(name))


def _is_at(name: object, address: object) -> bool:
    """Whether a socket with this name may have been accepted at this address."""
    if isinstance(name, tuple) and isinstance(address, tuple) and address[0] in ("0.0.0.0", "::"):
        return bool(name[1] == address[1])
    return name == address
