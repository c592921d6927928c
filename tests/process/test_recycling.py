"""Recycling, releases and standby, with a real monitor and real AppServers."""

from __future__ import annotations

import http.client
import threading
from typing import Any

import pytest
from monitor_fixture import PATIENCE, Site, wait_for

from lbadaptor.contract.address import Entry
from lbadaptor.contract.headers import MANDATORY
from lbadaptor.contract.ticket import read_keys
from monitor.contract.client import ask, exchange

MB = 1 << 20

APPLICATION = """
import os, secrets, time

eaten, sessions = [], set()

def app(environ, start_response):
    page = environ["PATH_INFO"]
    headers = []
    if page == "/login":
        sid = secrets.token_hex(8)
        sessions.add(sid)
        headers.append(("Set-Cookie", f"sid={sid}; Path=/"))
    elif page == "/logout":
        headers.append(("Set-Cookie", "sid=; Path=/; Max-Age=0"))
    elif page == "/eat":
        eaten.append(b"x" * (150 << 20))
    elif page == "/slow":
        open("entered", "w").close()
        while not os.path.exists("go"):
            time.sleep(0.01)
    start_response("500 Cold" if page == "/cold" and os.path.exists("cold") else "200 OK", headers)
    return [b"{}"]
"""


@pytest.fixture
def site(site: Site) -> Site:
    (site.app_folder / "hungry.py").write_text(APPLICATION)
    site.settings("application", app="hungry:app")
    site.settings("appservers", servers=1)
    return site


class Robot(threading.Thread):
    """Comes back for ever with the cookies that it was given once."""

    def __init__(self, site: Site, entry: Entry, sid: str) -> None:
        super().__init__(daemon=True)
        key = read_keys(site.folder / "keys").caller_key(entry.ticket)
        self.headers = {
            **dict.fromkeys(MANDATORY, "1"),
            "LB-Script-Name": "",
            "LB-Path": "/",
            "LB-Key": key,
            "LB-Generation": str(entry.identity.generation),
            "LB-Session": "held",
            "Cookie": f"__PRT__={entry.ticket}; sid={sid}",
        }
        self.address = entry.address
        self.answers: list[int] = []

    def run(self) -> None:
        try:
            while True:
                connection = http.client.HTTPConnection(*self.address, timeout=PATIENCE)
                connection.request("GET", "/", headers=self.headers)
                self.answers.append(connection.getresponse().status)
                connection.close()
        except (OSError, http.client.HTTPException):
            return  # its AppServer has gone


def test_robots_with_old_tickets_keep_no_dying_one_alive(site: Site) -> None:
    site.up()
    real = site.get(0, "/login").cookies["sid"]
    old = site.get(0, "/login").cookies["sid"]
    site.get(0, "/logout", sid=old)
    (entry,) = site.ok
    robots = [Robot(site, entry, sid) for sid in (old, old, "never-was")]
    for robot in robots:
        robot.start()
    site.wait_order("drain", 0)
    site.wait_states(s0="DYING", s1="OK")
    for robot in robots:
        wait_for(lambda robot=robot: robot.answers.count(421) > 20, "the robots are refused")  # type: ignore[misc]
    assert site.get(0, sid=real).status == 200, "whose session lives is served all the while"
    assert site.states[0] == "DYING"
    site.get(0, "/logout", sid=real)
    site.wait_states(s1="OK")
    site.wait(lambda: list(site.pids()) == [1], "it has ended, though the robots are at it")
    for robot in robots:
        robot.join(PATIENCE)
        assert not robot.is_alive()
    assert "slot 0 has no session left" in site.said
    site.end()


def test_past_its_memory_it_is_replaced_then_drained(site: Site) -> None:
    site.settings("appservers", max_memory=120 * MB)
    site.up()
    sid = site.get(0, "/login").cookies["sid"]
    site.get(0, "/eat")
    site.wait_states(s0="DYING", s1="OK")
    site.wait_said("slot 0 is past its limit (memory)")
    assert site.get(0, sid=sid).status == 200
    site.end()


