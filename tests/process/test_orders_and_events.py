"""Orders at run time, the events that they leave, and who may look: against a real monitor."""

from __future__ import annotations

import grp
import json
import os
import pwd
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from monitor_fixture import PATIENCE, SLOTS, Site, wait_for

from lbadaptor.contract.ticket import read_keys
from monitor.contract.client import NoAnswer, ask
from monitor.contract.client import events as ask_events
from tests.ports import held_ports


def told(site: Site, *words: str) -> list[dict[str, Any]]:
    """What `lbctl events` says."""
    status, said = site.lbctl("events", "--json", *words)
    assert status == 0, said
    return [json.loads(line) for line in said.splitlines()]


def whys(site: Site, event: str, slot: int | None = None) -> list[str]:
    return [one.get("why", "") for one in told(site) if one["event"] == event and slot in (None, one.get("slot"))]


def me() -> str:
    """As the monitor names who gives an order here."""
    return f"user {pwd.getpwuid(os.geteuid()).pw_name}"


def test_scaling_takes_effect_at_once_and_outlives_the_monitor(site: Site) -> None:
    site.settings("appservers", servers=1)
    site.up()
    status, said = site.lbctl("scale", "3")
    assert (status, said) == (0, "AppServers asked for: 3 (set at run time; lbadaptor.toml: 1), not 1 as before")
    site.wait(lambda: len(site.ok) == 3, "three are OK")
    assert site.lbctl("weight", "1", "50")[0] == 0
    site.wait(lambda: (entry := site.entry(1)) is not None and entry.weight == 50, "slot 1 has its weight")
    assert "set at run time; lbadaptor.toml: 1" in site.lbctl("status")[1]
    assert site.monitor is not None
    site.monitor.kill()
    site.monitor.wait()
    site.start()
    site.wait_control()
    status = ask(site.control)
    assert (status["servers"], status["run_time"]) == (3, {"servers": 3, "weights": {"1": 50}})
    text = site.wait_order("restart")
    assert text.endswith(
        "set at run time, and not by lbadaptor.toml: servers = 3, not 1; the weight of slot 1 is 50, not 100"
    )
    site.wait(lambda: not ask(site.control)["release"] and len(site.ok) == 3, "the release is over")
    assert site.lbctl("scale", "--reset")[0] == site.lbctl("weight", "1", "--reset")[0] == 0
    site.wait(lambda: len(site.ok) == 1 and len(site.table.entries) == 1, "one is left")
    assert json.loads((site.run_folder / "runtime.json").read_text()) == {}
    refused = site.lbctl("scale", str(SLOTS))
    assert refused[0] == 1
    assert f"slots = {SLOTS} leaves no slot for a replacement" in refused[1]
    said_scaled = whys(site, "scaled")
    assert len(said_scaled) == 2
    assert f"; ordered by {me()}" in said_scaled[0]
    site.end()
    site.up()
    assert whys(site, "monitor stopping")[-1].endswith("with SIGTERM")
    assert f"process {os.getpid()} (" in whys(site, "monitor stopping")[-1]
    site.end()


def test_one_is_killed_and_its_losses_are_told(site: Site) -> None:
    site.up()
    site.get(0, "/login")
    child = site.get(0, "/child").content["pid"]
    site.wait(lambda: (entry := site.entry(0)) is not None and entry.sessions == 1, "its session is counted")
    old = site.entry(0)
    assert old is not None
    status, said = site.lbctl("kill", "0")
    assert status == 0
    assert said.endswith("is killed; sessions that are lost: 1 of 1")
    site.wait_reborn(old)
    site.wait(lambda: not os.path.exists(f"/proc/{child}"), "what it had started has ended, too")
    [exit] = [one for one in told(site, "--slot", "0") if one["event"] == "exit"]
    assert (exit["sessions"], exit["lost"], exit["state"]) == (1, 1, "BACKOFF")
    assert exit["why"].startswith(f"was ended by SIGKILL because {me()}")
    status, said = site.lbctl("kill", "7")
    assert (status, "there is no AppServer in slot 7" in said) == (1, True)
    site.end()


def test_one_is_restarted_and_waited_for(site: Site) -> None:
    site.up()
    before = site.pids()
    status, said = site.lbctl("restart", "1", "--wait", "15")
    assert (status, said.splitlines()[-1]) == (0, "1 of 1 replaced")
    assert site.pids()[0] == before[0]
    site.wait(lambda: before[1] not in site.pids().values(), "the old one has ended")
    assert len(site.ok) == 2
    site.get(0, "/login")
    status, said = site.lbctl("restart", "0", "--now")
    assert status == 0, said
    site.wait(lambda: before[0] not in site.pids().values(), "that one has ended in spite of its session")
    assert site.lbctl("restart", "7")[0] == 1
    site.end()


def test_who_stopped_the_monitor_is_known_when_it_is_gone(site: Site) -> None:
    site.settings("appservers", servers=1)
    site.up()
    assert site.lbctl("stop")[0] == 0
    assert site.monitor is not None
    assert site.monitor.wait(PATIENCE) == 0
    [who] = whys(site, "monitor stopping")
    assert who.startswith(me())
    assert [one["event"] for one in told(site)][-2:] == ["exit", "monitor stopped"]


