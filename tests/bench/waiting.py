"""A million sessions in files whose visitors do not come back: what they cost a start, lbctl, and the AppServers.

    python -m tests.bench.survival waiting
    python -m tests.bench.waiting FOLDER COUNT ENDED    the sweep of a folder alone, as fast as it can, as JSON

The files are as AppServers write them: 4 KiB, in the subfolders of free/. They were written two days ago. One in ten
has ended since, and is to be removed.
"""

from __future__ import annotations

import contextlib
import json
import os
import resource
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from lbadaptor.appserver.sessions.persistence.folder import SessionFolder
from lbadaptor.appserver.sessions.persistence.format import Head, encode, name_of
from lbadaptor.appserver.sessions.persistence.sweep import QUIET, Sweep
from lbadaptor.appserver.sessions.persistence.writing import BLOCK
from tests.apache.cluster import LBCTL, Cluster, eventually, short_folder

from . import cost
from .ends import APPLICATION, FRAMEWORK, SERVERS, environment
from .load import LoadFailed
from .servers import CHECKOUT
from .session_site import COOKIES

SIZE = 2000
"""Bytes of a session."""
AGE = 2 * 86400
"""Seconds since it was written."""
ENDED = 10
"""One in so many has ended right after."""
PATIENCE = 1800.0
"""Seconds."""


def measure(folder: Path, count: int) -> dict[str, float]:
    """The figures with so many files, and without any. They are made in `folder`, and removed. Raises LoadFailed."""
    found: dict[str, float] = {}
    for name, files in (("none", 0), ("many", count)):
        root = folder / f"sessions-{name}"
        began = time.monotonic()
        ended = make(root, files)
        found[f"waiting_made_s {name}"] = time.monotonic() - began
        found |= {f"{figure} {name}": value for figure, value in _run(root, files).items()}
        found |= {f"{figure} {name}": value for figure, value in _sweep(root, files, ended).items()}
        shutil.rmtree(root)
    return found | {"waiting_files": float(count)}


def make(root: Path, count: int) -> int:
    """Make the folder with so many sessions in free/. How many of them have ended."""
    now = time.time()
    for place in (root, root / "free", *(root / "free" / f"{number:02x}" for number in range(256))):
        place.mkdir(mode=0o700)
    ended, content = 0, os.urandom(SIZE)
    free = os.open(root / "free", os.O_RDONLY)
    for number in range(count):
        over = number % ENDED == 0
        ended += over
        head = Head(FRAMEWORK, APPLICATION, ends=now - AGE + 3600 if over else now + AGE)
        name = name_of(FRAMEWORK, str(number))
        file = os.open(f"{name[:2]}/{name}", os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600, dir_fd=free)
        os.write(file, encode(head, content).ljust(BLOCK, b"\0"))
        os.utime(file, (now - AGE, now - AGE))
        os.close(file)
    os.close(free)
    return ended


def _run(root: Path, count: int) -> dict[str, float]:
    """A monitor and its AppServers with this folder: seconds, and MB resident."""
    with _cluster(root) as cluster:
        began = time.monotonic()
        cluster.start()
        started = time.monotonic() - began

        def known() -> bool:
            return any((server["kept"] or {}).get("waiting") == count for server in _appservers(cluster))

        eventually("all files are counted", known, PATIENCE)
        counted = time.monotonic() - began
        asked = time.monotonic()
        subprocess.run([LBCTL, "--config", cluster.config, "status"], check=True, stdout=subprocess.DEVNULL)
        status = time.monotonic() - asked
        largest = max(cost.resident(server["pid"] for server in _appservers(cluster)))
        return {
            "waiting_start_s": started,
            "waiting_known_s": counted,
            "waiting_status_s": status,
            "waiting_appserver_mb": largest,
            "waiting_monitor_mb": cost.resident([cluster.monitor_pid])[0],
        }


def _appservers(cluster: Cluster) -> list[dict[str, Any]]:
    return list(cluster.status()["appservers"])


@contextlib.contextmanager
def _cluster(root: Path) -> Iterator[Cluster]:
    """Not started. Raises LoadFailed."""
    with short_folder() as place, environment(SESSION_FRAMEWORK=FRAMEWORK):
        cluster = Cluster(
            place,
            APPLICATION,
            COOKIES[FRAMEWORK],
            appservers={"servers": SERVERS},
            monitor={"probe_interval": 1.0},
            sessions={"survive": "anything", "folder": str(root)},
        )
        shutil.copy(Path(__file__).with_name("session_site.py"), place / "apps")
        try:
            yield cluster
        except AssertionError as error:
            raise LoadFailed(f"{error}") from None
        finally:
            cluster.stop()


def _sweep(root: Path, count: int, ended: int) -> dict[str, float]:
    """What `sweep` prints, in a process of its own."""
    (root / "installation").unlink()  # that of the cluster before
    command = [sys.executable, "-m", "tests.bench.waiting", str(root), str(count), str(ended)]
    done = subprocess.run(command, cwd=CHECKOUT, check=False, capture_output=True, text=True, timeout=PATIENCE)
    if done.returncode:
        raise LoadFailed(f"the sweep fails: {done.stderr[-2000:]}")
    return dict(json.loads(done.stdout))


class Clock:
    """Both clocks, which jump ahead together."""

    ahead = 0.0

    def monotonic(self) -> float:
        return time.monotonic() + self.ahead

    def wall(self) -> float:
        return time.time() + self.ahead


def sweep(root: str, count: int, ended: int) -> dict[str, float]:
    """Sweep turn after turn until all files are counted, and then until those are gone that have ended.

    Seconds of CPU for each, the longest turn in ms, and by how many MB the process has grown.
    """
    folder, clock = SessionFolder(root, 0, 1), Clock()
    folder.open()
    one = Sweep(folder, clock.monotonic, clock.wall)
    before, longest = _peak_mb(), 0.0
    found = {}
    for what, left, ahead in (("counted", count, 0.0), ("removed", count - ended, QUIET + 1)):
        clock.ahead += ahead
        began = time.process_time()
        waiting = -1
        while waiting != left:
            turn = time.perf_counter()
            figures = one.run()
            longest = max(longest, time.perf_counter() - turn)
            assert figures is not None, "another process sweeps"
            waiting = figures.waiting
        found[f"sweep_{what}_s"] = time.process_time() - began
    folder.close()
    return {**found, "sweep_longest_ms": longest * 1000, "sweep_mb": _peak_mb() - before}


def _peak_mb() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


if __name__ == "__main__":
    print(json.dumps(sweep(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]))))
