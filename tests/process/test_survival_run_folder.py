"""The run folder beneath a running monitor: what others delete, edit or take, and what it does without its keys."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest
from monitor_fixture import Site, processes, wait_for
from survival_stage import children, crash, identities, restart, state

from monitor.contract.client import ask
from tests.folders import delete

STRANGER = """
import socket, sys
listener = socket.socket(fileno=int(sys.argv[1]))
while True:
    connection, _ = listener.accept()
    connection.recv(9999)
    connection.sendall(b"HTTP/1.1 200 OK\\r\\nContent-Length: 2\\r\\nConnection: close\\r\\n\\r\\nhi")
    connection.close()
"""


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
    delete(site.run_folder)
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
    site.settings("monitor", probe_timeout=2.0)  # the other one has to answer in it
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