def test_what_a_monitor_did_not_see_the_next_one_tells(site: Site) -> None:
    site.up()
    assert site.monitor is not None
    site.monitor.send_signal(signal.SIGKILL)
    site.monitor.wait()
    dead = site.pids()[1]
    os.kill(dead, signal.SIGKILL)
    wait_for(lambda: dead not in site.pids().values(), "one has ended")
    site.start()
    site.wait_control()
    site.wait(lambda: "monitor adopted" in [one["event"] for one in ask_events(site.control, 0)], "it is adopted")
    events = [one["event"] for one in ask_events(site.control, 0)]
    assert events.count("monitor started") == 2
    assert events.count("monitor adopted") == 1
    [exit] = [one for one in ask_events(site.control, 0) if one["event"] == "exit"]
    assert (exit["slot"], exit["pid"], exit["why"]) == (1, dead, "it ended while no monitor ran")
    site.end()


def test_the_key_is_rotated_and_nobody_is_logged_out(site: Site) -> None:
    site.settings("appservers", servers=1)
    site.up()
    sid = site.get(0, "/login").cookies["sid"]
    site.wait(lambda: (entry := site.entry(0)) is not None and entry.sessions == 1, "its session is counted")
    old = read_keys(site.folder / "keys")
    before = (site.folder / "keys").stat()
    status, said = site.lbctl("rotate-key", "--finish")
    assert (status, "has one key: there is no old one" in said) == (1, True)
    status, said = site.lbctl("rotate-key")
    assert status == 0, said
    after = (site.folder / "keys").stat()
    assert (after.st_mode, after.st_uid, after.st_gid) == (before.st_mode, before.st_uid, before.st_gid)
    site.wait(lambda: "DYING" in site.states.values() and len(site.ok) == 1, "the new one serves, the old one drains")
    [new] = site.ok
    assert not old.signed(new.ticket)
    assert site.get(0, "/", sid).status == 200, "the old one serves its own with its old key"
    status, said = site.lbctl("rotate-key")
    assert (status, "an earlier change is under way" in said) == (1, True)
    status, said = site.lbctl("rotate-key", "--finish")
    assert (status, "the old key is still needed: the AppServers in slot 0 have a ticket of it" in said) == (1, True)
    assert site.lbctl("restart", "0", "--now", "--no-wait")[0] == 0
    site.wait(lambda: len(site.table.entries) == 1, "the old one has left")
    status, said = site.lbctl("rotate-key", "--finish")
    assert status == 0, said
    assert len((site.folder / "keys").read_text().splitlines()) == 1
    assert read_keys(site.folder / "keys").signed(new.ticket)
    site.wait_control()
    assert [entry.ticket for entry in site.ok] == [new.ticket]
    site.end()


@pytest.fixture
def open_site() -> Iterator[Site]:
    """A site in a folder that everybody may enter."""
    with held_ports(SLOTS) as base_port, tempfile.TemporaryDirectory(prefix="lbt-", dir="/tmp") as folder:
        Path(folder).chmod(0o711)
        made = Site(Path(folder), base_port)
        try:
            yield made
        finally:
            made.clear()


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root to be somebody else")
def test_members_of_a_group_may_look_and_give_no_orders(open_site: Site) -> None:
    site = open_site
    group, nobody = grp.getgrnam("games"), pwd.getpwnam("nobody")
    site.settings("files", status_group="games")
    site.settings("appservers", servers=1)
    site.up()

    def lbctl(*words: object, groups: str = str(group.gr_gid)) -> subprocess.CompletedProcess[str]:
        wrapper = ("setpriv", f"--reuid={nobody.pw_uid}", f"--regid={nobody.pw_gid}", f"--groups={groups}")
        command = [*wrapper, sys.executable, "-B", "-I", "-m", "monitor.ctl", *map(str, words)]
        return subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE, check=False, cwd="/")

    site.wait(lambda: (site.run_folder / "status.sock").exists(), "the group has its socket")
    done = lbctl("check", "--socket", site.control)
    assert (done.returncode, done.stdout) == (0, "OK: 1 of 1 AppServers OK, 0 sessions | servers=1 sessions=0\n")
    for command in ("status", "sessions", "events"):
        done = lbctl(command, "--socket", site.run_folder / "status.sock")
        assert (done.returncode, done.stderr) == (0, ""), command
        assert done.stdout
    for socket in (site.control, site.run_folder / "status.sock"):
        done = lbctl("stop", "--socket", socket)
        assert (done.returncode, done.stdout) == (1, "")
    with pytest.raises(NoAnswer, match=r"status\.sock is for looking only, and takes no orders"):
        ask(site.run_folder / "status.sock", "stop")
    done = lbctl("check", "--socket", site.control, groups=str(nobody.pw_gid))
    assert (done.returncode, done.stdout.startswith("UNKNOWN: ")) == (3, True)
    site.end()
    assert not (site.run_folder / "status.sock").exists()
    done = lbctl("check", "--socket", site.control)
    assert (done.returncode, done.stdout.startswith("CRITICAL: ")) == (2, True)
