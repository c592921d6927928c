"""Processes as the kernel knows them: when each was started, what it has used, and which one is at a connection.

A pid that another process tells (in an answer to a probe) or that a file tells is not believed. It counts when all of
this holds, and the functions for it are here:

- the pid is at the other end of the connection (`verified`), where there is one;
- the process was started when it is said to have been, in this boot (`start_time`, `boot_id`): a pid is used again;
- it was started for this run folder (`belongs`), where no file of the run folder names it.

`monitor.arbiter.processes.child.Child.adopt` applies the second with the process's pidfd in hand, and
`monitor.arbiter.processes.unrecorded` applies all.
"""

from __future__ import annotations

import os
import socket
import struct
from pathlib import Path

RUN_FOLDER = "LBADAPTOR_RUN_FOLDER"
"""The environment variable that names the run folder for which an AppServer was started."""
_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")
_CREDENTIALS = struct.Struct("=iII")
"""struct ucred: pid, uid, gid (unix(7))"""
_LISTENING = "0A"
"""TCP_LISTEN, in /proc/net/tcp"""


def boot_id() -> str:
    """Which boot of the machine this is; empty where that cannot be found out."""
    try:
        return _BOOT_ID.read_text("ascii").strip()
    except OSError:
        return ""


def start_time(pid: int) -> int:
    """When a process was started, in clock ticks since the boot. Raises ProcessLookupError, OSError."""
    return int(_stat(pid)[19])


def cpu_time(pid: int) -> float | None:
    """How long a process has computed, in seconds; 0 when it is gone; None when it cannot be looked at."""
    try:
        fields = _stat(pid)
    except ProcessLookupError:
        return 0.0
    except OSError:
        return None
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def resident(pid: int) -> int:
    """A process's resident memory in bytes; 0 when it cannot be looked at."""
    try:
        return max(0, int(_stat(pid)[21])) * os.sysconf("SC_PAGE_SIZE")
    except OSError:
        return 0


def _stat(pid: int) -> list[bytes]:
    """The fields of /proc/PID/stat from the third on: the second, the name, may contain spaces and brackets."""
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            return file.read().rpartition(b")")[2].split()
    except FileNotFoundError:
        raise ProcessLookupError(f"there is no process {pid}") from None


def peer(connection: socket.socket) -> tuple[int, int]:
    """The pid and the user of the process at the other end of a Unix socket, as the kernel knows it (SO_PEERCRED)."""
    told = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
    pid, user, _ = _CREDENTIALS.unpack(told)
    return pid, user


def verified(claimed: int, connection: socket.socket) -> int:
    """The pid that the other end of a connection claims to have, if the kernel confirms it; otherwise 0.

    For a Unix socket the kernel knows the process that listens (SO_PEERCRED). For a TCP port this looks at the
    sockets that the process has.
    """
    if claimed <= 0:
        return 0
    if connection.family == socket.AF_UNIX:
        return claimed if peer(connection)[0] == claimed else 0
    return claimed if listens(claimed, connection.getpeername()[1]) else 0


def belongs(pid: int, run_folder: str) -> bool | None:
    """Whether an AppServer was started for a run folder: two monitors may share a key file and ports.

    None: that cannot be found out now, because descriptors or memory are short.
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
