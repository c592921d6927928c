"""Short of descriptors, of memory, of disk: nobody is ended, nothing is lost, it is said, and it heals by itself.

A process runs short while it runs: a limit is lowered to what it has now (prlimit(2)), work that needs more is given
to it for longer than the probes have patience, and the limit is raised again. The verdict is the same for all.
"""

from __future__ import annotations

import contextlib
import os
import resource
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from monitor_fixture import PATIENCE, Site

from lbadaptor.contract.address import Entry
from monitor.contract.client import ask

SHORT = 2.5
"""Seconds for which something is short; an AppServer that answers no probe is FAILING after 1 (`settings`)."""
SESSIONS = 3
"""With each AppServer."""


class Verdict:
    """What there is before a shortage, and has to be there after it."""

    def __init__(self, site: Site) -> None:
        self.site = site
        self.before = {entry.identity.slot: entry for entry in site.wait_ok()}
        site.wait_control()
        site.wait(lambda: all(self._pids().values()), "the status names their processes")
        self.pids = self._pids()
        self.sessions = {
            slot: [site.get(slot, "/login").cookies["sid"] for _ in range(SESSIONS)] for slot in self.before
        }
        site.wait(lambda: self._counted(self.before), "the sessions are counted")

    def holds(self, killed: int | None = None) -> None:
        """All is as before, but for the slot whose AppServer the test itself killed: that one has a successor."""
        kept = {slot: entry for slot, entry in self.before.items() if slot != killed}
        if killed is not None:
            self.site.wait_reborn(self.before[killed])
        self.site.wait(lambda: self._all_ok(kept), "address.text says that all are OK")
        self.site.wait(self._current, "address.text is current")
        self.site.wait_control()
        self.site.wait(lambda: self._counted(kept), "their sessions live")
        assert self.site.seen or self.site.lbctl("status")[0] == 0
        pids = self._pids()
        assert {slot: pids[slot] for slot in kept} == {slot: self.pids[slot] for slot in kept}
        for slot in kept:
            for sid in self.sessions[slot]:
                reply = self.site.get(slot, "/", sid)
                assert (reply.status, reply.content["pid"]) == (200, self.pids[slot])

    def probed(self, killed: int | None = None) -> None:
        """All others answer probes in the shortage. One that does not is FAILING until the shortage is over."""
        kept = {entry.identity for slot, entry in self.before.items() if slot != killed}
        self.site.wait(lambda: kept <= {entry.identity for entry in self.site.ok}, "they answer probes")

    def kill(self, slot: int) -> None:
        """End one on purpose."""
        os.kill(self.pids[slot], signal.SIGKILL)

    def _pids(self) -> dict[int, int]:
        return {server["slot"]: server["pid"] for server in ask(self.site.control)["appservers"]}

    def _all_ok(self, kept: dict[int, Entry]) -> bool:
        ok = {entry.identity: entry for entry in self.site.table.ok}
        return all(entry.identity in ok for entry in kept.values()) and len(ok) == len(self.before)

    def _current(self) -> bool:
        return time.time() - (self.site.run_folder / "address.text").stat().st_mtime < 1.5

    def _counted(self, kept: dict[int, Entry]) -> bool:
        counted = {server["slot"]: server["sessions"] for server in ask(self.site.control)["appservers"]}
        return all(counted.get(slot) == SESSIONS for slot in kept)


@contextlib.contextmanager
def short_of(pid: int, limit: int, to: int) -> Iterator[None]:
    """A running process with less of something, for a while; so has whom it starts meanwhile."""
    before = resource.prlimit(pid, limit)
    resource.prlimit(pid, limit, (to, before[1]))
    try:
        yield
    finally:
        for heir in (pid, *descendants(pid)):
            with contextlib.suppress(ProcessLookupError):  # it has ended
                if resource.prlimit(heir, limit)[0] == to:
                    resource.prlimit(heir, limit, before)


