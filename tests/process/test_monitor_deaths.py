"""A real monitor: AppServers that die, and what it runs short of."""

from __future__ import annotations

import ctypes
import os
import re
import resource
import signal
import socket
import sys
import time
from collections.abc import Callable

from monitor_fixture import HASTY, PATIENCE, Site, processes, wait_for
from monitor_processes import available, descriptors, resident, zombies

# Deaths.


def test_a_killed_one_is_replaced_at_once(site: Site, record_property: Callable[[str, object], None]) -> None:
    site.up()
    child = site.get(0, "/child").content["pid"]
    old = site.entry(0)
    assert old is not None
    site.wait(lambda: available(site), "first visits take the fast lane")
    begun = time.monotonic()
    os.kill(site.pids()[0], signal.SIGKILL)
    new = site.wait_reborn(old)
    took = time.monotonic() - begun
    record_property("seconds_to_replace", took)
    record_property("arbiter_resident_bytes", resident(site.pid))
    print(f"replaced after {took * 1000:.0f} ms; the arbiter has {resident(site.pid) / 1e6:.1f} MB")
    assert "slot 0 is tried again" not in site.said, "there is no pause"
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
    site.settings("monitor", **HASTY)
    site.up()
    hung = site.pids()[1]
    os.kill(hung, signal.SIGSTOP)
    site.wait_said("slot 1 is FAILING: ")
    # Its replacement does not wait until it is dead.
    site.wait(lambda: site.states.get(2) == "OK" and 1 not in site.states, "slot 2 is OK, and slot 1 is not named")
    site.wait(lambda: hung not in site.pids().values(), "it was killed")
    assert "slot 1 is hung and is ended" in site.said
    assert "slot 1 does not exit: SIGKILL" in site.said
    site.end()


def test_a_failing_one_that_answers_again_is_what_it_was(site: Site) -> None:
    site.settings("monitor", probe_timeout=0.4)
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
    site.settings("monitor", probe_timeout=0.4)
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
        "def broken(cls, command, *more, **named):\n"
        "    words = ['/bin/false'] if 'monitor.watcher' in command else command\n"
        "    return start(cls, words, *more, **named)\n"
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
    # A monitor that loses patience when the test says so: until then its watcher may be slow.
    code = (
        "import os, sys; from monitor import __main__; from monitor.arbiter import watcher_process\n"
        "keep_running = watcher_process.WatcherProcess.keep_running\n"
        "def hasty(self, now, wanted):\n"
        "    watcher_process.SILENCE = 1.2 if os.path.exists('hasty') else 60.0\n"
        "    keep_running(self, now, wanted)\n"
        "watcher_process.WatcherProcess.keep_running = hasty\n"
        "sys.exit(__main__.main())"
    )
    site.settings("appservers", servers=1)
    site.start(command=[sys.executable, "-B", "-I", "-c", code, "--config", str(site.config)])
    site.wait_ok()
    site.wait_control()
    (silent,) = site.watchers()
    before = site.pids()
    os.kill(silent, signal.SIGSTOP)
    (site.app_folder / "hasty").touch()
    site.wait(lambda: site.watchers() not in ([], [silent]), "there is another watcher")
    (site.app_folder / "hasty").unlink()
    site.wait_control()
    site.wait(lambda: silent not in processes(site.mark), "the silent one is dead")
    assert site.pids() == before
    site.end()
