"""Hard times for the monitor: whatever is missing, visitors are served on, and it is said, and it heals by itself."""

from __future__ import annotations

import contextlib
import os
import re
import resource
import shutil
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from monitor_fixture import Site, processes, wait_for

from lbadaptor.contract.address import Address, Identity
from lbadaptor.contract.ticket import read_keys
from lbadaptor.log import texts
from monitor.contract.client import ask

# What an ordinary user has by nature, root gets so (setpriv(1)): permissions count, and so do limits on processes.
HEEDS_MODES = () if os.geteuid() else ("setpriv", "--bounding-set=-dac_override,-dac_read_search")
HEEDS_LIMITS = (
    ()
    if os.geteuid()
    else (
        *("setpriv", "--reuid=54321", "--clear-groups"),
        *("--inh-caps=+dac_override", "--ambient-caps=+dac_override"),
    )
)
SUSPENDED = 6.0
"""Seconds; the probes of these tests have lost patience after less than 2."""


def identities(site: Site) -> set[Identity]:
    return {entry.identity for entry in site.table.entries}


def kill(site: Site, slot: int) -> Callable[[], object]:
    """SIGKILL for the AppServer of a slot; returns what waits for its next life."""
    old = site.entry(slot)
    assert old is not None
    os.kill(site.get(slot).content["pid"], signal.SIGKILL)
    return lambda: site.wait_reborn(old)


def pause(site: Site, seconds: float) -> None:
    """Let the time pass that a test is about; the monitor must not end in it."""
    assert site.monitor is not None
    with pytest.raises(subprocess.TimeoutExpired):
        site.monitor.wait(seconds)


@contextlib.contextmanager
def limited(pid: int, limit: int, to: int) -> Iterator[None]:
    """A process with less of something, for a while."""
    before = resource.prlimit(pid, limit)
    resource.prlimit(pid, limit, (to, before[1]))
    try:
        yield
    finally:
        resource.prlimit(pid, limit, before)


@contextlib.contextmanager
def no_forks(pid: int) -> Iterator[None]:
    """A process whose user may have no more processes, for a while. The user itself has to say so."""
    prlimit = [*HEEDS_LIMITS, "prlimit", "--pid", str(pid)]
    before, _ = resource.getrlimit(resource.RLIMIT_NPROC)
    subprocess.run([*prlimit, "--nproc=1:"], check=True)
    try:
        yield
    finally:
        soft = "unlimited" if before == resource.RLIM_INFINITY else str(before)
        subprocess.run([*prlimit, f"--nproc={soft}:"], check=True)


# What a machine runs short of.


def test_a_full_disk_leaves_the_last_good_file_and_is_said_once(site: Site) -> None:
    # No file of this process gets longer than half a line: what a full disk does to it, too.
    site.start(piped=True)
    site.wait_ok()
    text = site.text
    with limited(site.pid, resource.RLIMIT_FSIZE, 64):
        reborn = kill(site, 0)
        site.wait_said("slot 0 is back after")
        pause(site, 2.5)  # several turns
        assert site.text == text
        assert site.get(1).status == 200
        assert (
            site.said.count("address.text cannot be written: File too large; adaptors go on with the last one") == 1
        )
        assert site.said.count("state.json cannot be written: File too large") == 1
    reborn()
    assert site.get(0).status == 200
    site.end()


def test_a_folder_that_is_read_only(site: Site) -> None:
    site.start(wrapper=HEEDS_MODES)
    site.wait_ok()
    text = site.text
    site.run_folder.chmod(0o555)
    reborn = kill(site, 0)
    site.wait_said("slot 0 is back after")
    site.wait_said("address.text cannot be written: Permission denied")
    pause(site, 1.5)
    assert (site.text, site.get(1).status) == (text, 200)
    said = re.findall(r"lbmonitor: (\S+) cannot be written: Permission denied", site.said)
    names = [Path(name).name for name in said]
    assert len(names) == len(set(names)), "one line a file"
    # Shares may have changed before the others.
    assert {*names} - {"available.text"} == {"address.text", "callerkeys.text", "state.json"}
    site.run_folder.chmod(0o755)
    reborn()
    site.end()


