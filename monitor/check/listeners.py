"""Who listens on TCP ports, as the kernel tells (proc_net(5))."""

from __future__ import annotations

import contextlib
import ipaddress
import os
import pwd
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

_FILES = ("/proc/net/tcp", "/proc/net/tcp6")
_LISTENING = "0A"
MAX_BYTES = 16 << 20


@dataclass(frozen=True)
class Listener:
    """A socket that listens."""

    host: str
    port: int
    uid: int
    inode: int

    @property
    def is_local(self) -> bool:
        """Whether only this machine reaches it."""
        address = ipaddress.ip_address(self.host)
        mapped = getattr(address, "ipv4_mapped", None)
        return (mapped or address).is_loopback


def listeners() -> list[Listener]:
    """All that there are. Raises OSError."""
    found: list[Listener] = []
    for name in _FILES:
        with contextlib.suppress(FileNotFoundError), open(name) as file:
            found += parse(file.read(MAX_BYTES))
    return found


def parse(text: str) -> Iterator[Listener]:
    """Read /proc/net/tcp or tcp6. Pure."""
    for line in text.splitlines()[1:]:
        fields = line.split()
        if len(fields) < 10 or fields[3] != _LISTENING:
            continue
        host, _, port = fields[1].partition(":")
        yield Listener(_address(host), int(port, 16), int(fields[7]), int(fields[9]))


def owner(listener: Listener) -> str:
    """The process, in words; its user alone where this user may not look at it."""
    name = f"user {listener.uid}"
    with contextlib.suppress(KeyError):
        name = f"user {pwd.getpwuid(listener.uid).pw_name}"
    wanted = f"socket:[{listener.inode}]"
    for process in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError), os.scandir(process / "fd") as descriptors:
            if any(_link(one) == wanted for one in descriptors):
                return f"process {process.name} ({(process / 'comm').read_text().strip()}), {name}"
    return f"a process of {name}"


def _link(entry: os.DirEntry[str]) -> str:
    try:
        return os.readlink(entry.path)
    except OSError:
        return ""


def _address(text: str) -> str:
    """The kernel writes words of four bytes in its own order."""
    data = b"".join(int(text[at : at + 8], 16).to_bytes(4, "little") for at in range(0, len(text), 8))
    return str(ipaddress.ip_address(data))
