"""lbctl against real monitors: which one is meant, who may give orders, and what a release comes to."""

from __future__ import annotations

import fcntl
import json
import os
import pty
import pwd
import select
import signal
import struct
import subprocess
import sys
import tempfile
import termios
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from monitor_fixture import PATIENCE, SLOTS, Site, processes, wait_for

from monitor.contract.client import ask
from tests.ports import held_ports

MAIN_SCREEN = b"\x1b[?1049l"
"""What makes a terminal show what was on it before a full screen (xterm's control sequences)."""

IMPATIENT = """
import sys
from monitor.ctl import main
from monitor.ctl.terminal import progress
progress.FAILED_AFTER = 2.0
sys.exit(main.main())
"""
"""An lbctl that waits less for a release whose replacements do not start."""


def lbctl(
    *words: object, wrapper: tuple[str, ...] = (), cwd: Path | None = None, code: str = ""
) -> subprocess.CompletedProcess[str]:
    """`code`: a program in place of lbctl's own."""
    program = ("-c", code) if code else ("-m", "monitor.ctl")
    command = [*wrapper, sys.executable, "-B", "-I", *program, *map(str, words)]
    return subprocess.run(command, capture_output=True, text=True, timeout=4 * PATIENCE, check=False, cwd=cwd)


@pytest.fixture(scope="module")
def up() -> Iterator[Site]:
    """A site that nobody harms, in a folder that everybody may enter."""
    with held_ports(SLOTS) as base_port, tempfile.TemporaryDirectory(prefix="lbt-", dir="/tmp") as folder:
        Path(folder).chmod(0o711)
        made = Site(Path(folder), base_port)
        made.settings("appservers", servers=1)
        try:
            made.up()
            yield made
        finally:
            made.clear()


def test_doctor_finds_nothing_wrong_with_a_good_site(up: Site) -> None:
    done = lbctl("--config", up.config, "doctor", "--json", "--apache", "/no/such/httpd", cwd=up.app_folder)
    told = json.loads(done.stdout)
    assert (done.returncode, told["findings"], done.stderr) == (0, [], "")
    assert {"monitor", "appservers", "address-text", "session-cookie", "application", "ports"} <= {*told["well"]}
    assert "No such file" in told["not_checked"]["mod-wsgi"]
    assert lbctl("doctor", "--jason").returncode == 2


def test_doctor_finds_what_is_wrong_without_a_monitor(tmp_path: Path) -> None:
    config = tmp_path / "shop.toml"
    config.write_text("[application]\napp = \n")
    done = lbctl("--config", config, "doctor")
    assert done.returncode == 1
    assert f"  ERROR   {config}" in done.stdout
    config.write_text(
        '[application]\napp = "no_such_shop:app"\nsession_cookie = "sid"\n'
        '[files]\nrun_folder = "run"\nkey_file = "keys"\n[appservers]\nhost = "0.0.0.0"\n'
    )
    (tmp_path / "keys").write_text("k" * 64 + "\n")
    (tmp_path / "keys").chmod(0o644)
    done = lbctl("doctor", "--config", config, "--apache", "/no/such/httpd")
    assert (done.returncode, done.stderr) == (1, "")
    for name in ("monitor", "key-file", "application", "reachable"):
        assert f"[{name}]\n       CURE " in done.stdout
    assert "Not checked: AppServers, status.sock: no monitor runs: there is no" in done.stdout


def test_by_its_socket_a_site_is_ended_and_no_other(site: Site) -> None:
    site.settings("appservers", servers=1)
    site.up()
    assert site.monitor is not None
    done = lbctl("--socket", site.control, "stop", "--all")
    assert (done.returncode, done.stderr) == (0, "")
    assert f"nothing runs from {site.run_folder} any more" in done.stdout
    assert site.monitor.wait(PATIENCE) == 0
    assert not processes(site.mark)
    done = lbctl("--socket", site.control, "stop", "--all")
    assert done.returncode == 1
    assert "name its lbadaptor.toml with --config" in done.stderr


def test_by_its_socket_what_a_killed_monitor_left_is_ended(site: Site) -> None:
    site.settings("appservers", servers=1)
    site.up()
    assert site.monitor is not None
    site.monitor.kill()
    site.monitor.wait()
    assert site.pids()
    done = lbctl("--socket", site.control, "stop", "--all")
    assert (done.returncode, done.stderr) == (0, "")
    assert "AppServers left over: 1" in done.stdout
    wait_for(lambda: not processes(site.mark), "all have ended")


