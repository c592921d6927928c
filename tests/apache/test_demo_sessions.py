"""`lbctl demo`: which sessions survive."""

from __future__ import annotations

import contextlib
import re
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
import requests
from cluster import LBCTL, TIMEOUT, eventually, processes_of
from demo_fixture import Demo, fetch

from tests.apache.resources import kill

PAGE = re.compile(r"This page is from slot (\d+), process (\d+)\.(.*?)</p>")
MOVED = " Your session has moved here from another process."
LOST = " Your session is lost: the process that held it has ended."


class Counter:
    """A visitor of Webware's page."""

    def __init__(self, site: str) -> None:
        self._site = site
        self._http = requests.Session()
        self._http.headers["Connection"] = "close"  # else the fast lane leaves it to the browser to repeat
        self.slot = self.pid = 0
        """of the AppServer that the page names"""
        self.told = ""
        """what the page says of the session"""

    def visit(self) -> int:
        """What the page counts."""
        answer = fetch(self._http, self._site)
        found = PAGE.search(answer.text)
        assert found, answer.text
        self.slot, self.pid, self.told = int(found[1]), int(found[2]), found[3]
        assert answer.headers["X-AppServer"] == f"slot {self.slot}, process {self.pid}"
        counted = re.search(r"<strong[^>]*>&nbsp;(\d+)&nbsp;</strong>", answer.text)
        assert counted
        return int(counted[1])

    def close(self) -> None:
        self._http.close()


@pytest.mark.parametrize(("survive", "goes_on"), [("anything", True), ("leaving", False), ("nothing", False)])
def test_kill_9_of_a_printed_pid_ends_sessions_unless_they_survive_anything(
    demo: Callable[..., Demo], survive: str, goes_on: bool
) -> None:
    running = demo("--survive", survive)
    site, address_file, _ = running.await_up()
    with contextlib.closing(Counter(site)) as visitor:
        assert [visitor.visit(), visitor.visit()] == [1, 2]
        assert f"slot {visitor.slot}: pid {visitor.pid}" in running.output
        assert ("kill -9" in what_survives(running)) is (survive != "nothing")
        assert address_file.with_name("sessions").exists() is (survive != "nothing")
        kill(killed := visitor.pid)
        assert visitor.visit() == (3 if goes_on else 1)
        assert visitor.pid != killed
        assert visitor.told == (MOVED if goes_on else LOST)
        visitor.visit()
        assert visitor.told == ""
    assert running.end() == 0
    running.assert_nothing_left()


def test_sessions_that_survive_leaving_move_when_their_appserver_is_drained(demo: Callable[..., Demo]) -> None:
    running = demo("--survive", "leaving", "--servers", "2")
    site, _, control_socket = running.await_up()
    with contextlib.closing(Counter(site)) as visitor:
        assert visitor.visit() == 1
        drained = visitor.pid
        command = [LBCTL, "--socket", control_socket, "drain", str(visitor.slot)]
        subprocess.run(command, check=True, capture_output=True, timeout=TIMEOUT)
        eventually("the AppServer has left", lambda: drained not in processes_of(running.temporary))
        assert visitor.visit() == 2
        assert visitor.told == MOVED
    assert running.end() == 0
    running.assert_nothing_left()


OWN_STORE = """
import secrets

counts = {}


def application(environ, start_response):
    cookies = [cookie.strip() for cookie in environ.get("HTTP_COOKIE", "").split(";")]
    sid = next((cookie[4:] for cookie in cookies if cookie.startswith("sid=")), "")
    headers = [("Content-Type", "text/plain")]
    if sid not in counts:
        sid = secrets.token_hex(8)
        counts[sid] = 0
        headers.append(("Set-Cookie", f"sid={sid}; Path=/"))
    counts[sid] += 1
    start_response("200 OK", headers)
    return [f"{counts[sid]} {environ['lbadaptor.slot']}".encode()]


def save(sid):
    return str(counts[sid]).encode() if sid in counts else None


def load(sid, data):
    if data is None:
        counts.pop(sid, None)
    else:
        counts[sid] = int(data)
"""
OWN = ("--app", "its_own:application", "--session-cookie", "sid", "--survive", "anything", "--servers", "2")


def what_survives(running: Demo) -> str:
    """What the demo prints of the sessions."""
    found = re.search(r"^ +sessions +(.*)$", running.output, re.MULTILINE)
    assert found
    return found[1]


def test_sessions_of_any_application_survive_by_its_own_functions(demo: Callable[..., Demo], folder: Path) -> None:
    (folder / "its_own.py").write_text(OWN_STORE)
    running = demo(*OWN, "--save", "its_own:save", "--load", "its_own:load")
    site, *_ = running.await_up()
    with requests.Session() as http:
        http.headers["Connection"] = "close"  # else the fast lane leaves it to the browser to repeat
        count, slot = fetch(http, site).text.split()
        (pid,) = re.findall(rf"slot {slot}: pid (\d+)", running.output)
        kill(int(pid))
        assert (count, fetch(http, site).text.split()[0]) == ("1", "2")
    assert running.end() == 0
    running.assert_nothing_left()


def test_it_says_why_sessions_do_not_survive(demo: Callable[..., Demo], folder: Path) -> None:
    (folder / "its_own.py").write_text(OWN_STORE)
    running = demo(*OWN)
    running.await_up()
    assert what_survives(running).startswith("sessions cannot be saved: ")
    assert running.end() == 0
    running.assert_nothing_left()
