"""Sessions outlive their process: limits, a surplus, and files that somebody deletes, with a real monitor."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import shutil
import signal
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from monitor_fixture import PATIENCE, Site, wait_for

from lbadaptor.contract.address import Entry
from lbadaptor.contract.headers import MANDATORY
from lbadaptor.contract.ticket import read_keys
from tests.folders import delete

APPLICATION = """
import json, os, secrets

visits = {}

def save(sid):
    count = visits.get(sid)
    if count is not None and sid.startswith("open-file"):
        raise TypeError("_io.TextIOWrapper")
    return None if count is None else str(count).encode()

def load(sid, data):
    if data is None:
        visits.pop(sid, None)
    else:
        visits[sid] = int(data)

def app(environ, start_response):
    sid = environ.get("HTTP_COOKIE", "").partition("sid=")[2]
    headers = []
    if environ["PATH_INFO"] == "/login":
        sid = environ["QUERY_STRING"] + secrets.token_hex(8)
        visits[sid] = 0
        headers.append(("Set-Cookie", f"sid={sid}; Path=/"))
    if sid in visits:
        visits[sid] += 1
    told = {name: environ[f"lbadaptor.session_{name}"] for name in ("lost", "moved")}
    start_response("200 OK", headers)
    return [json.dumps({"pid": os.getpid(), "visits": visits.get(sid), **told}).encode()]
"""


@dataclass
class Visit:
    """An answer, as an adaptor gets it."""

    status: int
    told: dict[str, Any]
    sid: str


def visit(site: Site, entry: Entry, page: str = "/", sid: str = "", session: str = "none") -> Visit:
    """`session`: what the adaptor says of the visitor's ticket."""
    headers = {
        **dict.fromkeys(MANDATORY, "1"),
        "LB-Script-Name": "",
        "LB-Path": page.partition("?")[0],
        "LB-Key": read_keys(site.folder / "keys").caller_key(entry.ticket),
        "LB-Generation": str(entry.identity.generation),
        "LB-Session": session,
        "Cookie": f"sid={sid}" if sid else "other=1",
    }
    connection = http.client.HTTPConnection(*entry.address, timeout=PATIENCE)
    try:
        connection.request("GET", page, headers=headers)
        answer = connection.getresponse()
        body = answer.read()
    finally:
        connection.close()
    cookies = "; ".join(answer.headers.get_all("Set-Cookie", []))
    told = json.loads(body) if answer.status == 200 else {}
    return Visit(answer.status, told, cookies.partition("sid=")[2].partition(";")[0] or sid)


def login(site: Site, slot: int = 0, page: str = "/login") -> str:
    entry = site.entry(slot)
    assert entry is not None
    return visit(site, entry, page).sid


def found(site: Site, sid: str, visits: int = 2) -> None:
    """A visitor whose AppServer is gone comes to one that is OK, and is counted on."""
    told = site.wait(lambda: served(site, site.ok, "/", sid), "one takes the visitor").told
    assert (told["visits"], told["lost"], told["moved"]) == (visits, False, True)


def served(site: Site, ok: list[Entry], page: str, sid: str = "") -> Visit | None:
    """What one of these answers; None: it has begun to leave meanwhile."""
    with contextlib.suppress(OSError, http.client.HTTPException):
        made = visit(site, ok[0], page, sid, "lost" if sid else "none") if ok else None
        return made if made and made.status == 200 else None
    return None


def folder(site: Site) -> Path:
    return site.folder / "kept"


@pytest.fixture
def site(site: Site) -> Site:
    (site.app_folder / "counting.py").write_text(APPLICATION)
    site.settings("application", app="counting:app")
    site.settings("appservers", servers=1)
    site.settings("sessions", survive="anything", folder="kept", save="counting:save", load="counting:load")
    return site


def wait_gone(site: Site, pid: int) -> None:
    """Its session would live for half an hour."""
    site.wait(lambda: not os.path.exists(f"/proc/{pid}"), "the old one has ended")


# Leaving.


def begin(site: Site) -> tuple[Entry, Visit] | None:
    """A session at the AppServer that is OK: where, and the answer."""
    ok = site.ok
    begun = served(site, ok, "/login")
    return (ok[0], begun) if begun else None


@pytest.mark.parametrize("limit", [{"max_requests": 4}, {"max_age": 1.0}], ids=["requests", "age"])
def test_past_its_limit_it_is_gone_in_seconds_and_its_session_goes_on(site: Site, limit: dict[str, float]) -> None:
    site.settings("sessions", survive="leaving")
    site.settings("appservers", **limit)
    site.start()
    first, begun = site.wait(lambda: begin(site), "one takes the visitor")
    sid, old, visits = begun.sid, begun.told["pid"], 1
    with contextlib.suppress(OSError):  # it has ended
        for _ in range(4):
            if visit(site, first, sid=sid, session="held").status != 200:
                break
            visits += 1
    wait_gone(site, old)
    found(site, sid, visits + 1)
    assert "slot 0 has no session left" in site.said


def test_a_surplus_leaves_in_seconds_and_all_sessions_are_at_who_is_left(site: Site) -> None:
    site.settings("sessions", survive="leaving")
    site.settings("appservers", servers=3)
    site.up()
    before = site.pids()
    sids = [login(site, slot) for slot in before]
    site.settings("appservers", servers=1)
    site.wait_order("restart")
    for pid in before.values():
        wait_gone(site, pid)
    site.wait(lambda: len(site.table.entries) == 1 and site.ok, "one is left")
    for sid in sids:
        found(site, sid)


