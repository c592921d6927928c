"""The monitor may die; its AppServers do not, and the next monitor adopts them."""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest
from monitor_fixture import Site, processes, wait_for

from lbadaptor.contract.address import Identity
from monitor.contract.client import NoAnswer, ask

STRANGER = """
import socket, sys
listener = socket.socket(fileno=int(sys.argv[1]))
while True:
    connection, _ = listener.accept()
    connection.recv(9999)
    connection.sendall(b"HTTP/1.1 200 OK\\r\\nContent-Length: 2\\r\\nConnection: close\\r\\n\\r\\nhi")
    connection.close()
"""

GIL_HOG = """
def hog(seconds):
    import re, time
    until = time.monotonic() + seconds
    pattern, text = re.compile("(a+)+$"), "a" * 23 + "b"
    while time.monotonic() < until:
        pattern.match(text)  # a match lets nobody else run
"""

PATIENT = {"probe_timeout": 5.0}
"""An AppServer that no file records is known by its answers to probes, which come late on a busy machine."""


def crash(site: Site) -> None:
    """SIGKILL for the monitor."""
    assert site.monitor is not None
    site.monitor.kill()
    site.monitor.wait()
    wait_for(lambda: not site.watchers(), "the watcher has ended with the arbiter")


def identities(site: Site) -> set[Identity]:
    return {entry.identity for entry in site.table.entries}


def restart(site: Site, adopted: int) -> None:
    site.start()
    site.wait(lambda: site.said.count("is adopted") == adopted, f"{adopted} AppServers are adopted")
    site.wait_control()


def state(site: Site) -> Path:
    return site.run_folder / "state.json"


def test_a_new_monitor_goes_on_as_if_nothing_had_been(site: Site) -> None:
    site.up()
    before, pids = identities(site), site.pids()
    sid = site.get(0, "/login").cookies["sid"]
    crash(site)
    assert site.get(0, "/", sid).content["pid"] == pids[0], "it serves on"
    assert identities(site) == before
    restart(site, adopted=2)
    assert identities(site) == before
    assert site.pids() == pids
    site.wait(lambda: [entry.sessions for entry in site.table.entries] == [1, 0], "the sessions are counted")
    site.end()
    assert not processes(site.mark)
    assert not state(site).exists()


def test_an_adopted_one_that_dies_is_replaced(site: Site) -> None:
    site.up()
    crash(site)
    restart(site, adopted=2)
    entry = site.entry(1)
    assert entry is not None
    os.kill(site.pids()[1], signal.SIGKILL)
    site.wait_reborn(entry)


def test_a_dying_one_is_adopted_as_such_and_leaves_after_its_last_session(site: Site) -> None:
    site.up()
    sid = site.get(0, "/login").cookies["sid"]
    site.wait_order("drain", 0)
    site.wait_states(s0="DYING", s1="OK", s2="OK")
    crash(site)
    restart(site, adopted=3)
    site.wait_states(s0="DYING", s1="OK", s2="OK")
    assert site.get(0).status == 421
    assert site.get(0, "/logout", sid).status == 200
    site.wait_states(s1="OK", s2="OK")


def test_without_a_channel_a_probe_reports_a_limit(site: Site) -> None:
    site.settings("appservers", max_requests=5)
    site.up()
    sid = site.get(0, "/login").cookies["sid"]
    crash(site)
    restart(site, adopted=2)
    for _ in range(5):
        site.get(0, "/", sid)
    site.wait_states(s0="DYING", s1="OK", s2="OK")


def test_one_that_became_ready_while_there_was_no_monitor_is_adopted(site: Site) -> None:
    go = site.folder / "go"
    site.write_application(
        f"import os, time\nopen({str(site.folder)!r} + '/importing-' + str(os.getpid()), 'w').close()\n"
        f"while not os.path.exists({str(go)!r}): time.sleep(0.02)"
    )
    site.start()
    site.wait(lambda: len(list(site.folder.glob("importing-*"))) == 2, "both have their assignment")
    crash(site)
    go.touch()
    restart(site, adopted=2)
    site.wait_ok()
    assert site.said.count("starts: pid") == 2


