"""python-socketio's own clients, by long polling, connected for minutes while other AppServers are recycled.

    .venv/bin/python tests/bench/polling.py [MINUTES]

Three AppServers. The clients at one of them are watched; the other two are drained in turn, all the time, each to
its limit. No watched client may lose its connection or miss one of the numbers that it is sent: it ends with
status 1 otherwise. The clients of the others have to connect anew, which they do by themselves; it prints how
long they were without a connection.
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

sys.path[:0] = [str(Path(__file__).parents[2]), str(Path(__file__).parents[1] / "apache")]

from chatters import Member  # noqa: E402
from cluster import Cluster, eventually, running_cluster  # noqa: E402

from lbadaptor.contract.address import Entry  # noqa: E402

SERVERS = 3
DRAIN_LIMIT = 10.0
PAUSE = 1.0
"""Seconds between two things that a client says."""


class Talker:
    """A client that says something all the time."""

    def __init__(self, member: Member) -> None:
        self.member = member
        self.home = member.ticket
        self.took: list[float] = []
        self.unheard = 0
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._talk)
        self._thread.start()

    def _talk(self) -> None:
        while not self._over.wait(PAUSE):
            began = time.monotonic()
            try:
                self.member.client.call("say", "hello", timeout=30)
            except Exception:  # no connection now
                self.unheard += 1
            else:
                self.took.append(time.monotonic() - began)

    def close(self) -> None:
        self._over.set()
        self._thread.join()
        self.member.close()

    @property
    def missed(self) -> int:
        """Numbers that it was not sent, if it never lost its connection."""
        ticks = self.member.ticks
        return sum(number != expected for expected, number in enumerate(ticks, 1))

    @property
    def gaps(self) -> list[float]:
        """Seconds without a connection, each time."""
        gaps, lost = [], None
        for what, when in zip(self.member.happened, self.member.moments, strict=True):
            if what == "connect" and lost is not None:
                gaps.append(when - lost)
                lost = None
            elif what != "connect" and lost is None:
                lost = when
        return gaps


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("minutes", nargs="?", type=float, default=3.0)
    parser.add_argument("--clients", type=int, default=12)
    parser.add_argument("--threads", type=int, default=32, help="of each AppServer")
    parser.add_argument("--ping", type=float, default=25.0, help="seconds; python-socketio's default")
    parser.add_argument("--tick", type=float, default=5.0, help="seconds between two numbers that a client is sent")
    parser.add_argument("--httpd", default="embedded-debian", help="embedded- or daemon-, debian or pypi")
    options = parser.parse_args()
    os.environ |= {"CHAT_PING_INTERVAL": str(options.ping), "CHAT_TICK": str(options.tick)}
    settings = {
        "appservers": {"servers": SERVERS, "threads": options.threads},
        "application": {"affinity": True, "session_idle": 60},
        "monitor": {"drain_limit": DRAIN_LIMIT},
    }
    with running_cluster(app="chat:application", cookie="", **settings) as cluster:
        site = cluster.site(options.httpd)
        talkers = [Talker(Member(site)) for _ in range(options.clients)]
        try:
            began = time.monotonic()
            home = talkers[0].home
            recycled = 0
            while time.monotonic() < began + options.minutes * 60:
                pause = time.monotonic() + DRAIN_LIMIT
                recycle(cluster, next(entry for entry in cluster.table().ok if entry.ticket != home))
                recycled += 1
                time.sleep(max(0.0, pause - time.monotonic()))  # one without clients is gone at once
                print(f"  {time.monotonic() - began:4.0f} s: {recycled} recycled", file=sys.stderr, flush=True)
            took = time.monotonic() - began
        finally:
            with ThreadPoolExecutor(len(talkers)) as pool:  # each waits for the end of its poll
                list(pool.map(Talker.close, talkers))
    watched = [talker for talker in talkers if talker.home == home]
    others = [talker for talker in talkers if talker.home != home]
    breaks = sum(len(talker.gaps) for talker in watched) + sum(talker.unheard for talker in watched)
    missed = sum(talker.missed for talker in watched)
    gaps = [gap for talker in others for gap in talker.gaps]
    print(f"{options.clients} clients for {took:.0f} s, AppServers recycled: {recycled}")
    print(f"watched      {len(watched)} clients: {breaks} breaks, {missed} numbers missed of {received(watched)}")
    print(f"             {answers(watched)}")
    print(f"the others   {len(others)} clients: {len(gaps)} breaks, {summary(gaps)} without a connection")
    print(f"             {answers(others)}, {sum(talker.unheard for talker in others)} had no connection")
    return int(bool(breaks or missed or not recycled))


def recycle(cluster: Cluster, entry: Entry) -> None:
    """Replace an AppServer, and wait until it has gone."""
    cluster.lbctl("drain", str(entry.identity.slot))
    eventually("it has gone", lambda: not cluster.entry(entry.ticket))
    cluster.await_ok()


def received(talkers: list[Talker]) -> int:
    return sum(len(talker.member.ticks) for talker in talkers)


def answers(talkers: list[Talker]) -> str:
    took = [seconds for talker in talkers for seconds in talker.took]
    return f"{len(took)} things said, answered after {summary(took)}"


def summary(seconds: list[float]) -> str:
    if not seconds:
        return "-"
    return f"{statistics.median(seconds):.3f} s (median), {max(seconds):.3f} s (longest)"


if __name__ == "__main__":
    sys.exit(main())
