"""The memory of httpd with the fast lane, under tickets that somebody makes up.

    .venv/bin/python tests/bench/tickets.py [TICKETS]

mod_rewrite remembers whatever it looked up in the maps until their files are written anew. It ends with status 1
where the largest process grew by more than 8 MiB after the first tenth of the tickets, or an answer failed.
"""

from __future__ import annotations

import argparse
import re
import subprocess
import sys
from pathlib import Path

sys.path[:0] = [str(Path(__file__).parents[2]), str(Path(__file__).parents[1] / "apache")]

from cluster import Site, running_cluster  # noqa: E402

MIB = 1 << 20
GROWTH = 8 * MIB
TURN = 5
"""Seconds of load between two looks."""
ONE_PROCESS = "StartServers 1\nServerLimit 1\nThreadsPerChild 25\nMaxRequestWorkers 25\n"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("tickets", nargs="?", type=int, default=1_000_000)
    wanted = parser.parse_args().tickets
    sizes: list[tuple[int, int]] = []
    wrong = 0
    with running_cluster(app="trials:application", appservers={"servers": 2}) as cluster:
        site = cluster.site("embedded-debian", extra=ONE_PROCESS, fast_lane=cluster.settings.slots)
        done = 0
        while done < wanted:
            answered, failed = load(site.port)
            done += answered
            wrong += failed
            sizes.append((done, resident(site)))
            print(f"{done:9} made-up tickets: httpd {sizes[-1][1] / MIB:6.1f} MiB", flush=True)
    early = max(size for count, size in sizes if count <= max(wanted / 10, sizes[0][0]))
    grown = max(size for _, size in sizes) - early
    print(f"{done} made-up tickets, {wrong} not answered 200; httpd grew by {grown / MIB:.1f} MiB")
    return int(grown > GROWTH or wrong > 0)


def load(port: int) -> tuple[int, int]:
    """How many were answered, and how many not as they should be."""
    script = Path(__file__).with_name("tickets.lua")
    command = ["wrk", "-t1", "-c16", f"-d{TURN}s", "-s", str(script), f"http://127.0.0.1:{port}"]
    said = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    found = re.search(r"(\d+) answered, (\d+) of them not 200, (\d+) lost", said)
    assert found, said
    return int(found[1]), int(found[2]) + int(found[3])


def resident(site: Site) -> int:
    """Bytes of the largest process."""
    parent = site.httpd.pid
    children = Path(f"/proc/{parent}/task/{parent}/children").read_text().split()
    return max(int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * 4096 for pid in children)


if __name__ == "__main__":
    sys.exit(main())
