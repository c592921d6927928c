"""Hard times for the monitor: whatever is missing, visitors are served on, and it is said, and it heals by itself."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
import sys
import threading

import pytest
from hardships import HEEDS_MODES, identities, kill, pause
from monitor_fixture import Site, processes, wait_for

from lbadaptor.contract.address import Address
from lbadaptor.contract.ticket import read_keys
from monitor.contract.client import ask

SUSPENDED = 6.0
"""Seconds; an AppServer that stands still is ended after less than that."""


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
    # Less than it is suspended for, and more than an AppServer may stand still by itself on a busy machine.
    site.settings("monitor", probe_timeout=0.4, failing_limit=4.5)
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
    site.wait_ok()
    assert (identities(site), site.pids()) == (before, pids)
    assert "hung" not in site.said
    assert "SIGKILL" not in site.said
    kill(site, 1)()
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
