"""What /proc tells of a monitor's processes."""

from __future__ import annotations

import os
import resource
from pathlib import Path

from monitor_fixture import Site


def descriptors(pid: int) -> dict[int, str]:
    """What a process has open."""
    found = {}
    for link in Path(f"/proc/{pid}/fd").iterdir():
        try:
            found[int(link.name)] = os.readlink(link)
        except OSError:
            continue
    return found


def zombies(parent: int) -> list[int]:
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            state, ppid = (folder / "stat").read_text().rpartition(")")[2].split()[:2]
        except OSError:
            continue
        if state == "Z" and int(ppid) == parent:
            found.append(int(folder.name))
    return found


def resident(pid: int) -> int:
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * resource.getpagesize()


def available(site: Site) -> dict[str, str]:
    """What Apache finds in available.text; empty: first visits take the Python lane."""
    lines = (site.run_folder / "available.text").read_text().splitlines()
    return dict(line.split() for line in lines if not line.startswith("#"))
