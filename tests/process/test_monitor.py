"""The real monitor with real AppServers: filled, killed, stopped, drained, released, ended."""

from __future__ import annotations

import ctypes
import grp
import itertools
import json
import os
import re
import resource
import signal
import socket
import stat
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from monitor_fixture import MARK, PATIENCE, SLOTS, Site, free_ports, processes, wait_for

from lbadaptor.contract.address import parse
from lbadaptor.contract.errors import SettingsError
from lbadaptor.contract.ticket import Verdict, judge, read_keys
from monitor.arbiter.files import run_folder
from monitor.contract.client import NoAnswer, ask

LEFT = {"address.text", "available.text", "callerkeys.text", "monitor.pid"}
"""What stays in the run folder."""


@pytest.fixture(scope="module")
def calm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """A monitor that several tests look at, and whose AppServers none of them harms."""
    with free_ports(SLOTS) as base_port:
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


def descriptors(pid: int) -> dict[int, str]:
    """What a process has open."""
    found = {}
    for link in Path(f"/proc/{pid}/fd").iterdir():
        try:
            found[int(link.name)] = os.readlink(link)
        except OSError:
            continue
    return found


def zombies(parent: int) -> list[int]:
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            state, ppid = (folder / "stat").read_text().rpartition(")")[2].split()[:2]
        except OSError:
            continue
        if state == "Z" and int(ppid) == parent:
            found.append(int(folder.name))
    return found