@pytest.mark.parametrize("asked", [False, True], ids=["state.json", "address.text"])
def test_the_standby_stays_it_and_a_slow_start_goes_on(site: Site, asked: bool) -> None:
    site.settings("appservers", servers=1, standby=1, slow_start=60.0)
    site.settings("monitor", **PATIENT)
    site.start()

    def weights() -> dict[int, int]:
        return {entry.identity.slot: entry.weight for entry in site.ok}

    site.wait(lambda: weights().get(0) and weights().get(1) == 0, "slot 1 is the standby")
    old = site.entry(0)
    assert old is not None
    os.kill(site.pids()[0], signal.SIGKILL)  # a newcomer would be the standby, were there none yet
    site.wait_reborn(old)
    site.wait(lambda: 10 < weights()[0] < 100, "its weight has begun to rise")
    risen = weights()[0]
    crash(site)
    if asked:
        state(site).unlink()
    restart(site, adopted=2)
    site.wait(lambda: f"monitor {site.pid} " in site.text, "the new one has written")
    assert weights()[1] == 0
    assert risen <= weights()[0] < risen + 40


def test_killed_as_soon_as_address_text_is_written_it_takes_no_appserver_out_of_it(site: Site) -> None:
    code = (
        "import os, signal, sys\n"
        "from monitor.arbiter.files import address_text as publish\n"
        "from monitor import __main__\n"
        "write = publish.Publisher.publish\n"
        "def last_deed(self, entries):\n"
        "    write(self, entries)\n"
        "    if len(entries) == 2: os.kill(os.getpid(), signal.SIGKILL)\n"
        "publish.Publisher.publish = last_deed\n"
        "sys.exit(__main__.main())\n"
    )
    site.start(command=[sys.executable, "-B", "-I", "-c", code, "--config", str(site.config)])
    assert site.monitor is not None
    assert site.monitor.wait(20) == -signal.SIGKILL
    before = identities(site)
    site.start()
    site.wait(lambda: site.said.count("is adopted: OK") == 2, "both are adopted as what they are")
    site.wait_control()
    assert identities(site) == before


def test_an_appserver_without_handover_ends_by_itself(site: Site) -> None:
    """What was forked and not written down had no assignment: an intent without a pid is all that is left of it."""
    site.up()
    crash(site)
    content = json.loads(state(site).read_text())
    generation = content["last_generation"] + 10**6
    content["appservers"].append({**content["appservers"][0], "slot": 5, "generation": generation, "pid": 0})
    content["last_generation"] = generation
    state(site).write_text(json.dumps(content))
    restart(site, adopted=2)
    old = site.entry(0)
    assert old is not None
    os.kill(site.pids()[0], signal.SIGKILL)
    assert site.wait_reborn(old).identity.generation > generation, "no generation is used twice"


def test_a_reused_pid_is_not_taken_for_ours(site: Site) -> None:
    site.up()
    old = site.entry(0)
    assert old is not None
    crash(site)
    os.kill(site.pids()[0], signal.SIGKILL)
    wait_for(lambda: 0 not in site.pids(), "it is gone")
    content = json.loads(state(site).read_text())
    with subprocess.Popen(["sleep", "600"]) as stranger:
        content["appservers"][0]["pid"] = stranger.pid
        state(site).write_text(json.dumps(content))
        restart(site, adopted=1)
        site.wait_reborn(old)
        site.end()
        assert stranger.poll() is None
        stranger.kill()


def test_after_a_reboot_nothing_of_the_state_is_believed(site: Site) -> None:
    site.up()
    before = identities(site)
    crash(site)
    for pid in site.pids().values():
        os.kill(pid, signal.SIGKILL)
    wait_for(lambda: not site.pids(), "they are gone")
    content = json.loads(state(site).read_text())
    for known in content["appservers"]:
        known["pid"] = os.getpid()
    state(site).write_text(json.dumps({**content, "boot": "another"}))
    site.start()
    site.wait(lambda: len(site.ok) == 2 and not before & identities(site), "new ones are OK")
    assert "is adopted" not in site.said