def test_a_fork_that_is_refused_is_tried_again(site: Site) -> None:
    site.settings("monitor", backoff_limit=0.5)
    site.start(wrapper=HEEDS_LIMITS)
    site.wait_ok()
    (watcher,) = site.watchers()
    with no_forks(site.pid):
        reborn = kill(site, 0)
        os.kill(watcher, signal.SIGKILL)
        site.wait_said("slot 0 is tried again in 0 s: cannot fork: Resource temporarily unavailable")
        site.wait_states(s1="OK")
        site.wait_said("no watcher, so no probes and no orders: Resource temporarily unavailable")
        pause(site, 2.5)  # it was tried again
        assert site.said.count("no watcher") == 1
        assert site.get(1).status == 200
    reborn()
    site.wait_control()
    site.end()


def test_without_any_descriptor_it_holds_out(site: Site) -> None:
    site.settings("monitor", backoff_limit=0.5)
    site.up()
    text = site.text
    with limited(site.pid, resource.RLIMIT_NOFILE, 3):
        reborn = kill(site, 0)
        site.wait_said("address.text cannot be written: Too many open files")
        pause(site, 2.0)
        assert (site.text, site.get(1).status) == (text, 200)
        assert site.said.count("address.text cannot be written") == 1
    reborn()
    site.end()


SHORT = """
import errno, os, sys
from monitor import __main__
from monitor.contract import processes as state
from monitor.arbiter.processes import child
real_pidfd, real_stat = os.pidfd_open, state._stat
def short():
    if os.path.exists({flag!r}):
        raise OSError(errno.{error}, os.strerror(errno.{error}))
def pidfd_open(pid):
    short()
    return real_pidfd(pid)
def stat(pid):
    short()
    return real_stat(pid)
os.pidfd_open, state._stat = pidfd_open, stat
sys.exit(__main__.main())
"""
"""A monitor to which the machine gives nothing as long as there is a certain file."""


def start_short(site: Site, error: str) -> Path:
    flag = site.folder / "short"
    flag.touch()
    code = SHORT.format(flag=str(flag), error=error)
    site.start(command=[sys.executable, "-B", "-I", "-c", code, "--config", str(site.config)])
    return flag


@pytest.mark.parametrize("error", ["EMFILE", "ENFILE", "ENOMEM"])
def test_one_that_cannot_be_adopted_in_a_shortage_is_adopted_later_and_stays_published(
    site: Site, error: str
) -> None:
    site.settings("monitor", probe_timeout=4.0)  # patience
    site.up()
    before, pids, sid = identities(site), site.pids(), site.get(0, "/login").cookies["sid"]
    site.wait(lambda: site.table.entries[0].sessions, "the session stands in address.text")
    assert site.monitor is not None
    site.monitor.kill()
    site.monitor.wait()
    flag = start_short(site, error)
    site.wait_said("an AppServer is not adopted yet: ")
    pause(site, 1.5)
    assert (identities(site), site.pids(), "ended meanwhile" in site.said) == (before, pids, False)
    flag.unlink()
    site.wait(lambda: site.said.count("is adopted: OK") == 2, "both are adopted")
    site.wait_said("every AppServer is adopted")
    site.wait_control()
    assert (identities(site), site.pids(), site.get(0, "/", sid).status) == (before, pids, 200)
    assert [server["sessions"] for server in ask(site.control)["appservers"]] == [1, 0]
    site.end()


def test_a_computing_one_is_not_ended_because_it_cannot_be_looked_at(site: Site) -> None:
    site.settings("monitor", computing_limit=20.0)
    flag = start_short(site, "EMFILE")
    flag.unlink()
    site.wait_ok()
    site.wait_control()
    pids = site.pids()
    flag.touch()
    os.kill(pids[0], signal.SIGSTOP)
    site.wait_states(s0="FAILING", s1="OK")
    pause(site, 3.0)  # six times its limit
    assert site.pids() == pids
    os.kill(pids[0], signal.SIGCONT)
    site.wait_states(s0="OK", s1="OK")
    flag.unlink()
    site.end()


def test_with_no_descriptor_and_a_template_the_monitor_goes_on(site: Site) -> None:
    site.settings("appservers", preload=True)
    site.settings("monitor", backoff_limit=0.5)
    site.up()
    with limited(site.pid, resource.RLIMIT_NOFILE, 3):
        reborn = kill(site, 0)
        site.wait_said("cannot fork: Too many open files")
        pause(site, 1.5)
        assert site.get(1).status == 200
    reborn()
    site.end()


