"""Where an AppServer listens: on its port, for any HTTP tool; and on a Unix socket, for Apache and the monitor.

The Unix socket costs both sides less, and no other user of the machine can listen in its place.
"""

from __future__ import annotations

import contextlib
import os
import socket
from collections.abc import Iterable

from lbadaptor.contract.address import Address
from lbadaptor.log import logs, texts

log = logs.logger("lbadaptor.appserver")

_MODE = 0o660
"""For Apache's group, which the socket has from its folder."""


def bind(address: Address, unix_socket: str) -> list[socket.socket]:
    """The sockets, that of the address first. They do not listen yet, so no caller can connect.

    If there can be no Unix socket, only the address is used, and the log says so. Raises OSError for the address.
    """
    listeners = [_bind_port(address)]
    if unix_socket:
        try:
            listeners.append(bind_unix(unix_socket))
        except OSError as error:
            log.warning(
                "the Unix socket %s cannot be made: %s; requests come by TCP, which is slower",
                unix_socket,
                texts.what(error),
            )
    return listeners


def identities(listeners: Iterable[socket.socket]) -> list[int]:
    """The inode numbers of the sockets. One changes if its descriptor was closed, or is another file's by now."""
    found = []
    for listener in listeners:
        try:
            found.append(os.fstat(listener.fileno()).st_ino)
        except OSError:
            found.append(0)
    return found


def close(listeners: Iterable[socket.socket]) -> None:
    for listener in listeners:
        listener.close()


def _bind_port(address: Address) -> socket.socket:
    family = socket.AF_INET6 if ":" in address.host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    try:
        # A port whose last owner left connections in TIME_WAIT is free; one on which a process listens is not.
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)  # its connections have it, too (tcp(7))
        listener.bind(address)
    except OSError:
        listener.close()
        raise
    return listener


def bind_unix(path: str) -> socket.socket:
    """A socket that replaces that of a former AppServer. The old one stays until the port is bound.

    If a Unix socket is missing, callers come to the port, on which another program may listen. If a Unix socket is
    there and not listened on, they do not (`pool.connect`).
    """
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(path)
        listener.bind(path)
        os.chmod(path, _MODE)
    except OSError:
        listener.close()
        raise
    return listener