@pytest.mark.parametrize("content", [None, b"", b"{", b'{"boot": 3}'])
def test_without_a_state_file_those_of_address_text_are_asked(site: Site, content: bytes | None) -> None:
    site.settings("monitor", **PATIENT)
    site.up()
    before, pids = identities(site), site.pids()
    crash(site)
    state(site).unlink()
    if content is not None:
        state(site).write_bytes(content)
    restart(site, adopted=2)
    assert (identities(site), site.pids()) == (before, pids)


def test_without_an_address_text_the_state_file_counts(site: Site) -> None:
    site.up()
    before, pids = identities(site), site.pids()
    crash(site)
    (site.run_folder / "address.text").unlink()
    restart(site, adopted=2)
    site.wait(lambda: identities(site) == before, "address.text is there again")
    assert site.pids() == pids


@pytest.mark.parametrize("lost", ["files", "folder"])
def test_without_any_file_they_are_found_at_their_sockets_or_ports(site: Site, lost: str) -> None:
    site.settings("monitor", **PATIENT)
    site.up()
    sid = site.get(0, "/login").cookies["sid"]
    before, pids = identities(site), site.pids()
    crash(site)
    for file in list(site.run_folder.iterdir()):
        if not file.is_dir():
            file.unlink()
    if lost == "folder":
        shutil.rmtree(site.run_folder)
    restart(site, adopted=2)
    site.wait(lambda: identities(site) == before, "address.text names them again")
    site.wait_control()
    assert site.pids() == pids
    assert site.get(0, "/", sid).status == 200
    site.end()
    assert not processes(site.mark)


def test_those_of_another_run_folder_are_left_alone_whatever_they_have_in_common(site: Site) -> None:
    """The same keys, the same ports, and another run folder, with and without a monitor of its own."""
    site.up()
    before, pids, first = identities(site), site.pids(), site.monitor
    assert first is not None
    mine, config = site.run_folder, site.config.read_text()
    site.sections["files"]["run_folder"] = "other"
    site.start()
    site.wait_states(s2="OK", s3="OK")
    site.end()
    assert site.lbctl("stop", "--all")[0] == 0
    assert first.poll() is None
    site.sections["files"]["run_folder"], site.monitor = "run", first
    site.config.write_text(config)
    assert site.run_folder == mine
    assert (identities(site), site.pids()) == (before, pids)
    site.end()


def test_stop_all_ends_them_without_any_file_too(site: Site) -> None:
    site.up()
    crash(site)
    shutil.rmtree(site.run_folder)
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


# The run folder.


def test_only_its_user_can_take_the_lock(site: Site) -> None:
    site.run_folder.mkdir(mode=0o755)
    if os.geteuid():
        pytest.skip("only root can be another user")
    folder = os.open(site.run_folder, os.O_RDONLY | os.O_DIRECTORY)
    code = f"import fcntl, time; fcntl.flock({folder}, fcntl.LOCK_EX); time.sleep(600)"
    command = [sys.executable, "-S", "-c", code]
    taker = subprocess.Popen(command, pass_fds=[folder], user=65534, group=65534)
    os.close(folder)
    try:
        wait_for(lambda: str(site.run_folder.stat().st_ino) in Path("/proc/locks").read_text(), "it is locked")
        site.up()
        assert (site.run_folder / "monitor.pid").stat().st_mode & 0o777 == 0o600
        site.end()
    finally:
        taker.kill()
        taker.wait()


