"""A monitor that is upgraded in place or ordered to end, and `lbctl stop --all`."""

from __future__ import annotations

import fcntl
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from monitor_fixture import Site, processes
from survival_stage import children, crash, identities, state

from monitor.contract.client import NoAnswer, ask
from tests.folders import delete


def test_stop_all_ends_them_without_any_file_too(site: Site) -> None:
    site.up()
    crash(site)
    delete(site.run_folder)
    status, said = site.lbctl("stop", "--all")
    assert (status, "AppServers left over: 2, killed: 0" in said) == (0, True), said
    assert not processes(site.mark)


def test_stop_all_ends_no_process_that_has_got_the_pid_of_the_monitor(site: Site) -> None:
    site.up()
    crash(site)
    pid_file = site.run_folder / "monitor.pid"
    _, rest = pid_file.read_text().split("\n", 1)
    with subprocess.Popen(["sleep", "600"]) as stranger, open(pid_file, "r+") as file:
        fcntl.flock(file, fcntl.LOCK_EX)  # as if a monitor ran
        file.write(f"{stranger.pid}\n{rest}")
        file.flush()
        site.lbctl("stop", "--all")
        assert stranger.poll() is None
        stranger.kill()


def test_reexec_keeps_the_pid_and_every_appserver(site: Site) -> None:
    site.up()
    before, pids = identities(site), site.pids()
    sid = site.get(0, "/login").cookies["sid"]
    site.wait_order("reexec")
    site.wait(lambda: site.said.count("is adopted") == 2, "the new program has adopted them")
    site.wait_control()
    assert (identities(site), site.pids()) == (before, pids)
    assert site.get(0, "/", sid).status == 200
    old = site.entry(1)
    assert old is not None
    os.kill(pids[1], signal.SIGKILL)
    site.wait_reborn(old)
    assert "slot 1 (OK) was ended by SIGKILL" in site.said, "it is still the parent"
    assert not [pid for pid in children(site.pid) if Path(f"/proc/{pid}/stat").read_text().split()[2] == "Z"]
    site.end()
    assert not processes(site.mark)


@pytest.mark.parametrize("harm", ["settings", "package", "user"])
def test_reexec_is_refused_where_the_new_program_does_not_load(site: Site, harm: str) -> None:
    broken = site.folder / "broken"
    code = (
        "import os, sys; from monitor import __main__\n"
        f"if os.path.exists({str(broken)!r}): raise ImportError('half a release')\n"
        "sys.exit(__main__.main())\n"
    )
    site.start(command=[sys.executable, "-B", "-I", "-c", code, "--config", str(site.config)])
    site.wait_ok()
    site.wait_control()
    before, good = identities(site), site.config.read_text()
    if harm == "settings":
        site.config.write_text(good + "[nonsense]\n")
    elif harm == "user":
        site.config.write_text(good.replace("[appservers]\n", '[appservers]\nuser = "nosuchuser"\n'))
    else:
        broken.touch()
    with pytest.raises(NoAnswer, match="the monitor is not upgraded: ") as refused:
        ask(site.control, "reexec")
    said = str(refused.value)
    assert {"settings": "unknown section [nonsense]", "user": "nosuchuser", "package": "half a release"}[harm] in said
    broken.unlink(missing_ok=True)
    site.config.write_text(good)
    assert site.lbctl("reexec") == (0, "the monitor becomes its new release; its AppServers go on")
    site.wait(lambda: site.said.count("is adopted") == 2, "the new program has adopted them")
    site.wait_control()
    assert identities(site) == before
    site.end()


