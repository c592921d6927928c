"""Cuts the visitor's connection when an answer breaks off and a part of it was passed on already.

Nothing else tells the visitor. After an exception mod_wsgi leaves the connection in keep-alive, and the visitor takes
the next answer for the rest of this one. In embedded mode the visitor's socket is a descriptor of this process. In
daemon mode and as CGI it is out of reach.
"""

from __future__ import annotations

import os
import socket
import stat
from collections.abc import Mapping
from typing import Any

from lbadaptor.adaptor import libc

PEER = "LBADAPTOR_PEER"
"""Apache's variable for the address of the connection's peer."""

_DESCRIPTORS = "/proc/self/fd"
_UNSPECIFIED = bytes(16)
"""A socket address of the family AF_UNSPEC, which Python's own connect does not know."""


def cut_visitor(environ: Mapping[str, Any]) -> bool:
    """Reset the connection of a request. False if this process does not have it. Never raises.

    With HTTP/2 this ends all requests that the visitor's browser has in flight on that connection.
    """
    # REMOTE_PORT is always the connection's own (httpd's util_script.c). REMOTE_ADDR is not, where mod_remoteip has
    # replaced the proxy's address by the visitor's; for that case the snippet sets LBADAPTOR_PEER.
    address, port = environ.get(PEER) or environ.get("REMOTE_ADDR", ""), environ.get("REMOTE_PORT", "")
    if not (address and port.isascii() and port.isdigit() and len(port) <= 5):
        return False
    try:
        names = os.listdir(_DESCRIPTORS)
    except OSError:
        return False
    visitor = address, int(port)
    return sum(_cut(int(name), visitor) for name in names) > 0  # every one is tried: sum() does not stop at the first


def _cut(descriptor: int, visitor: tuple[str, int]) -> bool:
    try:
        # A duplicate, because another thread may close the descriptor meanwhile. Only of sockets, because closing
        # a duplicate of a lock file would release the lock (fcntl(2)).
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
    """End a connection by a reset. An answer without a length ends with a regular end, so that would look whole."""
    # Linux resets a connection when it is connected to AF_UNSPEC (connect(2)).
    connect = libc.function("connect")
    if connect is None or connect(connection.fileno(), _UNSPECIFIED, len(_UNSPECIFIED)) != 0:
        connection.shutdown(socket.SHUT_RDWR)