def cpu(pid: int) -> float:
    """Seconds of CPU time that a process has used."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def resident(pid: int) -> int:
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * resource.getpagesize()


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


def available(site: Site) -> dict[str, str]:
    """What Apache finds in available.text; empty: first visits take the Python lane."""
    lines = (site.run_folder / "available.text").read_text().splitlines()
    return dict(line.split() for line in lines if not line.startswith("#"))


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
        own = "socket:", "anon_inode:", f"/proc/{pid}/", "/dev/null", str(calm.log)
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


# Deaths.


def test_a_killed_one_is_replaced_at_once(site: Site, record_property: Callable[[str, object], None]) -> None:
    site.up()
    child = site.get(0, "/child").content["pid"]
    old = site.entry(0)
    assert old is not None
    begun = time.monotonic()
    site.wait(lambda: available(site), "first visits take the fast lane")
    os.kill(site.pids()[0], signal.SIGKILL)
    new = site.wait_reborn(old)
    took = time.monotonic() - begun
    record_property("seconds_to_replace", took)
    record_property("arbiter_resident_bytes", resident(site.pid))
    print(f"replaced after {took * 1000:.0f} ms; the arbiter has {resident(site.pid) / 1e6:.1f} MB")
    assert took < 5
    assert new.ticket != old.ticket
    assert site.get(0).status == 200
    assert site.knocks(0)
    assert site.states == {0: "OK", 1: "OK"}
    assert re.search(r"slot 0 \(OK\) was ended by SIGKILL after \d+\.\d s", site.said)
    assert re.search(r"slot 0 is back after \d+ ms", site.said)
    assert available(site) == {}, "a request that ends its process has to meet the circuit breaker"
    wait_for(lambda: child not in processes(site.mark), "what it had started has ended with it")
    assert not zombies(site.pid)
    site.end()


def test_a_hung_one_fails_and_is_killed_and_replaced(site: Site) -> None:
    site.up()
    hung = site.pids()[1]
    os.kill(hung, signal.SIGSTOP)
    site.wait(lambda: site.states == {0: "OK", 1: "FAILING"}, "it is FAILING")
    # Its replacement does not wait until it is dead.
    site.wait_states(s0="OK", s2="OK")
    site.wait(lambda: hung not in site.pids().values(), "it was killed")
    assert "slot 1 is hung and is ended" in site.said
    assert "slot 1 does not exit: SIGKILL" in site.said
    site.end()


def test_a_failing_one_that_answers_again_is_what_it_was(site: Site) -> None:
    site.settings("monitor", failing_limit=8.0)
    site.settings("appservers", servers=1)
    site.up()
    pid = site.pids()[0]
    os.kill(pid, signal.SIGSTOP)
    site.wait_states(s0="FAILING")
    os.kill(pid, signal.SIGCONT)
    site.wait_states(s0="OK")
    assert site.pids() == {0: pid}
    site.end()


def test_an_appserver_under_a_debugger_is_replaced_all_the_same(site: Site) -> None:
    # Its pidfd says that it is over while only the tracer may wait for it.
    site.settings("appservers", servers=1)
    site.up()
    old, pid = site.entry(0), site.pids()[0]
    assert old is not None
    seize = 0x4206
    assert ctypes.CDLL(None).ptrace(seize, pid, None, None) == 0
    os.kill(pid, signal.SIGKILL)
    site.wait_reborn(old)
    os.waitpid(pid, 0)
    site.wait(lambda: not zombies(site.pid), "it was reaped")
    site.end()


def test_an_application_that_does_not_import_and_is_mended(site: Site) -> None:
    site.settings("appservers", servers=1)
    site.settings("monitor", backoff_limit=0.2)
    site.write_application("import pandemonium")
    site.start()
    site.wait_said("No module named 'pandemonium'")
    site.wait_said("slot 0: Traceback (most recent call last):")
    site.wait_said("slot 0 is tried again in 0 s: shop:app: ModuleNotFoundError: No module named 'pandemonium'")
    assert site.table.entries == ()
    site.wait_control()
    site.wait(
        lambda: "ModuleNotFoundError: No module named 'pandemonium'" in site.lbctl("status")[1], "lbctl says it"
    )
    site.write_application()
    site.wait_ok()
    site.end()


def test_an_application_that_ends_its_process_at_import_is_told_in_words(site: Site) -> None:
    site.settings("appservers", servers=1)
    site.settings("monitor", backoff_limit=0.2)
    site.write_application("import os; os._exit(0)")
    site.start()
    words = "ended by itself with status 0 before it was ready (the application may have called os._exit)"
    site.wait_said(f"slot 0 (STARTING) {words} after")
    site.wait_said(f"slot 0 is tried again in 0 s: {words}")
    site.write_application()
    site.wait_ok()
    site.end()


def test_sigterm_from_elsewhere_is_told_in_words(site: Site) -> None:
    site.settings("appservers", servers=1)
    # While it ends, its port refuses. After two such probes it would be ended by order, as one that hangs.
    site.settings("monitor", probe_interval=5.0, failing_limit=30.0)
    site.up()
    old = site.entry(0)
    assert old is not None
    os.kill(site.pids()[0], signal.SIGTERM)
    site.wait_reborn(old)
    # FAILING, where a probe came between the signal and the end of the process
    assert re.search(
        r"slot 0 \((OK|FAILING)\) ended by itself with status 0, and not by order of the monitor", site.said
    )
    assert "somebody may have sent it SIGTERM" in site.said
    assert "does as ordered" not in site.said, "it has ended"
    site.end()


def test_an_appserver_that_talks_nonsense_is_served_on(site: Site) -> None:
    site.settings("appservers", servers=1)
    site.up()
    old = site.entry(0)
    assert old is not None
    site.get(0, "/nonsense")
    site.wait_said("slot 0 reports nonsense")
    os.kill(site.pids()[0], signal.SIGKILL)
    site.wait_reborn(old)
    site.end()


# Ports, descriptors, disks.


def test_a_port_in_use_is_passed_over_and_said(site: Site) -> None:
    with socket.create_server(("127.0.0.1", site.base_port + 1)):
        site.start()
        site.wait_states(s0="OK", s2="OK")
        address = f"127.0.0.1:{site.base_port + 1}"
        assert f"slot 1 is passed over for 60 s: {address}: Address already in use" in site.said
        site.end()


def test_without_descriptors_no_appserver_is_started_and_with_them_all_goes_on(site: Site) -> None:
    site.settings("monitor", backoff_limit=0.2)
    site.up()
    old = site.entry(0)
    assert old is not None
    # None is left but what the dead one leaves: enough to write address.text, too few to fork.
    hard = resource.prlimit(site.pid, resource.RLIMIT_NOFILE)[1]
    limits = resource.prlimit(site.pid, resource.RLIMIT_NOFILE, (len(descriptors(site.pid)), hard))
    os.kill(site.pids()[0], signal.SIGKILL)
    site.wait_said("cannot fork: Too many open files")
    site.wait(lambda: site.states == {1: "OK"}, "address.text names the other one")
    resource.prlimit(site.pid, resource.RLIMIT_NOFILE, limits)
    site.wait_reborn(old)
    site.end()


def test_a_file_that_cannot_be_written_ends_no_appserver(site: Site) -> None:
    site.settings("appservers", servers=1)
    site.up()
    in_the_way = site.run_folder / ".address.text.new"
    in_the_way.mkdir()
    old, text = site.entry(0), site.text
    assert old is not None
    os.kill(site.pids()[0], signal.SIGKILL)
    site.wait_said("slot 0 is back after")
    assert site.text == text, "the last good file stays"
    assert site.said.count("address.text cannot be written: Is a directory") == 1
    in_the_way.rmdir()
    site.wait_reborn(old)
    site.end()


def test_ready_is_not_said_before_address_text_is_written(site: Site) -> None:
    site.settings("appservers", servers=1)
    in_the_way = site.run_folder / ".address.text.new"
    in_the_way.mkdir(parents=True)
    notify = site.folder / "notify"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as receiver:
        receiver.bind(str(notify))
        receiver.settimeout(PATIENCE)
        site.start(NOTIFY_SOCKET=str(notify))
        while b"0 OK" not in (message := receiver.recv(4096)):
            assert b"READY" not in message
        assert b"READY" not in message
        in_the_way.rmdir()
        while receiver.recv(4096) != b"READY=1":
            pass
        assert len(site.ok) == 1
        site.end()


def test_without_a_console_there_are_probes_all_the_same(site: Site) -> None:
    site.settings("files", run_folder="long-" + "x" * 120)  # too long for a Unix socket's address
    site.start()
    site.wait_ok()
    site.wait_said("no orders can be given at")
    (watcher,) = site.watchers()
    os.kill(site.pids()[0], signal.SIGSTOP)
    site.wait(lambda: site.states.get(0) == "FAILING", "it is FAILING")
    os.kill(site.pids()[0], signal.SIGCONT)
    assert site.watchers() == [watcher]
    site.end()


def test_a_watcher_that_cannot_run_does_not_keep_the_machine_busy(site: Site) -> None:
    # A monitor whose watcher is a program that fails at once.
    code = (
        "import sys\n"
        "from monitor.arbiter.processes import child\n"
        "from monitor.arbiter import watcher_process as link\n"
        "from monitor import __main__\n"
        "start = child.Child.start.__func__\n"
        "def broken(cls, command, environment=None):\n"
        "    words = ['/bin/false'] if 'monitor.watcher' in command else command\n"
        "    return start(cls, words, environment)\n"
        "child.Child.start, link.PAUSE = classmethod(broken), 0.5\n"
        "sys.exit(__main__.main())\n"
    )
    site.settings("appservers", servers=1)
    site.start(command=[sys.executable, "-B", "-I", "-c", code, "--config", str(site.config)])
    begun = time.monotonic()
    site.wait_ok()
    site.wait(lambda: site.said.count("the watcher ") >= 2, "it was tried again")
    assert site.said.count("the watcher ") <= 3 + 2 * (time.monotonic() - begun)
    site.end()


def test_a_silent_watcher_is_replaced(site: Site) -> None:
    code = (
        "import sys; from monitor import __main__; from monitor.arbiter import watcher_process\n"
        "watcher_process.SILENCE = 1.2; sys.exit(__main__.main())"
    )
    site.settings("appservers", servers=1)
    site.start(command=[sys.executable, "-B", "-I", "-c", code, "--config", str(site.config)])
    site.wait_ok()
    site.wait_control()
    (silent,) = site.watchers()
    before = site.pids()
    os.kill(silent, signal.SIGSTOP)
    site.wait(lambda: site.watchers() not in ([], [silent]), "there is another watcher")
    site.wait_control()
    assert silent not in processes(site.mark)
    assert site.pids() == before
    site.end()


# Drains and releases.


def test_past_its_limit_it_is_replaced_first_and_leaves_after_its_last_session(site: Site) -> None:
    site.settings("appservers", servers=1, max_requests=3)
    site.write_application("import time; time.sleep(0.1 if os.path.exists('slow') else 0)")
    site.up()
    (site.app_folder / "slow").touch()
    sid = site.get(0, "/login").cookies["sid"]
    for _ in range(2):
        site.get(0, sid=sid)
    history: list[dict[int, str]] = []

    def replaced() -> bool:
        if not history or site.states != history[-1]:
            history.append(site.states)
        return site.states == {0: "DYING", 1: "OK"}

    site.wait(replaced, "it is replaced, then drained")
    assert all("OK" in states.values() for states in history), history
    assert history[0] == {0: "OK"}
    assert site.get(0, sid=sid).status == 200
    site.wait(lambda: site.get(0).status == 421, "it has got the order")
    assert site.get(0, "/logout", sid=sid).status == 200
    site.wait_states(s1="OK")
    site.wait(lambda: list(site.pids()) == [1], "it has ended")
    for line in ("slot 0 is past its limit (requests)", "slot 0 is DYING (limit)", "slot 0 has no session left"):
        assert line in site.said
    site.wait_said("slot 0 (STOPPING) exited after")
    site.end()


def test_drain_and_undrain(site: Site) -> None:
    site.up()
    sid = site.get(1, "/login").cookies["sid"]
    site.wait_control()
    assert site.lbctl("drain", "1") == (0, "slot 1 will be drained when its replacement is up")
    site.wait_states(s0="OK", s1="DYING", s2="OK")
    site.wait(lambda: set(available(site)) == {"__PRT__", "0", "2"}, "it gets no new visitors")
    site.wait(lambda: site.get(1).status == 421, "it takes no new visitors")
    assert site.get(1, sid=sid).status == 200
    assert site.lbctl("undrain", "1") == (0, "slot 1 is OK again")
    # Somebody else leaves, and has no session, so it is gone at once.
    site.wait(lambda: sorted(site.states.values()) == ["OK", "OK"] and site.states.get(1) == "OK", "it is OK again")
    site.wait(lambda: site.get(1).status == 200, "it takes new visitors again")
    site.wait(lambda: "1" in available(site), "it gets new visitors again")
    site.end()


def test_it_has_left_address_text_before_it_is_ordered_to_stop(site: Site) -> None:
    # An AppServer that keeps what address.text says when its order comes, and a monitor that writes slowly.
    site.write_application(
        """