@pytest.mark.parametrize("what", ["run folder", "sockets", "monitor.pid"])
def test_what_is_deleted_of_the_run_folder_is_made_again(site: Site, what: str) -> None:
    site.up()
    ask(site.control, "weight", 1, value=50)
    before, pids = identities(site), site.pids()
    names = {file.name for file in site.run_folder.iterdir()}
    path = site.run_folder if what == "run folder" else site.run_folder / what
    shutil.rmtree(path.rename(site.folder / "gone")) if path.is_dir() else path.unlink()
    site.wait(lambda: path.exists() and {file.name for file in site.run_folder.iterdir()} >= names, "it is all there")
    site.wait(lambda: identities(site) == before, "address.text names them")
    site.wait_control()
    assert (site.pids(), site.get(0).status) == (pids, 200)
    assert "another monitor" in site.refused(status=1)
    old = site.entry(0)
    assert old is not None
    os.kill(pids[0], signal.SIGKILL)
    site.wait_reborn(old)
    site.wait(lambda: site.knocks(0), "the new one listens at its Unix socket")
    site.end()


def test_a_monitor_whose_run_folder_another_one_has_writes_no_more_and_ends_no_appserver(site: Site) -> None:
    site.up()
    first, before, pids = site.monitor, identities(site), site.pids()
    assert first is not None
    os.kill(site.pid, signal.SIGSTOP)
    shutil.rmtree(site.run_folder)
    site.start()
    site.wait(lambda: site.said.count("is adopted") == 2, "another one has adopted them")
    site.wait_control()
    os.kill(first.pid, signal.SIGCONT)
    assert first.wait(20) == 1
    assert f"another monitor (pid {site.pid}) runs from {site.run_folder}: this one ends, and leaves" in site.said
    site.wait_control()
    assert (identities(site), site.pids()) == (before, pids)
    assert f"monitor {site.pid} " in site.text
    site.end()
    assert not processes(site.mark)


def test_a_hung_one_that_only_address_text_names_stays_there_until_it_answers(site: Site) -> None:
    site.settings("monitor", probe_timeout=0.2)
    site.up()
    before, pids = identities(site), site.pids()
    crash(site)
    state(site).unlink()
    os.kill(pids[0], signal.SIGSTOP)
    site.start()
    site.wait_said("slot 0 does not answer")
    site.wait(lambda: len(site.table.entries) == 3, "another one serves meanwhile")
    assert before < identities(site)
    os.kill(pids[0], signal.SIGCONT)
    site.wait_said("slot 0 is adopted")


def bound(listener: socket.socket, address: tuple[str, int]) -> bool:
    try:
        listener.bind(address)
    except OSError:
        return False
    return True


def test_another_program_on_the_port_is_not_adopted(site: Site) -> None:
    site.up()
    old = site.entry(0)
    assert old is not None
    crash(site)
    state(site).unlink()
    os.kill(site.pids()[0], signal.SIGKILL)
    wait_for(lambda: 0 not in site.pids(), "it is gone")
    with socket.socket() as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        wait_for(lambda: bound(listener, old.address), "its port is free")
        listener.listen()
        command = [sys.executable, "-c", STRANGER, str(listener.fileno())]
        served = subprocess.Popen(command, pass_fds=(listener.fileno(),))
    (site.folder / "run" / "sockets" / "0").unlink()  # it would answer that nothing listens there
    try:
        site.start()
        site.wait_states(s1="OK", s2="OK")
        assert "slot 0 has ended meanwhile: a stranger answers" in site.said
        assert "slot 0 is passed over" in site.said
    finally:
        served.kill()
        served.wait()


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
        site.wait_reborn(old)
        assert asked.poll() is None, "it still waits for the settings"
        said = asked.communicate(timeout=20)[1]
    assert "the settings could not be checked within 8 s" in said
    site.config.unlink()
    aside.rename(site.config)
    assert site.lbctl(order)[0] == 0
    site.wait_said({"restart": "release: every", "reexec": "is adopted"}[order])
    site.end()


