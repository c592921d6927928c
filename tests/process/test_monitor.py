"""A pool that is up: what its files, its processes and its status are."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import stat
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from monitor_fixture import MARK, SLOTS, Site, wait_for
from monitor_processes import available, descriptors, resident, zombies

from lbadaptor.contract.ticket import Verdict, judge, read_keys
from monitor.contract.client import ask
from tests.ports import held_ports


@pytest.fixture(scope="module")
def calm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """A monitor that several tests look at, and whose AppServers none of them harms."""
    with held_ports(SLOTS) as base_port:
        site = Site(tmp_path_factory.mktemp("calm"), base_port)
        notify = site.folder / "notify"
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as receiver:
            receiver.bind(str(notify))
            elsewhere = site.folder / "elsewhere"
            elsewhere.mkdir()
            site.up(
                NOTIFY_SOCKET=str(notify),
                WATCHDOG_USEC="30000000",
                COLOUR="blue as the sea",
                PYTHONPATH=str(elsewhere),
            )
            site.wait_control()
            yield site
        site.clear()


def cpu(pid: int) -> float:
    """Seconds of CPU time that a process has used."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


# A pool that is up.


def test_address_text_lists_the_pool(calm: Site) -> None:
    table = calm.table
    assert [(entry.identity.slot, entry.address.port) for entry in table.entries] == [
        (0, calm.base_port),
        (1, calm.base_port + 1),
    ]
    keys = read_keys(calm.folder / "keys")
    for entry in table.entries:
        assert abs(entry.identity.generation / 1000 - time.time()) < 3600
        assert keys.signed(entry.ticket)
        assert judge([entry.ticket], table, keys.signed)[0] is Verdict.HELD
        assert calm.get(entry.identity.slot).content == {"pid": calm.pids()[entry.identity.slot]}


def test_available_text_names_those_that_take_new_visitors(calm: Site) -> None:
    found = available(calm)
    assert set(found.pop("__PRT__").split("|")) == {"0", "1"}
    keys = read_keys(calm.folder / "keys")
    assert found == {
        str(entry.identity.slot): ";".join(map(str, (entry.address, keys.caller_key(entry.ticket), *entry.identity)))
        for entry in calm.table.entries
    }


@pytest.mark.parametrize(
    ("name", "mode"),
    [
        ("run/address.text", 0o640),
        ("run/available.text", 0o640),
        ("keys", 0o640),
        ("run/control.sock", 0o600),
        ("run", 0o755),
        ("run/sockets", 0o2750),
        ("run/sockets/0", 0o660),
    ],
)
def test_who_may_read_what(calm: Site, name: str, mode: int) -> None:
    assert stat.S_IMODE((calm.folder / name).stat().st_mode) == mode


def test_each_listens_on_a_unix_socket_too(calm: Site) -> None:
    assert {file.name for file in (calm.run_folder / "sockets").iterdir()} == {"0", "1"}
    assert calm.knocks(0)
    assert calm.knocks(1)


def test_a_fresh_interpreter_gets_its_callers_world(calm: Site) -> None:
    where = calm.get(0, "/where").content
    environment = where["environment"]
    assert environment["COLOUR"] == "blue as the sea"
    assert environment["PYTHONPATH"] == str(calm.folder / "elsewhere")
    assert environment[MARK] == calm.mark
    assert where["folder"] == str(calm.app_folder)
    assert where["path"][0] in ("", str(calm.app_folder))
    assert str(calm.folder / "elsewhere") in where["path"]


def test_only_the_monitor_talks_to_systemd(calm: Site) -> None:
    assert b"NOTIFY_SOCKET=" in Path(f"/proc/{calm.pid}/environ").read_bytes()
    for pid in [*calm.pids().values(), *calm.watchers()]:
        environment = Path(f"/proc/{pid}/environ").read_bytes()
        assert b"NOTIFY_SOCKET=" not in environment
        assert b"WATCHDOG_USEC=" not in environment


def test_no_descriptor_of_the_arbiter_is_inherited(calm: Site) -> None:
    own = descriptors(calm.pid)
    assert str(calm.run_folder) in own.values()
    theirs: dict[int, set[str]] = {}
    for pid in [*calm.pids().values(), *calm.watchers()]:
        opened = descriptors(pid)
        theirs[pid] = {name for number, name in opened.items() if number > 2 and not name.startswith("anon_inode")}
        theirs[pid] -= {str(calm.log), "/dev/null"}  # a duplicate of its own standard error, and a reserve
        assert opened[0] == "/dev/null"
        assert not theirs[pid] & {name for number, name in own.items() if number > 2}
        assert not any(
            name == str(calm.run_folder) or "address.text" in name or "keys" in name for name in theirs[pid]
        )
    assert len(theirs) == 3
    sockets = [name for names in theirs.values() for name in names if name.startswith("socket:")]
    assert len(sockets) == len(set(sockets)), "they share a socket"


