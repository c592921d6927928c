"""An httpd process that gets no descriptor: its visitors get a 503 at worst, no session is lost, and it heals."""

from __future__ import annotations

import contextlib
import ctypes
import os
import resource
import secrets
import socket
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import requests
from cluster import LANES, Cluster, Site, Visitor, eventually, running_cluster

AT_ONCE = 8
PAGE = resource.getpagesize()
VISITS, NAMES, NAME = 160, 90, 7000
"""How many requests, how many headers of each, and the characters of a header's name."""
HURRY = 15.0
"""Seconds in which every request is answered, whatever is short."""


def children_that_are_up(site: Site) -> list[int]:
    """The processes that serve, once there are as many as httpd starts with: it ends where one cannot get ready."""
    children = Path(f"/proc/{site.httpd.pid}/task/{site.httpd.pid}/children").read_text().split()
    up = [int(pid) for pid in children if len(os.listdir(f"/proc/{pid}/task")) > 25]  # their threads run
    return up if len(up) >= 2 else []


@contextlib.contextmanager
def no_descriptor(site: Site, more: int) -> Iterator[None]:
    """The children of httpd that run now get no descriptor beyond those that they have, but so many more."""
    with contextlib.ExitStack() as limits:
        for pid in eventually("httpd's children are up", lambda: children_that_are_up(site)):
            used = {int(name) for name in os.listdir(f"/proc/{pid}/fd")}
            free = [number for number in range(max(used) + 2 + more) if number not in used]
            limit(site, pid, free[more])
            limits.callback(limit, site, pid, resource.getrlimit(resource.RLIMIT_NOFILE)[0])
        yield


def limit(site: Site, pid: int, descriptors: int) -> None:
    """Its own user may do so, and in a container not even root else (prlimit(2))."""
    user = site.httpd.user
    who = ["setpriv", f"--reuid={user.pw_uid}", f"--regid={user.pw_gid}", "--clear-groups"] if user else []
    done = subprocess.run(
        [*who, "prlimit", "--pid", str(pid), f"--nofile={descriptors}:"], capture_output=True, text=True
    )
    # httpd itself ends one that cannot accept, and starts another
    assert done.returncode == 0 or not Path(f"/proc/{pid}").exists(), done.stderr


def status(site: Site, method: str) -> int:
    """0: httpd did not take the connection, or hung up."""
    with contextlib.suppress(requests.ConnectionError), requests.Session() as http:
        http.trust_env = False
        return http.request(method, f"{site.url}/count", timeout=HURRY).status_code
    return 0


def visit(visitor: Visitor) -> int:
    """One more visit, which is counted if it comes about."""
    try:
        answer = visitor.get("count", timeout=HURRY)
    except requests.ConnectionError:
        return 0
    if answer.status_code == 200:
        visitor.visits += 1
        assert answer.json()["visits"] == visitor.visits
    return answer.status_code


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    with running_cluster(appservers={"servers": 2}, adaptor={"wait": 1}) as made:
        yield made


@pytest.fixture(scope="module", params=LANES)
def site(cluster: Cluster, request: pytest.FixtureRequest) -> Site:
    return cluster.site(request.param, extra="MinSpareThreads 50")  # two processes, however little is to be done


@pytest.mark.parametrize("more", [0, 1, 3])
def test_an_httpd_without_descriptors(cluster: Cluster, site: Site, more: int) -> None:
    visitors = site.visitors(2)
    before = {entry.identity for entry in cluster.table().ok}
    pids = [visitor.count()["pid"] for visitor in visitors]
    with no_descriptor(site, more), ThreadPoolExecutor(AT_ONCE) as pool:
        found = set(pool.map(lambda method: status(site, method), ["GET", "POST"] * AT_ONCE))
        found |= {visit(visitor) for visitor in visitors for _ in range(3)}
    assert found <= {0, 200, 503}, found
    eventually("it serves again", lambda: status(site, "GET") == 200)
    assert [visitor.count()["pid"] for visitor in visitors] == pids
    assert {entry.identity for entry in cluster.table().ok} == before, "nobody is taken for dead for it"
    for visitor in visitors:
        visitor.close()


@pytest.mark.parametrize("name", LANES)
def test_heads_that_are_large_and_never_the_same_leave_no_memory_behind(cluster: Cluster, name: str) -> None:
    """An httpd process of 25 MiB had 150 MiB after some hundred of them, and kept it."""
    site = cluster.site(name)

    def ask(_: int) -> bytes:
        lines = "".join(f"X{secrets.token_hex(NAME // 2)}: 1\r\n" for _ in range(NAMES))
        with socket.create_connection(("127.0.0.1", site.port), HURRY) as visitor:
            visitor.sendall(f"GET /plain HTTP/1.1\r\nHost: x\r\nConnection: close\r\n{lines}\r\n".encode())
            return visitor.recv(12)

    with ThreadPoolExecutor(4) as visitors:
        assert set(visitors.map(ask, range(VISITS))) == {b"HTTP/1.1 200"}
    children = Path(f"/proc/{site.httpd.pid}/task/{site.httpd.pid}/children").read_text().split()

    def largest() -> int:
        return max(int(Path(f"/proc/{pid}/statm").read_text().split()[1]) for pid in children) * PAGE

    # The last visitors have their answers before Apache's threads are done with the requests.
    kept = VISITS * NAMES * NAME if python_keeps_names() else 0
    eventually("the memory is given back", lambda: largest() < (80 << 20) + kept)


def python_keeps_names() -> bool:
    """Whether this Python never frees a key that a C program puts into a dictionary by its text, as mod_wsgi does.

    It does so with the name of each header. Such a key is immortal in CPython 3.13 (python/cpython issue 113993).
    """
    put = ctypes.pythonapi.PyDict_SetItemString
    put.argtypes = [ctypes.py_object, ctypes.c_char_p, ctypes.py_object]
    names: dict[str, int] = {}
    put(names, secrets.token_hex(8).encode(), 1)
    (name,) = names
    return sys.getrefcount(name) > 1_000_000
