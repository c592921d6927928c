"""Large bodies up and down through a real httpd: the time that they take, and the memory of both sides.

    .venv/bin/python tests/bench/bodies.py [MIB]

Each process' largest resident memory is compared with what it was after bodies of 8 MiB. It ends with status 1 where
one of them grew by more than 32 MiB.
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path

sys.path[:0] = [str(Path(__file__).parents[2]), str(Path(__file__).parents[1] / "apache")]

from cluster import SITES, running_cluster  # noqa: E402
from transfers import BLOCK, Peaks, download, upload  # noqa: E402

MIB = 1 << 20
SMALL = 8 * MIB // len(BLOCK)
GROWTH = 32 * MIB


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("mib", nargs="?", type=int, default=1024)
    blocks = parser.parse_args().mib * MIB // len(BLOCK)
    grown = []
    print("                             peak of httpd, MiB    of the AppServer")
    print("site              body       8 MiB   large         8 MiB   large      time s   MiB/s")
    for name in SITES:
        for what, transfer in (
            ("up", upload),
            ("up, chunks", lambda site, blocks: upload(site, blocks, chunked=True)),
            ("down", download),
            ("down, chunks", lambda site, blocks: download(site, blocks, length=False)),
        ):
            with running_cluster(app="bodies:application", appservers={"servers": 1}) as cluster:
                site = cluster.site(name, extra="StartServers 1\nServerLimit 1\nMaxRequestWorkers 25\n")
                with Peaks(site) as small:
                    transfer(site, SMALL)
                with Peaks(site) as large:
                    began = time.monotonic()
                    transfer(site, blocks)
                    took = time.monotonic() - began
            sizes = [peak / MIB for peak in (small.httpd, large.httpd, small.appserver, large.appserver)]
            print(
                f"{name:17} {what:12} {sizes[0]:5.1f}   {sizes[1]:5.1f}         {sizes[2]:5.1f}   {sizes[3]:5.1f}"
                f"      {took:6.1f}  {blocks * len(BLOCK) / MIB / took:6.0f}",
                flush=True,
            )
            if large.httpd - small.httpd > GROWTH or large.appserver - small.appserver > GROWTH:
                grown.append(f"{name}, {what}")
    print(f"memory grew with the body: {'; '.join(grown) or 'nowhere'}")
    return int(bool(grown))


if __name__ == "__main__":
    sys.exit(main())