def descendants(pid: int) -> Iterator[int]:
    """The processes that it started, and theirs."""
    with contextlib.suppress(OSError):
        for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split():
            yield int(child)
            yield from descendants(int(child))


def no_descriptor(pid: int, more: int = 0) -> contextlib.AbstractContextManager[None]:
    """It gets no descriptor beyond those that it has, or so many more."""
    used = {int(name) for name in os.listdir(f"/proc/{pid}/fd")}
    free = [number for number in range(max(used) + 2 + more) if number not in used]
    return short_of(pid, resource.RLIMIT_NOFILE, free[more])


def no_memory(pid: int, more: int = 0) -> contextlib.AbstractContextManager[None]:
    """It gets no pages beyond those that it has, or so many bytes more."""
    size = int(Path(f"/proc/{pid}/statm").read_text().split()[0]) * resource.getpagesize()
    return short_of(pid, resource.RLIMIT_AS, size + more)


def no_file(pid: int) -> contextlib.AbstractContextManager[None]:
    """No file that it writes gets longer than nothing: what a full disk does to it, too."""
    return short_of(pid, resource.RLIMIT_FSIZE, 0)


Shortage = Callable[[int], contextlib.AbstractContextManager[None]]
SHORTAGES = pytest.mark.parametrize("shortage", [no_descriptor, no_memory], ids=["descriptors", "memory"])


def last(site: Site, seconds: float = SHORT) -> None:
    """Let the shortage last; the monitor must not end in it."""
    assert site.monitor is not None
    with contextlib.suppress(subprocess.TimeoutExpired):
        site.monitor.wait(seconds)
        pytest.fail(f"the monitor has ended:\n{site.said}")


def requests(site: Site, slots: list[int], count: int) -> list[int | str]:
    """So many requests to each slot at once, each by a connection of its own: what came of each."""

    def one(slot: int) -> int | str:
        try:
            return site.get(slot).status
        except OSError as error:
            return type(error).__name__
        except AssertionError:
            return "not in address.text"

    with ThreadPoolExecutor(2 * count) as pool:
        return list(pool.map(one, slots * count))


def settings(site: Site, **appservers: object) -> None:
    site.settings("monitor", heartbeat=1.0, backoff_limit=0.5, start_timeout=6.0, probe_timeout=0.4)
    site.settings("appservers", **appservers)


# The arbiter.


@SHORTAGES
def test_the_arbiter(site: Site, shortage: Shortage) -> None:
    settings(site)
    site.up()
    verdict = Verdict(site)
    with shortage(site.pid):
        verdict.kill(0)
        last(site)
        assert requests(site, [1], 4) == [200] * 4
        assert site.lbctl("status")[0] == 0, site.lbctl("status")[1] + site.said
    verdict.holds(killed=0)
    site.end()


@SHORTAGES
def test_the_arbiter_and_orders(site: Site, shortage: Shortage) -> None:
    settings(site)
    site.up()
    verdict = Verdict(site)
    with ThreadPoolExecutor() as pool:
        with shortage(site.pid):
            os.kill(site.pid, signal.SIGHUP)  # a release
            orders = [pool.submit(site.lbctl, *words) for words in (("drain", "0"), ("undrain", "0"), ("restart",))]
            last(site, 1.0)
            assert requests(site, [0, 1], 4) == [200] * 8
        for order in orders:
            order.result()  # whatever became of it
    for slot in (0, 1):
        site.wait_control()
        for sid in verdict.sessions[slot]:
            reply = site.get(slot, "/", sid)
            assert (reply.status, reply.content["pid"]) == (200, verdict.pids[slot]), (
                "no session is lost by a release"
            )
    site.end()


