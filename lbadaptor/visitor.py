"""Cutting the visitor's connection: the only way to say that an answer, part of it passed on, will not end.

Raising does not do it: mod_wsgi leaves the connection in keep-alive, and the visitor takes the next answer for
the rest of this one. In embedded mode the visitor's socket is a descriptor of this process. In daemon mode, and
as CGI, it is out of reach.
"""

from __future__ import annotations

import os
import socket
import stat

_DESCRIPTORS = "/proc/self/fd"


def hang_up(address: str, port: str) -> bool:
    """Shut down the connections of this process whose peer is `address`, `port`; whether there was one.

    With HTTP/2 this ends all that the visitor's browser has under way on that connection. Never raises.
    """
    if not (address and port.isascii() and port.isdigit() and len(port) <= 5):
        return False
    try:
        names = os.listdir(_DESCRIPTORS)
    except OSError:
        return False
    visitor = address, int(port)
    return sum(_shut_down(int(name), visitor) for name in names) > 0  # all of them: none is passed over


def _shut_down(descriptor: int, visitor: tuple[str, int]) -> bool:
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
            connection.shutdown(socket.SHUT_RDWR)
        except OSError:
            return False
    return True
