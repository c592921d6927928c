"""Hard times by AppServers: they misbehave, and two releases meet."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import socket
from pathlib import Path

import pytest
from hardships import pause
from monitor_fixture import Site, processes, wait_for

from lbadaptor.log import texts
from monitor.contract.client import ask

# AppServers that misbehave.


STUBBORN = """
import signal
_signal = signal.signal
def deaf(number, handler):
    return _signal(number, signal.SIG_IGN if number == signal.SIGTERM else handler)
signal.signal = deaf
"""
WITH_A_FORK = """
import time
if os.fork() == 0:  # has the listening socket, and never lets go of it
    while True:
        time.sleep(600)
"""


def test_one_that_ignores_its_order_to_stop_is_killed_with_its_children(site: Site) -> None:
    site.settings("appservers", servers=1)
    site.settings("monitor", stop_grace=0.3)
    site.write_application(STUBBORN + WITH_A_FORK)
    site.up()
    group = site.get(0).content["pid"]
    wait_for(lambda: len(members(group)) == 2, "it has a child")
    site.wait_order("drain", 0)
    site.wait_states(s1="OK")
    site.wait_said("slot 0 does not exit: SIGKILL")
    site.wait(lambda: not members(group), "its whole group has ended")
    with socket.create_server(("127.0.0.1", site.base_port)):
        pass  # its port is free
    site.end()
    assert not processes(site.mark)


@pytest.mark.parametrize("adopted", [False, True], ids=["own", "adopted"])
def test_children_of_its_own_do_not_keep_its_port(site: Site, adopted: bool) -> None:
    site.write_application(WITH_A_FORK)
    site.up()
    group = site.get(0).content["pid"]
    if adopted:
        assert site.monitor is not None
        site.monitor.kill()
        site.monitor.wait()
        site.start()
        site.wait(lambda: site.said.count("is adopted") == 2, "both are adopted")
    wait_for(lambda: len(members(group)) == 2, "it has a child")
    old = site.entry(0)
    assert old is not None
    os.kill(group, signal.SIGKILL)
    new = site.wait_reborn(old)
    assert new.address == old.address
    assert not members(group)
    site.end()
    assert not processes(site.mark)


def members(group: int) -> set[int]:
    """The processes of a group, by their threads: the first one may be gone while another still holds a port."""
    found = set()
    for process in Path("/proc").glob("[0-9]*"):
        threads: list[Path] = []
        with contextlib.suppress(OSError):  # it ends while it is looked at
            threads += (process / "task").iterdir()
        for thread in threads:
            with contextlib.suppress(OSError):
                state, _, number = (thread / "stat").read_text().rpartition(")")[2].split()[:3]
                if int(number) == group and state != "Z":
                    found.add(int(process.name))
    return found


@pytest.mark.parametrize("preload", [False, True])
def test_a_crash_in_a_c_library_says_where_it_was(site: Site, preload: bool) -> None:
    site.settings("appservers", servers=1, preload=preload)
    site.write_application("import ctypes\nctypes.string_at(0)")
    site.start()
    site.wait_said("Fatal Python error: Segmentation fault")
    site.wait(lambda: re.search(r'File ".*/shop.py", line \d+ in <module>', site.said), "the line is told")
    site.wait_said("the template died" if preload else "was ended by SIGSEGV while it started")


def test_a_crash_loop_waits_longer_and_longer_and_heals_when_the_application_is_mended(site: Site) -> None:
    site.settings("appservers", servers=3)
    site.settings("monitor", backoff_limit=1.5)
    site.write_application(
        """
import threading, time
from lbadaptor.contract.address import State, parse
def serves():
    with open("../run/address.text") as file:
        return any(entry.identity.slot == 1 and entry.state is State.OK for entry in parse(file.read()).entries)
def crash():
    while not serves():
        time.sleep(0.02)
    print("the roof falls in", file=sys.stderr, flush=True)
    os._exit(7)
if os.path.exists("crash") and sys.orig_argv[sys.orig_argv.index("--slot") + 1] == "1":
    threading.Thread(target=crash).start()
"""
    )
    site.up()
    others = {slot: pid for slot, pid in site.pids().items() if slot != 1}
    (site.app_folder / "crash").touch()
    os.kill(site.pids()[1], signal.SIGKILL)
    waits = re.compile(r"slot 1 is tried again in (\d+) s: exited with status 7")
    site.wait(lambda: len(waits.findall(site.said)) >= 4, "it was tried again and again")
    assert [int(wait) for wait in waits.findall(site.said)][:4] == [1, 2, 2, 2]
    site.wait(
        lambda: site.said.count("the roof falls in") == site.said.count("slot 1 (OK) exited with status 7"),
        "its last words are said each time",
    )
    site.wait(
        lambda: any("status 7" in server["why"] for server in ask(site.control)["appservers"]), "the status says why"
    )
    assert {slot: site.pids().get(slot) for slot in others} == others
    assert {site.get(slot).status for slot in others} == {200}
    (site.app_folder / "crash").unlink()
    site.wait_ok()
    pause(site, 0.5)
    assert len(site.ok) == 3
    site.end()


# Two releases at once.


def test_a_second_release_while_the_first_drains_ends_the_fewest_sessions_and_says_so(site: Site) -> None:
    site.settings("appservers", servers=2, slots=4)
    site.up()
    first = {slot: [site.get(slot, "/login").cookies["sid"] for _ in range(slot + 1)] for slot in (0, 1)}
    site.wait(lambda: [entry.sessions for entry in site.table.entries] == [1, 2], "they are counted")
    assert site.wait_order("restart") == "replacing 2 AppServers, 1 at a time"
    site.wait_said("release: every AppServer has been replaced")
    site.wait_states(s0="DYING", s1="DYING", s2="OK", s3="OK")
    for slot in (2, 3):
        for _ in range(3):
            site.get(slot, "/login")
    site.wait(lambda: [entry.sessions for entry in site.table.entries] == [1, 2, 3, 3], "they are counted")
    assert site.wait_order("restart") == (
        "replacing 2 AppServers, 1 at a time; free slots: 0, slots of DYING AppServers: 2. When no slot is free, the"
        " DYING AppServer with the fewest sessions is ended"
    )
    site.wait(lambda: site.said.count("release: every AppServer has been replaced") == 2, "it is done")
    ended = [
        "slot 0 with 1 session: no slot is free for the release",
        "slot 1 with 2 sessions: no slot is free for the release",
    ]
    site.wait(lambda: ask(site.control)["ended"] == ended, f"the status says {ended}")
    for slot, sids in first.items():
        assert (
            f"slot {slot} is ended with {texts.count(len(sids), 'session')}: no slot is free for the release"
            in site.said
        )
    site.wait_states(s0="OK", s1="OK", s2="DYING", s3="DYING")
    site.end()
