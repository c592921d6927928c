"""`make machines-demo` as a person runs it: three machines behind an HAProxy, and one that takes its leave."""

from __future__ import annotations

import re
import socket
import subprocess
import sys
from collections.abc import Callable

import requests
from cluster import LBCTL, TIMEOUT, eventually
from demo_fixture import Demo, fetch

PROGRAM = (sys.executable, "-I", "-m", "monitor.demo.machines")
START_TIMEOUT = 90.0
"""Seconds for three monitors, six AppServers and three Apaches."""
PAGE = re.compile(r"<strong>(\d+)</strong>.*machine (\d), slot (\d)", re.DOTALL)


def visit(http: requests.Session, site: str) -> tuple[int, str]:
    """What the page has counted, and on which machine and in which slot."""
    found = PAGE.search(fetch(http, site).text)
    assert found
    return int(found[1]), f"{found[2]}/{found[3]}"


def test_a_visitor_stays_at_a_machine_that_is_drained_and_new_ones_go_elsewhere(demo: Callable[..., Demo]) -> None:
    running = demo(program=PROGRAM)
    running.await_ready(START_TIMEOUT)
    (site,) = re.findall(r"^the site +(\S+)$", running.output, re.MULTILINE)
    (statistics,) = re.findall(r"^its HAProxy +(\S+)$", running.output, re.MULTILINE)
    (configs,) = set(re.findall(r"--config (\S+)/\d\.toml", running.output))

    def states() -> dict[str, str]:
        """What HAProxy said last of each machine."""
        return dict(re.findall(r"^(\d) 127\.0\.0\.1\d +([A-Z]+)", running.output, re.MULTILINE))

    eventually("HAProxy holds all of them for up", lambda: states() == dict.fromkeys("123", "UP"))
    with requests.Session() as http:
        assert "machine3" in fetch(http, statistics).text
        count, place = visit(http, site)
        assert count == 1
        assert [visit(http, site) for _ in range(2)] == [(2, place), (3, place)]
        machine = place[0]
        drain = [LBCTL, "--config", f"{configs}/{machine}.toml", "drain", "--all"]
        subprocess.run(drain, check=True, capture_output=True, timeout=TIMEOUT)
        eventually("HAProxy knows", lambda: states()[machine] == "DRAIN")
        assert visit(http, site) == (4, place)
        for _ in range(4):
            with requests.Session() as other:
                assert visit(other, site)[1][0] != machine
    assert running.end() == 0
    assert re.findall(r"(\d+) failed, (\d+) sessions lost", running.output)[-1] == ("0", "0")
    running.assert_nothing_left()


def test_a_port_that_is_taken_at_a_machine_is_a_clear_line(demo: Callable[..., Demo]) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.12", 0))
        taken.listen()
        port = taken.getsockname()[1]
        running = demo("--port", str(port), program=PROGRAM)
        assert running.wait() == 1
    assert running.output == (
        f"lbctl: port {port} on 127.0.0.12 cannot be used (Address already in use); take another: "
        "make machines-demo PORT=8080\n"
    )
    running.assert_nothing_left()