def test_one_whose_key_is_gone_is_ended_and_reaped(site: Site) -> None:
    site.up()
    before = set(site.pids().values())
    (site.folder / "keys").write_text("k" * 43 + "\n")
    assert site.lbctl("reexec")[0] == 0
    site.wait(lambda: site.said.count("is ended because no adaptor can reach it") == 2, "both are ended")
    site.wait(lambda: not before & set(children(site.pid)), "and reaped: none is a zombie")
    site.wait(lambda: len(site.ok) == 2 and not before & set(site.pids().values()), "new ones serve")
    site.end()


def test_without_its_key_file_no_monitor_starts_beside_appservers_that_know_its_keys(site: Site) -> None:
    site.up()
    before, pids, keys = identities(site), site.pids(), site.folder / "keys"
    content = keys.read_text()
    keys.unlink()
    status, said = site.lbctl("reexec")
    assert (status, f"the key file {keys} is missing: put it back" in said) == (1, True), said
    crash(site)
    site.start()
    assert site.monitor is not None
    assert site.monitor.wait(20) == 1
    assert f"the key file {keys} is missing, and AppServers that were started with its keys still run" in site.said
    assert not keys.exists()
    assert (identities(site), site.pids()) == (before, pids), "they serve on"
    keys.write_text(content)
    restart(site, adopted=2)
    assert site.pids() == pids
    site.end()


def children(parent: int) -> list[int]:
    return [int(pid) for pid in Path(f"/proc/{parent}/task/{parent}/children").read_text().split()]


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


@pytest.mark.parametrize("edit", ["delete", "edit"])
def test_a_deleted_or_edited_address_text_is_written_again(site: Site, edit: str) -> None:
    site.up()
    before = identities(site)
    path = site.run_folder / "address.text"
    if edit == "delete":
        path.unlink()
    else:
        path.write_text(path.read_text().replace(" OK ", " FAILING "))
    site.wait(lambda: identities(site) == before and len(site.ok) == 2, "it says again what is so")


def test_a_monitor_that_was_stopped_for_long_ends_no_appserver(site: Site) -> None:
    site.up()
    pids = site.pids()
    watcher = site.watchers()[0]
    for pid in (site.pid, watcher):
        os.kill(pid, signal.SIGSTOP)
    with pytest.raises(subprocess.TimeoutExpired):
        site.monitor.wait(6)  # type: ignore[union-attr]
    for pid in (site.pid, watcher):
        os.kill(pid, signal.SIGCONT)
    site.wait_order("restart")
    assert "FAILING" not in site.said
    site.wait(lambda: len(site.ok) == 2 and not set(site.pids().values()) & set(pids.values()), "it goes on")


def test_a_starved_watcher_gets_no_appserver_ended(site: Site) -> None:
    site.up()
    pids = site.pids()
    watcher = site.watchers()[0]
    for _ in range(6):
        os.kill(watcher, signal.SIGSTOP)
        with pytest.raises(subprocess.TimeoutExpired):
            site.monitor.wait(1.2)  # type: ignore[union-attr]
        os.kill(watcher, signal.SIGCONT)
        with pytest.raises(subprocess.TimeoutExpired):
            site.monitor.wait(0.15)  # type: ignore[union-attr]
    site.wait_control()
    assert site.pids() == pids
    assert "hung" not in site.said


def test_one_that_computes_with_the_interpreter_lock_held_is_not_ended_a_stopped_one_is(site: Site) -> None:
    site.write_application(GIL_HOG)
    module = site.app_folder / "shop.py"
    module.write_text(
        module.read_text().replace(
            '    elif page == "/where":', '    elif page == "/hog":\n        hog(5)\n    elif page == "/where":'
        )
    )
    site.settings("monitor", probe_timeout=0.2, failing_limit=1.0)
    site.up()
    pids = site.pids()
    assert site.get(0, "/hog").content["pid"] == pids[0]
    assert site.pids() == pids
    assert "hung" not in site.said
    old = site.entry(1)
    assert old is not None
    os.kill(pids[1], signal.SIGSTOP)
    site.wait(lambda: pids[1] not in site.pids().values(), "the stopped one is ended")
    assert site.pids()[0] == pids[0]