def test_an_appserver_has_no_more_than_it_needs(calm: Site) -> None:
    for pid in calm.pids().values():

        def few(pid: int = pid) -> dict[int, str] | None:
            """Its channel, its listening sockets, a probe's connection. The test's own is closed a moment later."""
            found = {number: name for number, name in descriptors(pid).items() if number > 2}
            return found if 2 <= sum(name.startswith("socket:") for name in found.values()) <= 4 else None

        opened = calm.wait(few, "it has no more sockets than it needs")
        own = "socket:", "anon_inode:", f"/proc/{pid}/", "/dev/null", str(calm.run_folder / "logs")
        assert all(name.startswith(own) for name in opened.values()), opened


def test_a_child_of_the_application_inherits_nothing(calm: Site) -> None:
    pid = calm.get(1, "/child").content["pid"]
    try:
        wait_for(lambda: "sleep" in os.readlink(f"/proc/{pid}/exe"), "it is what it is to be")
        # The loader of the child's own program may have a library open at this very moment.
        opened = {name for number, name in descriptors(pid).items() if number > 2}
        assert not [name for name in opened if not name.startswith(("/lib", "/usr/lib", "/etc/ld.so"))]
    finally:
        os.kill(pid, signal.SIGKILL)


def test_a_second_monitor_is_refused(calm: Site) -> None:
    assert calm.refused(status=1) == f"lbmonitor: another monitor (pid {calm.pid}) runs from {calm.run_folder}"
    pid_file = calm.run_folder / "monitor.pid"
    text = pid_file.read_text()
    pid_file.unlink()
    assert calm.refused(status=1) == f"lbmonitor: another monitor (pid unknown) runs from {calm.run_folder}"
    pid_file.write_text(text)
    assert len(calm.ok) == 2


def test_the_status_for_people(calm: Site) -> None:
    calm.wait(lambda: all(server["memory"] for server in ask(calm.control)["appservers"]), "they were probed")
    code, text = calm.lbctl("status")
    lines = text.splitlines()
    assert code == 0
    assert lines[0] == f"monitor {calm.pid} · AppServers asked for: 2, slots: {SLOTS}"
    assert lines[1] == str(calm.run_folder / "address.text")
    for slot, pid in calm.pids().items():
        assert re.match(
            rf"{slot} +OK +\d+ s +0 +0/2 +\d+ +\d+ MB +{pid} +127\.0\.0\.1:{calm.base_port + slot}$", lines[4 + slot]
        )


def test_the_status_for_programs(calm: Site) -> None:
    code, text = calm.lbctl("status", "--json")
    assert code == 0
    status = json.loads(text)
    assert (status["pid"], status["servers"], status["slots"]) == (calm.pid, 2, SLOTS)
    assert [server["slot"] for server in status["appservers"]] == [0, 1]


@pytest.mark.parametrize(
    ("words", "why"),
    [
        (["drain", "7"], "lbctl: there is no AppServer in slot 7; the slots in use are: 0, 1"),
        (["undrain", "0"], "lbctl: slot 0 is OK and not being drained"),
    ],
)
def test_an_order_that_cannot_be_is_refused(calm: Site, words: list[str], why: str) -> None:
    assert calm.lbctl(*words) == (1, why)


def test_a_watcher_that_dies_is_replaced_and_no_appserver_notices(calm: Site) -> None:
    before, generations = calm.pids(), [entry.identity for entry in calm.table.entries]
    (watcher,) = calm.watchers()
    os.kill(watcher, signal.SIGKILL)
    calm.wait(lambda: calm.watchers() not in ([], [watcher]), "there is another watcher")
    calm.wait_control()
    assert calm.pids() == before
    assert [entry.identity for entry in calm.table.entries] == generations
    calm.wait(lambda: not zombies(calm.pid), "the old one was reaped")


def test_a_quiet_monitor_is_small_and_idle(calm: Site) -> None:
    assert resident(calm.pid) < 40e6
    begun, used = time.monotonic(), cpu(calm.pid)
    calm.wait(lambda: time.monotonic() - begun > 1.0, "time passes")
    assert (cpu(calm.pid) - used) / (time.monotonic() - begun) < 0.15


def test_its_own_modules_hide_none_of_the_users(site: Site) -> None:
    (site.app_folder / "monitor.py").write_text("NAME = 'the user\\'s own'\n")
    site.settings("appservers", servers=1)
    site.write_application("import monitor; assert monitor.NAME == 'the user\\'s own'")
    site.up()
    site.end()