@pytest.mark.parametrize("named", ["--socket", "--config"])
@pytest.mark.parametrize("crashed", [False, True])
def test_with_broken_settings_a_site_is_ended_all_the_same(site: Site, named: str, crashed: bool) -> None:
    site.settings("appservers", servers=1)
    site.up()
    assert site.monitor is not None
    with open(site.config, "a") as config:
        config.write("[broken\n")
    if crashed:
        site.monitor.kill()
        site.monitor.wait()
    done = lbctl(named, site.control if named == "--socket" else site.config, "stop", "--all")
    assert (done.returncode, f"nothing runs from {site.run_folder}" in done.stdout) == (0, True), (
        done.stdout,
        done.stderr,
    )
    assert "this goes by what the monitor has accepted before" in done.stderr
    wait_for(lambda: not processes(site.mark), "all have ended")
    done = lbctl("--config", site.config, "stop", "--all")
    if not crashed:  # then the monitor has removed what it had accepted
        assert done.returncode == 1
        assert "correct it, or name the monitor's control socket instead" in done.stderr


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root to be somebody else")
@pytest.mark.parametrize("words", [["status"], ["stop"], ["stop", "--all"], ["restart"], ["drain", "0"]])
@pytest.mark.parametrize("named", ["--socket", "--config"])
@pytest.mark.parametrize("mode", [0o755, 0o700])
def test_a_user_without_the_right_is_refused(up: Site, words: list[str], named: str, mode: int) -> None:
    """`mode`: of the run folder."""
    nobody = pwd.getpwnam("nobody")
    wrapper = ("setpriv", f"--reuid={nobody.pw_uid}", f"--regid={nobody.pw_gid}", "--clear-groups")
    up.config.chmod(0o644)
    up.run_folder.chmod(mode)
    done = lbctl(named, up.control if named == "--socket" else up.config, *words, wrapper=wrapper, cwd=Path("/"))
    assert (done.returncode, done.stdout) == (1, "")
    assert "permission denied; orders may be given by the monitor's own user and by root" in done.stderr
    assert done.stderr.count("\n") == 1
    up.run_folder.chmod(0o755)
    assert up.ok


def test_a_request_that_is_stuck_in_the_application_is_named(up: Site) -> None:
    """Its thread opens a FIFO that nobody writes to."""
    fifo = up.folder / "fifo"
    os.mkfifo(fifo)
    page = f'/eval/open("{fifo}").read()'
    request = threading.Thread(target=up.get, args=(0, page))
    request.start()
    try:
        up.wait(lambda: ask(up.control)["appservers"][0]["at_work"], "the request is at work")
        [told] = json.loads(lbctl("--socket", up.control, "status", "--json").stdout)["appservers"][0]["at_work"]
        assert (told["method"], told["path"]) == ("GET", page)
        done = lbctl("--socket", up.control, "top", "--once", "--interval", 0.2)
        assert (done.returncode, done.stderr) == (0, "")
        assert [line for line in done.stdout.splitlines() if line.startswith("0 ") and line.endswith(f"  GET {page}")]
    finally:
        fifo.write_text("")
        request.join(PATIENCE)
    up.wait(lambda: not ask(up.control)["appservers"][0]["at_work"], "it is at work no more")


def read_until(terminal: int, part: bytes) -> bytes:
    """What a program draws on its terminal, up to some part of it."""
    shown, until = b"", time.monotonic() + PATIENCE
    while part not in shown:
        ready = select.select([terminal], [], [], max(0.0, until - time.monotonic()))[0]
        assert ready, f"in {PATIENCE:g} s there is no {part!r}, but {shown!r}"
        shown += os.read(terminal, 65536)
    return shown


FULL_SCREEN = {
    "top": (b"slot  state  requests/s", b" of 1 AppServers OK", b"no request was at work"),
    "status --watch": (b"AppServers asked for: 1", b"slot  state  for", b"127.0.0.1:"),
}
"""Commands that draw a full screen, and what stands on it, the last one last."""


ENDS = {
    "q": ("q", ""),
    "SIGINT": (signal.SIGINT, ""),
    "SIGINT inherited as ignored": (signal.SIGINT, "trap '' INT"),
    "SIGTERM": (signal.SIGTERM, ""),
    "SIGTERM without standard input": (signal.SIGTERM, "exec <&-"),
    "SIGHUP inherited as ignored": (signal.SIGHUP, "trap '' HUP"),
}
"""What ends a full screen, and what a shell does before. One without job control ignores SIGINT in the background."""


