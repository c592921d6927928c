"""Hard times by the machine: what it runs short of."""

from __future__ import annotations

import contextlib
import os
import re
import resource
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from hardships import HEEDS_MODES, identities, kill, pause
from monitor_fixture import HASTY, Site

from monitor.contract.client import ask

HEEDS_LIMITS = (
    ()
    if os.geteuid()
    else (
        *("setpriv", "--reuid=54321", "--clear-groups"),
        *("--inh-caps=+dac_override", "--ambient-caps=+dac_override"),
    )
)


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
    site.settings("monitor", **HASTY, computing_limit=20.0)
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
