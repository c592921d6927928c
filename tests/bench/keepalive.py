"""The keep-alive race, looked for: POSTs through a real httpd while AppServers are recycled all the time.

    .venv/bin/python tests/bench/keepalive.py [POSTS]

No POST may fail, and none may be executed twice. It ends with status 1 otherwise.
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path

sys.path[:0] = [str(Path(__file__).parents[2]), str(Path(__file__).parents[1] / "apache")]

from cluster import eventually, running_cluster  # noqa: E402
from posts import Posts  # noqa: E402


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("posts", nargs="?", type=int, default=100_000)
    parser.add_argument("--visitors", type=int, default=8)
    parser.add_argument("--httpd", default="embedded-debian", help="embedded- or daemon-, debian or pypi")
    options = parser.parse_args()
    settings = {"servers": 4, "max_requests": 300}
    with running_cluster(app="trials:application", appservers=settings) as cluster:
        site = cluster.site(options.httpd)
        releases, began = 0, time.monotonic()
        with Posts(site, options.visitors) as posts:
            while posts.done < options.posts and len(posts.failures) < 100:
                cluster.lbctl("restart")
                releases += 1
                while cluster.status()["release"]:
                    show(posts.done, options.posts)
        took = time.monotonic() - began
        eventually("the last release is over", lambda: not cluster.status()["release"])
        lives = cluster.said().count(" starts: pid ")
        failures, doubled, missing = posts.failures, posts.doubled(), posts.missing()
    print(f"\rPOSTs answered 200   {posts.done}  in {took:.1f} s, {posts.done / took:.0f} a second")
    print(f"AppServers           {lives} started for {settings['servers']} slots, {releases} releases")
    print(f"longest              {posts.longest * 1000:.0f} ms")
    print(f"failed               {len(failures)}")
    print(f"executed twice       {len(doubled)}")
    print(f"not executed         {len(missing)}")
    for failure in failures[:10]:
        print(f"  {failure}")
    return int(bool(failures or doubled or missing))


def show(done: int, all_of_them: int) -> None:
    if sys.stderr.isatty():
        print(f"\r  {done} of {all_of_them} ", end="", file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