@pytest.mark.parametrize(("end", "first"), ENDS.values(), ids=ENDS)
@pytest.mark.parametrize("words", FULL_SCREEN)
def test_a_full_screen_leaves_the_terminal_as_it_was(
    up: Site, words: str, end: str | signal.Signals, first: str
) -> None:
    ours, its = pty.openpty()
    fcntl.ioctl(its, termios.TIOCSWINSZ, struct.pack("HHHH", 20, 100, 0, 0))
    before = termios.tcgetattr(its)
    python = (sys.executable, "-B", "-I", "-m", "monitor.ctl", "--socket", str(up.control))
    command = ["/bin/sh", "-c", f'{first}\nexec "$@"', "sh", *python, *words.split()]
    environment = {name: value for name, value in os.environ.items() if name not in ("COLUMNS", "LINES")}
    program = subprocess.Popen(command, stdin=its, stdout=its, stderr=its, env=environment)
    try:
        shown = read_until(ours, FULL_SCREEN[words][-1])
        if "<&-" not in first:
            assert termios.tcgetattr(its) != before, "keys take effect without Enter"
        if isinstance(end, str):
            os.write(ours, end.encode())
        else:
            program.send_signal(end)
        if MAIN_SCREEN not in shown:
            read_until(ours, MAIN_SCREEN)
        status = program.wait(PATIENCE)
    finally:
        program.kill()
        program.wait()
    assert status == (0 if isinstance(end, str) else 128 + end)
    assert termios.tcgetattr(its) == before
    for part in FULL_SCREEN[words]:
        assert part in shown
    os.close(ours)
    os.close(its)


def test_restart_waits_for_the_release_and_prints_its_end(site: Site) -> None:
    site.up()
    before = site.pids()
    status, said = site.lbctl("restart")
    assert (status, said.splitlines()[-1]) == (0, "2 of 2 replaced")
    site.wait(lambda: not set(site.pids().values()) & set(before.values()), "those of before have ended")
    status, said = site.lbctl("restart", "--no-wait")
    assert (status, said) == (0, "replacing 2 AppServers, 1 at a time")
    site.end()


def test_a_release_that_does_not_start_fails_with_its_reason(site: Site) -> None:
    site.settings("appservers", servers=1)
    site.up()
    [old] = site.pids().values()
    site.write_application("import no_such_module")
    done = lbctl("--config", site.config, "restart", code=IMPATIENT)
    assert done.returncode == 1
    assert "lbctl: the release has failed: slot " in done.stderr
    assert "no_such_module" in done.stderr
    assert old in site.pids().values(), "the AppServer of before serves on"
    done = lbctl("--config", site.config, "restart", "--wait", "0.5")
    assert done.returncode == 1
    assert "lbctl: not done within 0.5 s: " in done.stderr
    site.write_application()
    assert site.lbctl("restart")[0] == 0
    site.wait(lambda: old not in site.pids().values(), "that of before has ended")
    site.end()


def test_a_release_has_failed_if_no_appserver_served_before_and_none_does_now(site: Site) -> None:
    site.settings("appservers", servers=1)
    site.write_application("import no_such_module")
    site.start()
    site.wait(lambda: "BACKOFF" in site.lbctl("status")[1], "its start has failed")
    done = lbctl("--config", site.config, "restart", code=IMPATIENT)
    assert done.returncode == 1, done.stdout
    assert "no_such_module" in done.stderr
    assert "no AppServer serves; the monitor goes on trying" in done.stderr
    site.write_application()
    assert site.lbctl("restart") == (0, "replacing 1 AppServer, 1 at a time\n1 of 1 replaced")
    assert len(site.ok) == 1
    site.end()


def test_while_lbadaptor_toml_is_broken_the_monitor_can_be_asked(site: Site) -> None:
    site.settings("appservers", servers=1)
    site.up()
    good = site.config.read_text()
    site.config.write_text(good + "\n[appservers\n")
    done = lbctl("--config", site.config, "status")
    assert (done.returncode, " OK " in done.stdout) == (0, True), done.stderr
    assert "not TOML" in done.stderr
    done = lbctl("--config", site.config, "restart")
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1].startswith(f"lbctl: {site.config}: not TOML")
    site.config.write_text(good)
    site.end()