def test_past_its_age_it_is_replaced_then_drained(site: Site) -> None:
    site.settings("appservers", max_age=1.0)
    site.start()
    (first,) = site.wait_ok()
    site.wait_said("slot 0 is past its limit (age)")
    site.wait(lambda: [entry for entry in site.ok if entry.identity != first.identity], "it is replaced")
    site.end()


def test_beyond_the_hard_limit_on_memory_it_is_ended_at_once(site: Site) -> None:
    site.settings("appservers", hard_memory=120 * MB)
    site.up()
    site.get(0, "/login")
    before = site.pids()[0]
    site.get(0, "/eat")
    site.wait_said("slot 0 is ended with ")
    site.wait(lambda: [entry for entry in site.ok if site.pids().get(entry.identity.slot) != before], "another is up")
    site.wait(lambda: before not in site.pids().values(), "it has ended")
    site.end()


def test_a_drain_beyond_its_limit_is_ended(site: Site) -> None:
    site.settings("monitor", drain_limit=1.0)
    site.up()
    site.get(0, "/login")
    site.wait(lambda: ask(site.control)["appservers"][0]["sessions"] == 1, "it has a session, and that is seen")
    site.wait_order("drain", 0)
    site.wait_states(s0="DYING", s1="OK")
    site.wait_states(s1="OK")
    site.wait_said("slot 0 is ended with 1 session: it has been DYING for 1 s")
    site.end()


def test_a_release_that_ends_sessions_lets_in_flight_requests_finish(site: Site) -> None:
    site.up()
    site.get(0, "/login")
    site.wait(lambda: site.table.entries[0].sessions == 1, "the session is seen")
    statuses: list[int] = []
    slow = threading.Thread(target=lambda: statuses.append(site.get(0, "/slow").status))
    slow.start()
    site.wait(lambda: (site.app_folder / "entered").exists(), "a request is at work")
    site.wait_control()
    assert exchange(site.control, "restart", b'{"now": true}', PATIENCE)[0] == 200
    site.wait_states(s1="OK")
    site.wait_said("slot 0 is ended with 1 session: a release that ends sessions")
    (site.app_folder / "go").touch()
    slow.join(PATIENCE)
    assert statuses == [200]
    site.wait(lambda: list(site.pids()) == [1], "it has ended")
    ended = ["slot 0 with 1 session: a release that ends sessions"]
    site.wait(lambda: ask(site.control)["ended"] == ended, "the status says which AppServers it ended")
    site.end()


def test_a_release_that_does_not_get_warm_says_why_and_the_old_ones_serve_on(site: Site) -> None:
    site.settings("appservers", servers=2, warm_up=["/login", "/cold"])
    site.settings("monitor", backoff_limit=0.2)
    site.up()
    before = site.pids()
    assert [entry.sessions for entry in site.ok] == [0, 0], "the warm-up's session is none"
    (site.app_folder / "cold").touch()
    site.wait_order("restart")
    why = "failed: slot 2: warm-up: /cold answered 500 Cold"
    site.wait(lambda: ask(site.control)["release"] == why, "it says why")
    site.wait(lambda: ask(site.control)["replaced"] == [0, 2], "it says how far it is")
    assert site.states == {0: "OK", 1: "OK"}
    assert before.items() <= site.pids().items()
    (site.app_folder / "cold").unlink()
    site.wait_said("release: every AppServer has been replaced")
    site.wait(lambda: ask(site.control)["release"] == "", "it is over")
    site.end()


def weights(site: Site) -> dict[int, int]:
    return {entry.identity.slot: entry.weight for entry in site.ok}


def test_weights_and_the_standby_stand_in_address_text(site: Site) -> None:
    site.settings("appservers", servers=2, standby=1, weights=[50])
    site.start()
    site.wait(lambda: weights(site) == {0: 50, 1: 100, 2: 0}, "they stand there")
    site.end()


def test_a_newcomers_weight_rises_in_address_text(site: Site) -> None:
    site.settings("appservers", slow_start=3.0)
    site.start()
    seen: list[int] = []

    def risen() -> Any:
        seen.extend(weights(site).values())
        return 100 in seen

    site.wait(risen, "it has its whole weight")
    assert seen[0] < 30
    assert seen == sorted(seen)
    site.end()
