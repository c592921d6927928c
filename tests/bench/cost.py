"""What a run costs: processor time of all processes that belong to something, and their memory. Reads /proc."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Iterable, Mapping
from pathlib import Path

MARK = "LBADAPTOR_BENCH"
"""A variable in the environment of all that a server starts; its value is the server's mark."""

_TICK = 1e6 / os.sysconf("SC_CLK_TCK")


def processes(servers: Mapping[str, int]) -> dict[str, set[int]]:
    """The living processes of each server: those of its kernel session, and those that bear its mark.

    `servers`: mark → the process that was started, which leads a kernel session.
    """
    found: dict[str, set[int]] = {mark: set() for mark in servers}
    leaders = {pid: mark for mark, pid in servers.items()}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with contextlib.suppress(OSError):
                state, *fields = (entry / "stat").read_text().rpartition(")")[2].split()
                if state == "Z":
                    continue
                mark = leaders.get(int(fields[2])) or _mark(entry)
                if mark in found:
                    found[mark].add(int(entry.name))
    return found


def _mark(process: Path) -> str:
    for variable in (process / "environ").read_bytes().split(b"\0"):
        if variable.startswith(MARK.encode() + b"="):
            return variable.partition(b"=")[2].decode()
    return ""


def cpu(pids: Iterable[int]) -> dict[int, float]:
    """The processor time, user and system, that each has used in its life; µs."""
    used = {}
    for pid in pids:
        with contextlib.suppress(OSError):
            fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
            used[pid] = (int(fields[11]) + int(fields[12])) * _TICK
    return used


def clock(pid: int) -> float:
    """The processor time, user and system, that one process has used in its life; µs, exact to less than one.

    Its clock as clock_getcpuclockid(3) makes it. Raises OSError where the process is gone.
    """
    return time.clock_gettime_ns(~pid << 3 | 2) / 1000


def pin(pid: int) -> None:
    """Keep a process, with all threads that it has and will have, on one core, so that it never moves to a cold one.

    With one core only, nothing is done. Whoever asks it runs on the others.
    """
    cores = sorted(os.sched_getaffinity(0))
    if len(cores) > 1:
        for thread in Path(f"/proc/{pid}/task").iterdir():
            os.sched_setaffinity(int(thread.name), {cores[-1]})


def spent(before: Mapping[int, float], after: Mapping[int, float]) -> float:
    """µs between two looks; a process that is new began at 0."""
    return sum(used - before.get(pid, 0.0) for pid, used in after.items())


def proportional(pids: Iterable[int]) -> float:
    """What they take from the machine's memory together, in MB: a page that n processes share counts as an n-th.

    That is the PSS of proc_pid_smaps(5). Raises OSError where it may not be read.
    """
    found = 0.0
    for pid in pids:
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):
            for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
                if line.startswith("Pss:"):
                    found += int(line.split()[1]) / 1024
    return found


def resident(pids: Iterable[int]) -> list[float]:
    """The resident memory of each, in MB, in rising order."""
    found = []
    for pid in pids:
        with contextlib.suppress(OSError):
            for line in Path(f"/proc/{pid}/status").read_text().splitlines():
                if line.startswith("VmRSS:"):
                    found.append(int(line.split()[1]) / 1024)
    return sorted(found)