@pytest.mark.parametrize("preload", [False, True])
def test_out_of_memory_the_monitor_goes_on(site: Site, preload: bool) -> None:
    site.settings("appservers", preload=preload)
    site.settings("monitor", backoff_limit=0.5)
    site.up()
    with limited(site.pid, resource.RLIMIT_AS, 1 << 20):
        reborn = kill(site, 0)
        pause(site, 3.0)
        assert site.get(1).status == 200
    reborn()
    site.wait_control()
    site.end()


def test_a_full_disk_stands_in_the_status_and_its_end_in_the_log(site: Site) -> None:
    site.start(piped=True)
    site.wait_ok()
    site.wait_control()
    with limited(site.pid, resource.RLIMIT_FSIZE, 64):
        reborn = kill(site, 0)
        said = "address.text cannot be written: File too large; adaptors go on with the last one"
        site.wait(lambda: said in ask(site.control)["problems"], "the status says it")
        assert f"PROBLEM: {said}" in site.lbctl("status")[1]
    reborn()
    site.wait_said("address.text is written again")
    site.wait(lambda: not ask(site.control)["problems"], "no problem is left")
    site.end()


# A port that somebody else took.


def steal(address: Address) -> socket.socket | None:
    """Listen there; None while the last thread of its former owner has the port."""
    with contextlib.suppress(OSError):
        return socket.create_server(address)
    return None