@SHORTAGES
def test_the_arbiter_without_watcher(site: Site, shortage: Shortage) -> None:
    settings(site)
    site.up()
    verdict = Verdict(site)
    (watcher,) = site.watchers()
    with shortage(site.pid):
        os.kill(watcher, signal.SIGKILL)
        last(site)
        assert requests(site, [0, 1], 4) == [200] * 8
    verdict.holds()
    site.end()


# The watcher.


@SHORTAGES
def test_the_watcher(site: Site, shortage: Shortage) -> None:
    settings(site)
    site.up()
    verdict = Verdict(site)
    (watcher,) = site.watchers()
    with shortage(watcher), contextlib.ExitStack() as callers:
        for _ in range(20):
            caller = callers.enter_context(socket.socket(socket.AF_UNIX))
            caller.setblocking(False)
            with contextlib.suppress(OSError):  # some are hung up on
                caller.connect(str(site.control))
                caller.send(b"GET /status HTTP/1.1\r\nHost: monitor\r\n\r\n")
        verdict.kill(0)  # whoever comes is to be probed
        last(site)
        verdict.probed(killed=0)
        assert requests(site, [1], 4) == [200] * 4
    verdict.holds(killed=0)
    site.end()


# An AppServer.


@SHORTAGES
def test_an_appserver(site: Site, shortage: Shortage) -> None:
    settings(site, max_memory=10**12)
    site.up()
    verdict = Verdict(site)
    entry = verdict.before[0]
    with shortage(verdict.pids[0]), contextlib.ExitStack() as callers:
        for _ in range(20):
            callers.enter_context(socket.create_connection(entry.address, PATIENCE))
        last(site)
        verdict.probed()
        assert requests(site, [1], 4) == [200] * 4
    assert requests(site, [0], 4) == [200] * 4
    verdict.holds()
    site.end()


def test_an_appserver_without_descriptors_is_probed_by_a_new_watcher(site: Site) -> None:
    settings(site)
    site.up()
    verdict = Verdict(site)
    (watcher,) = site.watchers()
    with no_descriptor(verdict.pids[0]):
        os.kill(watcher, signal.SIGKILL)
        last(site)
        site.wait_control()
        verdict.probed()
        assert requests(site, [1], 4) == [200] * 4
    verdict.holds()
    site.end()


def test_an_appserver_whose_requests_eat_its_memory(site: Site) -> None:
    settings(site)
    site.up()
    verdict = Verdict(site)
    with no_memory(verdict.pids[0], 1 << 20):
        statuses = [site.get(0, "/eval/len(bytes(1<<26))").status for _ in range(4)]
        assert statuses == [500] * 4
        last(site, 1.0)
        verdict.probed()
        assert requests(site, [1], 4) == [200] * 4
    assert site.eval(0, "len(bytes(1<<20))") == 1 << 20
    verdict.holds()
    site.end()


# A template.


@SHORTAGES
def test_the_template(site: Site, shortage: Shortage) -> None:
    settings(site)
    site.settings("appservers", preload=True)
    site.up()
    verdict = Verdict(site)
    template = site.template()
    with shortage(template):
        verdict.kill(0)
        last(site)
        assert requests(site, [1], 4) == [200] * 4
        assert site.lbctl("status")[0] == 0, site.lbctl("status")[1] + site.said
    verdict.holds(killed=0)
    site.end()


@SHORTAGES
def test_the_arbiter_when_the_template_is_gone(site: Site, shortage: Shortage) -> None:
    settings(site)
    site.settings("appservers", preload=True)
    site.up()
    verdict = Verdict(site)
    template = site.template()
    with shortage(site.pid):
        os.kill(template, signal.SIGKILL)
        verdict.kill(0)
        last(site)
        assert requests(site, [1], 4) == [200] * 4
        assert site.lbctl("status")[0] == 0, site.lbctl("status")[1] + site.said
    verdict.holds(killed=0)
    site.end()


# Folders that take nothing: address.text, state, sockets, log.