def test_what_cannot_be_saved_keeps_it_dying_and_undrain_keeps_the_session(site: Site) -> None:
    site.up()
    first = site.ok[0]
    stays, leaves = login(site, page="/login?open-file"), login(site)

    def shown(*texts: str) -> bool:
        status = site.lbctl("status")[1]
        return all(text in status for text in texts)

    site.wait(lambda: shown("1 saved, 1 not saved (", "_io.TextIOWrapper", "0 waiting"), "the status tells it")
    site.wait_said('survive = "anything": the application\'s own counting:save and counting:load save')
    site.wait_order("drain", 0)
    site.wait_states(s0="DYING", s1="OK")
    site.wait(lambda: shown("0 saved, 1 not saved (", "moved out 1"), "the other one has left")
    assert visit(site, first, sid=stays, session="held").told["visits"] == 2
    assert visit(site, first, sid=leaves, session="held").status == 421
    found(site, leaves)
    site.wait_order("undrain", 0)
    site.wait(lambda: site.states.get(0) == "OK", "it is OK again")
    assert visit(site, first, sid=stays, session="held").told["visits"] == 3


# Killed.


def test_one_that_dies_of_a_fault_while_there_is_no_monitor_has_lost_no_session(site: Site) -> None:
    site.settings("appservers", servers=2)
    site.up()
    sid = login(site)
    pids, other = site.pids(), site.entry(1)
    assert site.monitor is not None
    assert other is not None
    site.monitor.kill()
    site.monitor.wait()
    os.kill(pids[0], signal.SIGSEGV)
    wait_for(lambda: not Path(f"/proc/{pids[0]}").exists(), "it is dead")
    told = visit(site, other, sid=sid, session="lost").told
    assert (told["visits"], told["lost"], told["moved"], told["pid"]) == (2, False, True, pids[1])


@pytest.mark.parametrize("survive", ["leaving", "anything"])
def test_after_a_reboot_of_the_machine_sessions_are_there(site: Site, survive: str) -> None:
    """The run folder is in memory. An orderly end comes before it, or with "anything" not even that."""
    site.settings("sessions", survive=survive)
    site.up()
    sid = login(site)
    if survive == "leaving":
        site.end()
    else:
        site.clear()
    shutil.rmtree(site.run_folder)
    site.up()
    found(site, sid)


# Files that are deleted.


def test_the_folder_is_deleted_while_everything_is_stopped(site: Site) -> None:
    site.up()
    sid = login(site)
    site.end()
    shutil.rmtree(folder(site))
    site.up()
    told = visit(site, site.ok[0], sid=sid, session="lost").told
    assert (told["visits"], told["lost"], told["moved"]) == (None, True, False)
    assert folder(site).stat().st_mode & 0o777 == 0o700


def test_a_deleted_session_file_is_written_again_when_the_session_moves(site: Site) -> None:
    site.up()
    sid, old = login(site), site.pids()[0]
    (file,) = (path for path in folder(site).glob("at.*/*") if len(path.name) == 40)
    file.unlink()
    assert visit(site, site.ok[0], sid=sid, session="held").told["visits"] == 2
    site.wait_order("drain", 0)
    wait_gone(site, old)
    found(site, sid, 3)


@pytest.mark.parametrize("content", [b"", b"LBS1", b"of another program" * 300])
def test_a_file_that_is_cut_off_or_of_another_program_is_told_as_a_loss(site: Site, content: bytes) -> None:
    site.up()
    sid = login(site)
    site.end()
    (file,) = (path for path in folder(site).glob("free/*/*") if len(path.name) == 40)
    file.write_bytes(content)
    site.up()
    told = visit(site, site.ok[0], sid=sid, session="lost").told
    assert (told["visits"], told["lost"], told["moved"]) == (None, True, False)
    site.wait_said("a session is lost, its file is set aside: its file is damaged: ")


def test_the_folder_is_deleted_while_it_runs(site: Site) -> None:
    site.up()
    sid, old, first = login(site), site.pids()[0], site.ok[0]
    delete(folder(site))
    assert visit(site, first, sid=sid, session="held").told["visits"] == 2
    site.wait_said("the folder of sessions was deleted, and is made anew")
    site.wait_order("drain", 0)
    wait_gone(site, old)
    found(site, sid, 3)


def test_a_deleted_address_text_costs_no_session(site: Site) -> None:
    site.up()
    sid, old = login(site), site.pids()[0]
    path = site.run_folder / "address.text"
    path.unlink()
    site.wait(path.exists, "it is written again")
    os.kill(old, signal.SIGKILL)
    site.wait(lambda: site.ok and site.pids().get(0) not in (None, old), "a new one is OK")
    found(site, sid)


def test_a_key_file_that_is_deleted_while_it_runs_costs_no_session(site: Site) -> None:
    site.up()
    sid, old, first = login(site), site.pids()[0], site.ok[0]
    keys = site.folder / "keys"
    keys.rename(site.folder / "gone")
    os.kill(old, signal.SIGKILL)
    site.wait_reborn(first)
    (site.folder / "gone").rename(keys)
    found(site, sid)


def test_a_key_file_that_is_deleted_while_everything_is_stopped_is_told(site: Site) -> None:
    """Nobody looks for a session whose ticket is not signed by us."""
    site.up()
    sid = login(site)
    site.end()
    (site.folder / "keys").unlink()
    site.up()
    assert "keys is missing, and is made anew: tickets of before count no more, and the sessions in" in site.said
    assert visit(site, site.ok[0], sid=sid).told["visits"] is None