@pytest.mark.parametrize("by_tcp", [False, True])
def test_a_port_stolen_between_two_lives(site: Site, by_tcp: bool) -> None:
    site.up()
    site.wait(lambda: all(server["memory"] for server in ask(site.control)["appservers"]), "they are probed")
    entry = site.entry(0)
    assert entry is not None
    received: list[bytes] = []

    def rob(listener: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while True:
                with listener.accept()[0] as connection:
                    received.append(connection.recv(65536))
                    connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi")

    if by_tcp:
        (site.run_folder / "sockets").rename(site.run_folder / "hidden")
    os.kill(site.pid, signal.SIGSTOP)
    os.kill(site.pids()[0], signal.SIGKILL)
    with wait_for(lambda: steal(entry.address), "it is gone") as listener:
        robber = threading.Thread(target=rob, args=(listener,), daemon=True)
        robber.start()
        if by_tcp:
            wait_for(lambda: received, "the watcher has taken the stranger for the AppServer that it was to probe")
        os.kill(site.pid, signal.SIGCONT)
        site.wait_states(s1="OK", s2="OK")
        assert f"slot 0 is passed over for 60 s: {entry.address}: Address already in use" in site.said
        site.wait(lambda: len(ask(site.control)["appservers"]) == 2, "only the two are probed")
        listener.shutdown(socket.SHUT_RDWR)
        robber.join()
    keys = read_keys(site.folder / "keys")
    learnt = b"".join(received)
    assert bool(learnt) == by_tcp, "nothing can have a Unix socket that does not have its folder"
    assert (keys.probe_key(entry.ticket).encode() in learnt) == by_tcp
    for other in site.table.entries:
        for secret in (keys.probe_key(other.ticket), keys.caller_key(other.ticket), other.ticket):
            assert secret.encode() not in learnt
    site.end()


def test_a_late_watcher_sends_no_key_to_another_program(site: Site) -> None:
    # The watcher looks for a Unix socket of a life that is over, whose port is a stranger's.
    site.up()
    site.wait(lambda: all(server["memory"] for server in ask(site.control)["appservers"]), "they are probed")
    entry, received = site.entry(0), []
    assert entry is not None
    (watcher,) = site.watchers()
    os.kill(site.pid, signal.SIGSTOP)
    os.kill(site.pids()[0], signal.SIGKILL)
    with wait_for(lambda: steal(entry.address), "it is gone") as listener:
        listener.setblocking(False)
        os.kill(watcher, signal.SIGSTOP)
        os.kill(site.pid, signal.SIGCONT)
        site.wait_states(s1="OK", s2="OK")
        os.kill(watcher, signal.SIGCONT)
        site.wait(lambda: len(ask(site.control)["appservers"]) == 2, "only the two are probed")
        with contextlib.suppress(BlockingIOError):
            received.append(listener.accept()[0])
    assert not received
    site.end()


# Time.


def test_a_clock_that_jumps_ends_no_appserver_and_no_generation_comes_twice(site: Site) -> None:
    offset = site.folder / "offset"
    offset.write_text("0")
    code = (
        "import sys, time; from monitor import __main__\n"
        f"def jumped(): return int(open({str(offset)!r}).read())\n"
        "real, real_ns = time.time, time.time_ns\n"
        "time.time, time.time_ns = lambda: real() + jumped(), lambda: real_ns() + jumped() * 10**9\n"
        "sys.exit(__main__.main())\n"
    )
    site.settings("monitor", heartbeat=0.2)
    site.start(command=[sys.executable, "-B", "-I", "-c", code, "--config", str(site.config)])
    site.wait_ok()
    seen = [entry.identity.generation for entry in site.table.entries]
    quiet = site.pids()[1]
    year = 365 * 24 * 3600
    mtimes = [(site.run_folder / "address.text").stat().st_mtime_ns]
    for jump in (10 * year, -10 * year, 0):
        beside = site.folder / "offset.new"
        beside.write_text(str(jump))
        beside.rename(offset)
        serial = site.table.serial
        site.wait(lambda serial=serial: site.table.serial > serial + 1, "it writes on")  # type: ignore[misc]
        kill(site, 0)()
        entry = site.entry(0)
        assert entry is not None
        seen.append(entry.identity.generation)
        mtimes.append((site.run_folder / "address.text").stat().st_mtime_ns)
        pause(site, 0.5)
        assert (site.pids()[1], site.get(1).status) == (quiet, 200)
    assert len(set(seen)) == len(seen)
    assert seen[1:] == sorted(seen[1:])
    assert mtimes == sorted(set(mtimes)), "or Apache would not see the change"
    assert "FAILING" not in site.said
    site.end()


@pytest.mark.parametrize("suspended", ["monitor", "watcher", "all"])
def test_a_process_that_was_suspended_and_resumed_ends_no_appserver(site: Site, suspended: str) -> None:
    site.up()
    before, pids = identities(site), site.pids()
    stopped = {"monitor": [site.pid], "watcher": site.watchers(), "all": [site.pid, *processes(site.mark)]}[suspended]
    for pid in stopped:
        os.kill(pid, signal.SIGSTOP)
    pause(site, SUSPENDED)
    if suspended != "all":
        assert site.get(0).status == 200
    for pid in reversed(stopped):
        os.kill(pid, signal.SIGCONT)
    pause(site, 2.5)  # in which probes would be missed, and an AppServer be taken for hung
    assert (identities(site), site.pids(), len(site.ok)) == (before, pids, 2)
    assert "hung" not in site.said
    assert "SIGKILL" not in site.said
    kill(site, 1)()
    site.end()


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
def crash():
    time.sleep(0.2)
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
    assert site.said.count("the roof falls in") == site.said.count("slot 1 (OK) exited with status 7")
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


# Files that somebody laid hands on.


@pytest.mark.parametrize("name", ["address.text", "state.json"])
def test_a_file_that_was_locked_away_or_replaced_by_a_folder_is_written_again(site: Site, name: str) -> None:
    site.start(wrapper=HEEDS_MODES)
    site.wait_ok()
    path = site.run_folder / name
    mode, before = path.stat().st_mode, identities(site)
    path.chmod(0)
    site.wait(lambda: path.stat().st_mode == mode, "it may be read again")
    path.unlink()
    site.wait(path.exists, "it is there again")
    path.unlink()
    path.mkdir()
    (path / "something").touch()
    site.wait_said(f"{name} cannot be written: Is a directory")
    pause(site, 1.5)
    assert site.said.count("cannot be written") == 1
    shutil.rmtree(path)
    site.wait(path.is_file, "it is there again")
    assert identities(site) == before
    site.end()


@pytest.mark.parametrize("harm", ["locked", "folder"])
def test_a_new_monitor_that_cannot_read_the_state_goes_by_address_text(site: Site, harm: str) -> None:
    site.start(wrapper=HEEDS_MODES)
    site.wait_ok()
    before, pids = identities(site), site.pids()
    assert site.monitor is not None
    site.monitor.kill()
    site.monitor.wait()
    path = site.run_folder / "state.json"
    if harm == "locked":
        path.chmod(0)
    else:
        path.unlink()
        path.mkdir()
    site.start(wrapper=HEEDS_MODES)
    site.wait(lambda: site.said.count("is adopted") == 2, "both are adopted")
    assert "going by address.text" in site.said
    assert (identities(site), site.pids()) == (before, pids)
    site.end()


def test_a_control_socket_that_was_deleted_is_made_anew(site: Site) -> None:
    site.up()
    watchers = site.watchers()
    site.control.unlink()
    site.wait_control()
    assert site.watchers() == watchers
    assert site.said.count("control.sock was deleted; it is made anew") == 1
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