import signal
_signal = signal.signal
def keep(number, handler):
    def handle(*what):
        if number == signal.SIGTERM:
            with open("../run/address.text") as file, open("seen", "a") as seen:
                seen.write(file.read())
        handler(*what)
    return _signal(number, handle)
signal.signal = keep
"""
    )
    code = (
        "import sys, time\n"
        "from monitor.arbiter.files import address_text as publish\n"
        "from monitor import __main__\n"
        "write = publish.Publisher.publish\n"
        "publish.Publisher.publish = lambda self, entries: (time.sleep(0.2), write(self, entries))\n"
        "sys.exit(__main__.main())\n"
    )
    site.settings("appservers", servers=1)
    site.start(command=[sys.executable, "-B", "-I", "-c", code, "--config", str(site.config)])
    site.wait_ok()
    site.wait_order("drain", 0)
    site.wait(lambda: list(site.pids()) == [1], "it has ended")
    (slot,) = (entry.identity.slot for entry in parse((site.app_folder / "seen").read_text()).entries)
    assert slot == 1
    (site.app_folder / "seen").unlink()
    site.end()
    assert parse((site.app_folder / "seen").read_text()).entries == ()


@pytest.mark.parametrize("way", ["lbctl restart", "SIGHUP"])
def test_a_release_replaces_everybody(site: Site, way: str) -> None:
    site.up()
    sid = site.get(0, "/login").cookies["sid"]
    old = {entry.identity for entry in site.ok}
    site.write_application("assert True, 'a new release'")
    if way == "SIGHUP":
        os.kill(site.pid, signal.SIGHUP)
    else:
        site.wait_control()
        assert site.lbctl("restart", "--no-wait") == (0, "replacing 2 AppServers, 1 at a time")

    def rolled() -> bool:
        assert len(site.ok) >= 2, "fewer are OK than before"
        return len(site.ok) == 2 and not old & {entry.identity for entry in site.ok}

    site.wait(rolled, "everybody was replaced")
    site.wait_said("release: every AppServer has been replaced")
    site.wait(lambda: site.states.get(0) == "DYING" and len(site.states) == 3, "only the one with a session stays")
    assert site.get(0, sid=sid).status == 200
    site.end()


def test_a_release_that_does_not_start_leaves_the_old_ones_serving(site: Site) -> None:
    site.settings("monitor", backoff_limit=0.2)
    site.up()
    before = site.pids()
    site.write_application("raise RuntimeError('a bad release')")
    site.wait_order("restart")
    site.wait(lambda: site.said.count("cannot start: shop:app: RuntimeError") >= 3, "it was tried several times")
    assert site.said.count("Traceback") == 1
    assert site.states == {0: "OK", 1: "OK"}
    assert before.items() <= site.pids().items()
    site.write_application()
    site.wait_said("release: every AppServer has been replaced")
    assert not set(before.values()) & {site.pids()[entry.identity.slot] for entry in site.ok}
    site.end()


def test_settings_that_cannot_be_are_no_release(site: Site) -> None:
    site.settings("appservers", servers=1)
    site.up()
    before = site.pids()
    site.wait_control()
    site.settings("files", run_folder="elsewhere")
    with pytest.raises(NoAnswer, match=r"a change in \[files\] needs a restart of the monitor"):
        ask(site.folder / "run" / "control.sock", "restart")
    site.config.write_text("[nonsense]\n")
    os.kill(site.pid, signal.SIGHUP)
    site.wait_said("no release: ")
    site.wait_said("unknown section [nonsense]")
    site.settings("files", run_folder="run")
    assert site.pids() == before
    site.end()


def test_an_old_one_keeps_its_address_when_the_settings_change(site: Site) -> None:
    site.settings("appservers", servers=1)
    site.up()
    sid = site.get(0, "/login").cookies["sid"]
    site.settings("appservers", base_port=site.base_port + 3, slots=5)
    site.wait_order("restart")
    site.wait_states(s0="DYING", s1="OK")
    assert [entry.address.port - site.base_port for entry in site.table.entries] == [0, 4]
    assert site.get(0, sid=sid).status == 200
    site.wait(lambda: ask(site.control)["appservers"][0]["memory"], "it is probed where it is")
    site.end()


# Refusals.


@pytest.mark.parametrize(
    ("section", "values", "why"),
    [
        ("monitor", {"fal": 3}, "unknown setting [monitor] fal; did you mean fall?"),
        ("files", {"apache_group": "nosuchgroup"}, "[files] apache_group: there is no group 'nosuchgroup'"),
        ("files", {"key_file": "/proc/1/nosuchfolder/keys"}, "/proc/1/nosuchfolder"),
        ("files", {"run_folder": "lbadaptor.toml"}, "lbadaptor.toml: File exists"),
        ("appservers", {"slots": 2}, "leaves no slot for a replacement"),
    ],
)
def test_what_cannot_begin_says_why_in_one_line(
    site: Site, section: str, values: dict[str, object], why: str
) -> None:
    site.settings(section, **values)
    line = site.refused(status=1 if section == "files" and "apache_group" not in values else 2)
    assert line.startswith("lbmonitor: ")
    assert why in line


def test_a_key_file_that_cannot_be_read_says_so(site: Site) -> None:
    (site.folder / "keys").mkdir()
    assert site.refused(status=1) == f"lbmonitor: key file {site.folder / 'keys'}: Is a directory"
    (site.folder / "keys").rmdir()
    (site.folder / "keys").write_text("short\n")
    assert "a key is shorter than 32 characters" in site.refused(status=1)


def test_what_may_be_over_the_next_time_is_no_matter_of_settings(site: Site) -> None:
    site.settings("monitor")
    for wrapper in (("prlimit", "--nofile=4"), ("prlimit", "--fsize=0")):
        run = subprocess.run(
            [*wrapper, *site.command()],
            cwd=site.app_folder,
            env=site.environment(),
            capture_output=True,
            text=True,
            timeout=PATIENCE,
        )
        assert run.returncode == 1, run.stderr


def test_a_group_that_the_monitor_is_not_in_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    own = {os.getegid(), *os.getgroups()}
    foreign = next(group.gr_name for group in grp.getgrall() if group.gr_gid not in own)
    monkeypatch.setattr("monitor.arbiter.files.run_folder.os.geteuid", lambda: 1000)
    with pytest.raises(SettingsError, match=f"the monitor's user is not in the group '{foreign}'"):
        run_folder.group(foreign)
    monkeypatch.setattr("monitor.arbiter.files.run_folder.os.geteuid", lambda: 0)
    assert run_folder.group(foreign) == grp.getgrnam(foreign).gr_gid
    assert run_folder.group("") is None


def test_check_starts_nothing(site: Site) -> None:
    site.settings("monitor")
    run = subprocess.run(
        site.command("--check"), capture_output=True, text=True, timeout=PATIENCE, cwd=site.app_folder
    )
    good, note = run.stdout.splitlines()
    assert (run.returncode, good, run.stderr) == (0, f"{site.config}: good", "")
    assert note.startswith(f'{site.config}: note: whether the application sets the cookie session_cookie = "sid"')
    assert not site.run_folder.exists()


def test_a_session_cookie_that_the_application_never_sets_is_said_everywhere(site: Site) -> None:
    site.settings("application", session_cookie="session")
    site.settings("appservers", servers=1)
    site.up()
    assert "note:" not in site.lbctl("status")[1]
    said = "that set cookies none was `session`; the application sets: sid"
    site.get(0, "/login")
    site.wait(lambda: said in site.lbctl("status")[1], "the status says so at once")
    run = subprocess.run(
        site.command("--check"), capture_output=True, text=True, timeout=PATIENCE, cwd=site.app_folder
    )
    assert run.returncode == 0
    assert said in run.stdout
    assert said not in site.said
    for _ in range(25):
        site.get(0, "/login")
    site.wait_said(f"in 20 answers {said}")
    site.settings("application", session_cookie="sid")
    site.wait_order("restart")
    site.wait(lambda: site.states.get(1) == "OK", "it is replaced")
    site.get(1, "/login")
    site.wait(lambda: "note:" not in site.lbctl("status")[1], "nothing is wrong any more")


# The end.


@pytest.mark.parametrize(
    ("number", "ignored"), [(signal.SIGTERM, False), (signal.SIGINT, False), (signal.SIGINT, True)]
)
def test_an_orderly_end_leaves_nothing_behind(site: Site, number: signal.Signals, ignored: bool) -> None:
    site.start(wrapper=("/bin/sh", "-c", 'trap "" INT TERM HUP; exec "$@"', "sh") if ignored else ())
    site.wait_ok()
    site.wait_control()
    site.end(number)
    assert processes(site.mark) == {}
    assert {file.name for file in site.run_folder.iterdir()} == LEFT | {"events.jsonl"}
    assert {file.name for file in site.folder.iterdir()} == {"app", "run", "keys", "lbadaptor.toml", "stderr"}
    assert parse(site.text).entries == ()
    assert available(site) == {}
    assert f"{number.name}: everything is ended in order" in site.said
    assert "Traceback" not in site.said
    for slot in range(SLOTS):
        with socket.socket() as free:
            free.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            free.bind(("127.0.0.1", site.base_port + slot))


def test_one_that_does_not_end_is_killed(site: Site) -> None:
    site.settings("appservers", servers=1)
    site.settings("monitor", stop_grace=0.2)
    site.up()
    os.kill(site.pids()[0], signal.SIGSTOP)
    site.end()
    assert processes(site.mark) == {}
    assert "slot 0 does not exit: SIGKILL" in site.said


def test_an_end_while_they_start(site: Site) -> None:
    site.write_application("import time; time.sleep(600)")
    site.start()
    site.wait(lambda: len(site.pids()) == 2, "they start")
    site.end()
    assert processes(site.mark) == {}
    assert site.table.entries == ()


def test_another_monitor_goes_on_from_the_last_ones_file(site: Site) -> None:
    site.settings("appservers", servers=1)
    site.up()
    site.end()
    serial, mtime = site.table.serial, (site.run_folder / "address.text").stat().st_mtime_ns
    site.up()
    assert site.table.serial > serial
    assert (site.run_folder / "address.text").stat().st_mtime_ns > mtime
    site.end()


def test_systemd_gets_the_status(site: Site) -> None:
    site.settings("appservers", servers=1)
    name = f"lbadaptor-test-{site.mark}"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as receiver:
        receiver.bind(f"\0{name}")
        receiver.settimeout(PATIENCE)
        site.start(NOTIFY_SOCKET=f"@{name}", WATCHDOG_USEC="400000")
        received = []
        while not received or received[-1] != "READY=1":
            received.append(receiver.recv(4096).decode())
        assert set(received[:-1]) == {"WATCHDOG=1\nSTATUS=slots: 0 STARTING"}, "the application is not waited for"
        assert site.text
        while receiver.recv(4096) != b"WATCHDOG=1\nSTATUS=slots: 0 OK":
            pass
        moments = []
        while len(moments) < 4:
            assert receiver.recv(4096) == b"WATCHDOG=1\nSTATUS=slots: 0 OK"
            moments.append(time.monotonic())
        assert max(later - earlier for earlier, later in itertools.pairwise(moments)) < 0.4
        site.end()
        receiver.setblocking(False)
        last = ""
        while "STOPPING=1" not in last:
            last = receiver.recv(4096).decode()
        assert last == "WATCHDOG=1\nSTATUS=slots: 0 STOPPING\nSTOPPING=1"
        assert receiver.recv(4096) == b"EXTEND_TIMEOUT_USEC=20000000"


def test_systemd_gets_the_watchdog_message_whatever_the_application_does(site: Site) -> None:
    site.settings("appservers", servers=1)
    site.write_application("import time; time.sleep(600)")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as receiver:
        receiver.bind(str(site.folder / "notify"))
        receiver.settimeout(PATIENCE)
        site.start(NOTIFY_SOCKET=str(site.folder / "notify"))
        while receiver.recv(4096) != b"READY=1":
            pass
        assert site.text
        assert site.table.entries == ()
        site.end()
