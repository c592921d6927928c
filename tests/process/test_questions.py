"""An administrator's questions, each with the one command that answers it, to one running site. Times are examples.

| question | command |
|---|---|
| Is it healthy? For a monitoring system, as a member of `status_group`. | `lbctl check` |
| How many sessions are there, and where? | `lbctl sessions` |
| Which request is slow or stuck, and since when? | `lbctl top --once` |
| Why was slot 2 replaced last night, and whose sessions were lost? | `lbctl events --slot 2 --since 24h` |
| How do I get an alert when something happens? | `lbctl events --follow --json` |
| How do I go from 4 to 6 AppServers without a restart? | `lbctl scale 6` |
| How do I take that back? | `lbctl scale --reset` |
| Did my release succeed? For a script. | `lbctl restart --wait 300` |
| How do I take my release back? | put the old code in place, `lbctl restart --wait 300` |
| How do I take one out, and back in? | `lbctl drain 1`, `lbctl undrain 1` |
| Who stopped the monitor? | `lbctl events` |

docs/howto/questions.md shows what they print.
"""

from __future__ import annotations

import grp
import json
import os
import pwd
import re
import signal
import subprocess
import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from monitor_fixture import PATIENCE, SLOTS, Site
from test_lbctl import IMPATIENT, lbctl

from tests.ports import held_ports

GROUP = "games"
"""Of those who may look; every Debian has it."""


@pytest.fixture(scope="module")
def site() -> Iterator[Site]:
    """Four AppServers, in a folder that everybody may enter."""
    with held_ports(SLOTS) as base_port, tempfile.TemporaryDirectory(prefix="lbt-", dir="/tmp") as folder:
        Path(folder).chmod(0o711)
        made = Site(Path(folder), base_port)
        made.settings("appservers", servers=4)
        made.settings("monitor", replace_at_once=4)
        if os.geteuid() == 0:
            made.settings("files", status_group=GROUP)
        try:
            made.up()
            yield made
        finally:
            made.clear()


def told(site: Site, *words: str) -> str:
    """What a command prints that does what it is to do."""
    status, said = site.lbctl(*words)
    assert status == 0, said
    return said


def ordered_by() -> str:
    return f"user {pwd.getpwuid(os.geteuid()).pw_name}"


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root to be somebody else")
def test_is_it_healthy(site: Site) -> None:
    nobody, group = pwd.getpwnam("nobody"), grp.getgrnam(GROUP)
    wrapper = ("setpriv", f"--reuid={nobody.pw_uid}", f"--regid={nobody.pw_gid}", f"--groups={group.gr_gid}")
    done = lbctl("check", "--socket", site.control, wrapper=wrapper, cwd=Path("/"))
    assert (done.returncode, done.stderr) == (0, "")
    assert re.fullmatch(r"OK: 4 of 4 AppServers OK, \d+ sessions \| servers=4 sessions=\d+\n", done.stdout)


def test_how_many_sessions_are_there_and_where(site: Site) -> None:
    for slot in (0, 0, 1):
        site.get(slot, "/login")

    def counted() -> bool:
        rows = [" ".join(line.split()) for line in told(site, "sessions").splitlines()]
        return any(row.startswith("0 OK 2 ") for row in rows) and any(row.startswith("1 OK 1 ") for row in rows)

    site.wait(counted, "two are in slot 0, one in slot 1")


