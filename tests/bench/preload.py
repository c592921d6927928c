"""What preload saves: memory and time to start, of AppServers whose application loads 200 MB when it is imported.

    .venv/bin/python tests/bench/preload.py [--servers 4] [--size 200] [--requests 2000]

Half of it is one block, half are small Python objects (a table of texts by number), as a catalogue or a model has
them. PSS counts a page that n processes share as an n-th of it (proc_pid_smaps(5)): its sum over the processes is
what they take from the machine. It is measured when all have started; after a full run of each one's garbage
collector and requests that read the table, for that is what unshares memory; and at last when every object has been
touched, which is the worst that can happen: each has a reference count that is written to.
"""

from __future__ import annotations

import argparse
import os
import signal
import sys
import tempfile
import time
from pathlib import Path

from tests.ports import held_ports

sys.path[:0] = [str(Path(__file__).parents[2]), str(Path(__file__).parents[1] / "process")]

from monitor_fixture import SLOTS, Site, wait_for  # noqa: E402

MB = 1_000_000
OBJECT = 200
"""bytes that an entry of the table takes, about: a text, a number, its place"""

LOADED = """
import gc
block = os.urandom({block})
table = {{number: "%06d " % number * 10 for number in range({entries})}}
"""


def measure(preload: bool, servers: int, size: int, requests: int) -> None:
    """Start a monitor with so many AppServers; print what they take."""
    with tempfile.TemporaryDirectory() as folder, held_ports(SLOTS) as port:
        site = Site(Path(folder), port)
        site.write_application(LOADED.format(block=size * MB // 2, entries=size * MB // 2 // OBJECT))
        site.settings("appservers", preload=preload, servers=servers)
        site.settings("monitor", start_timeout=120.0)
        try:
            begun = time.monotonic()
            site.start()
            wait_for(lambda: len(site.ok) == servers, "all are OK", 120)
            started = time.monotonic() - begun
            site.wait_control()
            pids = [int(site.eval(slot, "os.getpid()")) for slot in range(servers)]
            print(f"\n{'with' if preload else 'without'} preload: all {servers} are OK after {started:.1f} s")
            show("after the start", pids)
            for slot in range(servers):
                site.eval(slot, "gc.collect()")
                for number in range(requests):
                    site.eval(slot, f"table[{number}]")
            show(f"after a full collection and {requests} requests to each", pids)
            for slot in range(servers):
                site.eval(slot, "sum(len(text) for text in table.values())")
            show("after every object was touched", pids)
            old = site.entry(0)
            assert old is not None
            begun = time.monotonic()
            os.kill(pids[0], signal.SIGKILL)
            site.wait_reborn(old)
            print(f"  one that was killed is back after {time.monotonic() - begun:.2f} s")
            site.end()
        finally:
            site.clear()


def show(when: str, pids: list[int]) -> None:
    """Each one's PSS, and the machine's share with the template."""
    parents = {int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1]) for pid in pids}
    (monitor,) = parents
    templates = [pid for pid in children(monitor) if Path(f"/proc/{pid}/comm").read_text() == "template\n"]
    each = [pss(pid) for pid in pids]
    template = sum(map(pss, templates))
    total = sum(each) + template
    shown = " ".join(f"{one:6.0f}" for one in each)
    print(f"  PSS in MB {when}: {shown}; template {template:.0f}; in all {total:.0f}")


def children(pid: int) -> list[int]:
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def pss(pid: int) -> float:
    """In megabytes."""
    for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
        if line.startswith("Pss:"):
            return int(line.split()[1]) * 1024 / MB
    raise AssertionError("the kernel tells no PSS")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--servers", type=int, default=4)
    parser.add_argument("--size", type=int, default=200, help="MB that the application loads (default 200)")
    parser.add_argument("--requests", type=int, default=2000, help="to each AppServer (default 2000)")
    options = parser.parse_args()
    for preload in (False, True):
        measure(preload, options.servers, options.size, options.requests)


if __name__ == "__main__":
    main()
