"""Cutting the visitor's connection: the only way to say that an answer, part of it passed on, will not end.

Raising does not do it: mod_wsgi leaves the connection in keep-alive, and the visitor takes the next answer for
the rest of this one. In embedded mode the visitor's socket is a descriptor of this process. In daemon mode, and
as CGI, it is out of reach.
"""

from __future__ import annotations

import os
import socket
import stat
from collections.abc import Mapping
from typing import Any

PEER = "LBADAPTOR_PEER"
"""Apache's variable for the address of the connection's peer."""

_DESCRIPTORS = "/proc/self/fd"
_UNSPECIFIED = bytes(16)
"""A socket address of the family AF_UNSPEC, which Python's own connect does not know."""


def hang_up(environ: Mapping[str, Any]) -> bool:
    """Reset the connection by which a request came, if this process has it; whether it has. Never raises.

    With HTTP/2 this ends all that the visitor's browser has under way on that connection.
    """
    # REMOTE_PORT is the connection's own, always (httpd's util_script.c). REMOTE_ADDR is not where mod_remoteip put
    # the visitor's in the place of the proxy's; for that, the snippet has LBADAPTOR_PEER.
    address, port = environ.get(PEER) or environ.get("REMOTE_ADDR", ""), environ.get("REMOTE_PORT", "")
    if not (address and port.isascii() and port.isdigit() and len(port) <= 5):
        return False
    try:
        names = os.listdir(_DESCRIPTORS)
    except OSError:
        return False
    visitor = address, int(port)
    return sum(_cut(int(name), visitor) for name in names) > 0  # all of them: none is passed over


def _cut(descriptor: int, visitor: tuple[str, int]) -> bool:
    try:
        # A duplicate, which nobody closes meanwhile; of sockets alone, for closing one of a lock file would
        # release the lock (fcntl(2)).
        if not stat.S_ISSOCK(os.fstat(descriptor).st_mode):
            return False
        duplicate = os.dup(descriptor)
    except OSError:
        return False
    try:
        connection = socket.socket(fileno=duplicate)
    except OSError:
        os.close(duplicate)
        return False
    with connection:
        try:
            if connection.family not in (socket.AF_INET, socket.AF_INET6):
                return False
            host, port, *_ = connection.getpeername()
            if (host.removeprefix("::ffff:"), port) != visitor:
                return False
            _reset(connection)
        except OSError:
            return False
    return True


def _reset(connection: socket.socket) -> None:
    """End a connection by a reset, not in order: the end in order is how an answer without a length ends."""
    import ctypes  # as good as never needed, and dear for every Apache process

    # Linux resets a connection that is connected to nowhere (connect(2)).
    if ctypes.CDLL(None).connect(connection.fileno(), _UNSPECIFIED, len(_UNSPECIFIED)) != 0:
        connection.shutdown(socket.SHUT_RDWR)
