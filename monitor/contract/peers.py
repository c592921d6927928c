"""Which process is at the other end of a connection: by the kernel's word, where it must not be by the process's own.

Whoever is adopted or ended on the strength of an answer is looked at here first.
"""

from __future__ import annotations

import os
import socket
import struct

RUN_FOLDER = "LBADAPTOR_RUN_FOLDER"
"""The environment variable that tells for which run folder an AppServer was started."""
_CREDENTIALS = struct.Struct("=iII")
"""struct ucred: pid, uid, gid (unix(7))"""
_LISTENING = "0A"
"""TCP_LISTEN, in /proc/net/tcp"""


def verified(claimed: int, connection: socket.socket) -> int:
    """The pid that somebody claims to have, where the kernel confirms it; 0 where it does not.

    Of a Unix socket it knows who listens there (SO_PEERCRED); of a TCP port, what sockets the process has.
    """
    if claimed <= 0:
        return 0
    if connection.family == socket.AF_UNIX:
        told = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
        return claimed if _CREDENTIALS.unpack(told)[0] == claimed else 0
    return claimed if listens(claimed, connection.getpeername()[1]) else 0


def belongs(pid: int, run_folder: str) -> bool | None:
    """Whether an AppServer was started for a run folder: two monitors may have one key file, and ports in common.

    None: that cannot be found out now, for want of a descriptor or memory.
    """
    try:
        with open(f"/proc/{pid}/environ", "rb") as file:
            return f"{RUN_FOLDER}={run_folder}".encode() in file.read().split(b"\0")
    except (FileNotFoundError, ProcessLookupError, PermissionError):
        return False
    except OSError:
        return None


def listens(pid: int, port: int) -> bool:
    """Whether a process of this machine listens on a TCP port. False where that cannot be found out."""
    try:
        sockets = _listeners(port)
        folder = f"/proc/{pid}/fd"
        for name in os.listdir(folder) if sockets else ():
            try:
                if os.readlink(f"{folder}/{name}") in sockets:
                    return True
            except FileNotFoundError:
                continue
    except OSError:
        pass
    return False


def _listeners(port: int) -> set[str]:
    """The sockets that listen on a port, as /proc/PID/fd names them (proc(5))."""
    found = set()
    for family in ("tcp", "tcp6"):
        try:
            with open(f"/proc/net/{family}", encoding="ascii") as file:
                for line in file:
                    words = line.split()
                    if words[3] == _LISTENING and int(words[1].rpartition(":")[2], 16) == port:
                        found.add(f"socket:[{words[9]}]")
        except (OSError, ValueError, IndexError):
            continue
    return found
