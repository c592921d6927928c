"""A real monitor: why it cannot begin, and how it ends."""

from __future__ import annotations

import grp
import os
import signal
import socket
import subprocess
import time

import pytest
from monitor_fixture import PATIENCE, SLOTS, Site, processes
from monitor_processes import available

from lbadaptor.contract.address import parse
from lbadaptor.contract.errors import SettingsError
from monitor.arbiter.files import run_folder

LEFT = {"address.text", "available.text", "callerkeys.text", "logs", "monitor.pid"}
"""What stays in the run folder."""


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
        # As often as systemd wants it, unless this machine is too busy for a moment.
        moments, until = [0.0], time.monotonic() + PATIENCE
        while len(moments) < 4:
            assert receiver.recv(4096) == b"WATCHDOG=1\nSTATUS=slots: 0 OK"
            now = time.monotonic()
            moments = [*moments, now] if now - moments[-1] < 0.4 else [now]
            assert now < until, "the messages come too late"
        # They are read as they come: those that find no room are lost.
        assert site.monitor is not None
        site.monitor.send_signal(signal.SIGTERM)
        last = ""
        while "STOPPING=1" not in last:
            last = receiver.recv(4096).decode()
        assert last == "WATCHDOG=1\nSTATUS=slots: 0 STOPPING\nSTOPPING=1"
        assert receiver.recv(4096) == b"EXTEND_TIMEOUT_USEC=20000000"
        assert site.monitor.wait(PATIENCE) == 0


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