def test_no_file_can_be_written(site: Site) -> None:
    settings(site)
    site.start(piped=True)
    site.wait_ok()
    site.wait_control()
    verdict = Verdict(site)
    text = site.text
    with no_file(site.pid):
        verdict.kill(0)
        last(site)
        assert site.text == text, "the last good one stays"
        assert requests(site, [1], 4) == [200] * 4
        assert site.eval(1, "print('x' * 9000)") in (None, "None"), "what is printed is lost, and nothing else"
        assert site.said.count("address.text cannot be written") == 1
        assert site.said.count("state.json cannot be written") == 1
    verdict.holds(killed=0)
    site.end()


def test_a_log_that_no_process_reads(site: Site) -> None:
    settings(site)
    read, write = os.pipe()
    os.set_blocking(write, False)
    with contextlib.suppress(BlockingIOError):
        while True:
            os.write(write, b"x" * 4096)
    os.set_blocking(write, True)
    site.start(log_to=write)
    os.close(write)
    site.wait_ok()
    site.wait_control()
    verdict = Verdict(site)
    verdict.kill(0)
    verdict.holds(killed=0)
    assert site.lbctl("drain", "1")[0] == 0
    site.wait(lambda: site.states.get(1) == "DYING" or 1 not in site.states, "an order is followed")
    os.close(read)
    site.end()


def test_the_logs_disk_is_full(site: Site) -> None:
    settings(site)
    full = os.open("/dev/full", os.O_WRONLY)
    site.start(log_to=full)
    os.close(full)
    site.wait_ok()
    site.wait_control()
    verdict = Verdict(site)
    verdict.kill(0)
    verdict.holds(killed=0)
    site.end()


# A run folder on a disk of its own, which gets full, or has no inode left.

NAMESPACE = (
    ("unshare", "--mount")
    if os.geteuid() == 0
    else ("unshare", "--user", "--map-current-user", "--keep-caps", "--mount")
)


def on_its_own_disk(site: Site) -> None:
    """Start it with a small disk for its run folder, in a mount namespace of its own, which ends with it."""
    site.settings("files")
    run_folder = site.run_folder
    run_folder.mkdir()
    mount = 'mount -t tmpfs -o size=256k,nr_inodes=40 tmpfs "$0" && exec "$@"'
    site.start(wrapper=(*NAMESPACE, "sh", "-c", mount, str(run_folder)))
    site.seen = site.folder / "seen"
    site.seen.symlink_to(f"/proc/{site.pid}/root{run_folder}")
    site.wait_ok()
    site.wait_control()


@contextlib.contextmanager
def full(folder: Path) -> Iterator[None]:
    """No room for a byte."""
    ballast = folder / "ballast"
    with ballast.open("wb", buffering=0) as file, contextlib.suppress(OSError):
        while True:
            file.write(bytes(4096))
    try:
        yield
    finally:
        ballast.unlink()


@contextlib.contextmanager
def no_inode(folder: Path) -> Iterator[None]:
    """No room for a file, though for what is in those that are there."""
    ballast = []
    with contextlib.suppress(OSError):
        for number in range(100):
            (folder / f"ballast-{number}").touch()
            ballast.append(folder / f"ballast-{number}")
    try:
        yield
    finally:
        for file in ballast:
            file.unlink()


@pytest.mark.parametrize("fill", [full, no_inode])
def test_the_run_folder_takes_nothing(
    site: Site, fill: Callable[[Path], contextlib.AbstractContextManager[None]]
) -> None:
    settings(site)
    on_its_own_disk(site)
    verdict = Verdict(site)
    text = site.text
    with fill(site.run_folder):
        verdict.kill(0)
        last(site)
        assert site.text == text, "the last good one stays"
        assert requests(site, [1], 4) == [200] * 4
        assert site.said.count("address.text cannot be written: No space left on device") == 1
    verdict.holds(killed=0)
    assert site.knocks(0), "it has its Unix socket"
    site.end()