@pytest.mark.parametrize("when", ["at once", "while it becomes the new one", "in the new one"])
def test_an_order_to_stop_wins_over_an_upgrade(site: Site, when: str) -> None:
    late = (
        ""
        if when == "at once"
        else "execv = os.execv\ndef slowly(*words):\n    stop()\n    execv(*words)\nos.execv = slowly\n"
    )
    code = (
        "import os, signal, sys; from monitor import __main__; from monitor.arbiter import loop as arbiter\n"
        "def stop(): os.kill(os.getpid(), signal.SIGTERM)\n"
        + (late if when == "while it becomes the new one" else "")
        + (
            "if os.path.exists('again'): signal.pthread_sigmask(signal.SIG_BLOCK, [15]); stop()\n"
            if when == "in the new one"
            else ""
        )
        + "sys.exit(__main__.main())\n"
    )
    site.start(command=[sys.executable, "-B", "-I", "-c", code, "--config", str(site.config)])
    site.wait_ok()
    site.wait_control()
    (site.app_folder / "again").touch()
    if when == "in the new one":
        (site.app_folder / "again").unlink()
    assert site.lbctl("reexec")[0] == 0
    if when == "in the new one":
        (site.app_folder / "again").touch()
    if when == "at once":
        os.kill(site.pid, signal.SIGTERM)
    assert site.monitor is not None
    assert site.monitor.wait(20) == 0, site.said
    assert site.said.count(" starts: pid") == 2, "no AppServer was started after it"
    assert (
        f"SIGTERM: everything is ended in order, as process {os.getpid() if when == 'at once' else site.pid} ("
        in site.said
    )
    assert not processes(site.mark)
    assert not site.text.count(" OK ")


def test_the_sender_of_a_signal_is_logged(site: Site) -> None:
    site.up()
    name = Path("/proc/self/comm").read_text().strip()
    os.kill(site.pid, signal.SIGHUP)
    site.wait_said(f"SIGHUP: a release, ordered by process {os.getpid()} ({name}) of user {os.getuid()}")
    site.wait_said("release: every AppServer has been replaced")
    site.end()
    assert f"everything is ended in order, as process {os.getpid()} ({name})" in site.said


@pytest.mark.parametrize("order", ["restart", "reexec"])
def test_settings_that_cannot_be_read_in_time_delay_no_other_work(site: Site, order: str) -> None:
    """A pipe that nobody writes to, in place of a disk or a directory service that does not answer."""
    site.up()
    aside = site.config.rename(site.folder / "aside")
    os.mkfifo(site.config)
    command = [sys.executable, "-B", "-I", "-m", "monitor.ctl", "--socket", str(site.control), order]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as asked:
        old = site.entry(0)
        assert old is not None
        os.kill(site.pids()[0], signal.SIGKILL)
        site.wait(lambda: site.said.count("slot 0 starts: pid") == 2, "another one is started")
        assert asked.poll() is None, "it still waits for the settings"
        site.wait_reborn(old)
        said = asked.communicate(timeout=20)[1]
    assert "the settings could not be checked within 8 s" in said
    site.config.unlink()
    aside.rename(site.config)
    assert site.lbctl(order)[0] == 0
    site.wait_said({"restart": "release: every", "reexec": "is adopted"}[order])
    site.end()


def test_stop_all_ends_what_a_crashed_monitor_left(site: Site) -> None:
    site.up()
    crash(site)
    status, said = site.lbctl("stop", "--all")
    assert (status, "AppServers left over: 2, killed: 0" in said) == (0, True), said
    assert not processes(site.mark)


def test_stop_all_ends_a_running_monitor_and_finds_without_a_state_file(site: Site) -> None:
    site.up()
    status, said = site.lbctl("stop", "--all")
    assert (status, "AppServers left over: 0" in said) == (0, True), said
    assert site.monitor is not None
    assert site.monitor.wait(20) == 0
    assert not processes(site.mark)
    site.up()
    crash(site)
    state(site).unlink()
    status, said = site.lbctl("stop", "--all")
    assert (status, "AppServers left over: 2" in said) == (0, True), said
    assert not processes(site.mark)


def test_lbctl_stop_is_an_orderly_end(site: Site) -> None:
    site.up()
    assert site.lbctl("stop") == (0, "everything is ended in order")
    assert site.monitor is not None
    assert site.monitor.wait(20) == 0
    assert not processes(site.mark)