def test_why_was_slot_2_replaced_and_whose_sessions_were_lost(site: Site) -> None:
    old = site.entry(2)
    assert old is not None
    site.get(2, "/login")
    site.wait(lambda: (entry := site.entry(2)) is not None and entry.sessions == 1, "its session is counted")
    os.kill(site.pids()[2], signal.SIGKILL)
    site.wait_reborn(old)
    said = told(site, "events", "--slot", "2", "--since", "24h")
    [line] = [line for line in said.splitlines() if " exit " in line]
    assert re.match(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d  slot 2 ", line)
    assert "1 of 1 session lost: was ended by SIGKILL" in line
    assert "slot 1" not in said


def test_how_do_i_get_an_alert(site: Site) -> None:
    said = site.folder / "followed"
    command = site.command("events", "--follow", "--json", module="monitor.ctl")
    with said.open("wb") as out, subprocess.Popen(command, stdout=out, stdin=subprocess.DEVNULL) as following:
        try:
            site.wait(lambda: said.stat().st_size > 0, "it shows what has happened")
            told(site, "weight", "3", "50")
            site.wait(lambda: '"event":"weight"' in said.read_text().replace(" ", ""), "it shows what happens")
        finally:
            following.kill()
    [event] = [event for event in map(json.loads, said.read_text().splitlines()) if event["event"] == "weight"]
    assert event["slot"] == 3
    assert ordered_by() in event["why"]
    told(site, "weight", "3", "--reset")


def test_from_4_to_6_without_a_restart_and_back(site: Site) -> None:
    before = site.pids()
    said = told(site, "scale", "6")
    assert said == "AppServers asked for: 6 (set at run time; lbadaptor.toml: 4), not 4 as before"
    site.wait(lambda: len(site.ok) == 6, "six are OK")
    assert before.items() <= site.pids().items()
    assert re.search(r"servers +6 +run time \(lbadaptor\.toml: 4\)", told(site, "settings", "appservers.servers"))
    told(site, "scale", "--reset")
    site.wait(lambda: len(site.ok) == 4, "four are OK")


def test_one_is_taken_out_and_back_in(site: Site) -> None:
    site.get(1, "/login")  # it is not empty, so it stays
    site.wait(lambda: (entry := site.entry(1)) is not None and entry.sessions > 0, "its session is counted")
    pid = site.pids()[1]
    told(site, "drain", "1")
    site.wait(lambda: site.states[1] == "DYING", "it takes no new visitors")
    told(site, "undrain", "1")
    site.wait(lambda: site.states[1] == "OK", "it takes new visitors")
    assert site.pids()[1] == pid
    site.wait(lambda: len(site.ok) == 4, "the one that would have replaced it leaves")


def test_did_my_release_succeed_and_how_do_i_take_it_back(site: Site) -> None:
    site.write_application("import no_such_module")
    done = lbctl("--config", site.config, "restart", "--wait", "60", code=IMPATIENT)
    assert done.returncode == 1
    assert "lbctl: the release has failed: slot " in done.stderr
    assert "no_such_module" in done.stderr
    assert len(site.ok) == 4, "those of before serve on"
    site.write_application()
    # The failed release has gone on by itself, perhaps, before this order: then DYING ones may have all slots.
    assert "4 of 4 replaced" in told(site, "restart", "--wait", "60").splitlines()
    assert "release failed" in told(site, "events")


def test_which_request_is_stuck_and_since_when(site: Site) -> None:
    slot = site.ok[0].identity.slot
    gate = site.folder / "gate"
    os.mkfifo(gate)
    waits = f"os.read(os.open({str(gate)!r}, os.O_RDONLY), 1).decode()"

    def shown() -> bool:
        said = told(site, "top", "--once", "--interval", "0.2")
        return bool(re.search(rf"^{slot} +[0-9.]+ m?s +\d\d:\d\d:\d\d +GET ", said, re.MULTILINE))

    with gate.open("r+b", buffering=0) as opened, ThreadPoolExecutor(1) as pool:
        stuck = pool.submit(site.eval, slot, waits)
        try:
            site.wait(shown, "its slot, how long it has been at work, since when, and the request itself")
        finally:
            opened.write(b"x")
            assert stuck.result() == "x"


def test_who_stopped_the_monitor(site: Site) -> None:
    """The last test: no monitor runs any more, and its events can be read all the same."""
    told(site, "stop")
    assert site.monitor is not None
    assert site.monitor.wait(PATIENCE) == 0
    [line] = [line for line in told(site, "events").splitlines() if "monitor stopping" in line]
    assert ordered_by() in line
