"""Preload: the template process, the AppServers that are forked from it, and what becomes of both."""

from __future__ import annotations

import contextlib
import os
import signal
from pathlib import Path

import pytest
from monitor_fixture import Site, processes, wait_for

from lbadaptor.contract.address import Entry
from monitor.contract.client import ask

COUNTED = """
import random, time
with open("imports", "a") as file: file.write("x")
"""
"""An application that tells how often it was imported."""


@pytest.fixture
def preload(site: Site) -> Site:
    site.settings("appservers", preload=True)
    site.write_application(COUNTED)
    return site


def imports(site: Site) -> int:
    path = site.app_folder / "imports"
    return len(path.read_text()) if path.exists() else 0


def template(site: Site) -> int:
    """The template's pid, as soon as there is one that can fork."""

    def look() -> int:
        pid = ask(site.control)["template"]
        return int(pid) if pid and named(pid) == "template" else 0

    site.wait_control()
    return site.wait(look, "there is a template")


def appservers(site: Site) -> dict[int, int]:
    """The AppServers' pids by slot, as soon as the status tells of all that address.text names."""

    def look() -> dict[int, int]:
        told = {one["generation"]: one for one in ask(site.control)["appservers"]}
        named = [one.identity.generation for one in site.table.entries]
        found = {told[one]["slot"]: told[one]["pid"] for one in named if one in told and told[one]["pid"]}
        return found if len(found) == len(named) else {}

    site.wait_control()
    return site.wait(look, "the status tells of all")


def named(pid: int) -> str:
    with contextlib.suppress(OSError):
        return Path(f"/proc/{pid}/comm").read_text().strip()
    return ""


def stat(pid: int) -> list[str]:
    """State, parent, process group, session …"""
    with contextlib.suppress(OSError):
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return ["gone"]


def children(pid: int) -> dict[int, str]:
    """The children of a process, and the state of each."""
    folders = (int(folder.name) for folder in Path("/proc").iterdir() if folder.name.isdigit())
    return {child: found[0] for child in folders if (found := stat(child))[1:2] == [str(pid)]}


def memory(pid: int) -> dict[str, int]:
    """Bytes, by the names of proc_pid_smaps(5)."""
    lines = (line.split() for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()[1:])
    return {words[0].rstrip(":"): int(words[1]) * 1024 for words in lines}


def entry(site: Site, slot: int) -> Entry:
    found = site.entry(slot)
    assert found is not None
    return found


def test_appservers_are_forked_from_a_template_that_has_imported_the_application(preload: Site) -> None:
    preload.up()
    born = template(preload)
    assert imports(preload) == 1
    found = appservers(preload)
    assert children(preload.pid).keys() == {born, *preload.watchers(), *found.values()}
    for slot, pid in found.items():
        assert named(pid) == f"AppServer {slot}"
        assert preload.eval(slot, "os.getpid()") == pid
        # of a session and a group of its own
        assert stat(pid)[2:4] == [str(pid), str(pid)]
    assert preload.eval(0, "random.random()") != preload.eval(1, "random.random()")
    assert preload.eval(0, "sys.modules['threading'].main_thread().is_alive()")
    preload.end()
    assert not processes(preload.mark)


def sockets_of(preload: Site, pid: int) -> tuple[set[str], list[str]]:
    """The sockets that a process has open, but for those that it has accepted, and what else of its own."""
    rows = [line.split() for line in Path("/proc/net/unix").read_text().splitlines()[1:]]
    connected = "03"
    accepted = {f"socket:[{row[6]}]" for row in rows if row[5] == connected and str(preload.folder) in row[-1]}
    links = []
    for path in Path(f"/proc/{pid}/fd").iterdir():
        with contextlib.suppress(FileNotFoundError):  # a probe's connection, which was closed meanwhile
            links.append(os.readlink(path))
    links = [link for link in links if link not in ("/dev/null", "anon_inode:[eventfd]")]
    links = [link for link in links if not link.startswith(f"/proc/{pid}/")]  # what it looks at itself by
    sockets = {link for link in links if link.startswith("socket:")}
    return sockets - accepted, sorted(set(links) - sockets)


def test_nothing_of_the_template_or_the_arbiter_leaks_into_them(preload: Site) -> None:
    preload.up()
    own = {*map(os.readlink, Path(f"/proc/{template(preload)}/fd").iterdir())} - {"/dev/null"}
    (lines,) = (preload.run_folder / "logs").glob("template.*")
    own.remove(str(lines))
    assert len(own) == 1, "a template has its channel, the file for its lines, and nothing else"
    seen: set[str] = set()
    for slot, pid in appservers(preload).items():
        # its channel and its two listeners; a probe's connection may come and go while this looks
        wait_for(lambda pid=pid: len(sockets_of(preload, pid)[0]) == 3, "no other socket")
        sockets, others = sockets_of(preload, pid)
        (lines,) = (preload.run_folder / "logs").glob(f"{slot}.*")
        # the file for its lines, the gateway's poll and timer
        assert others == [str(lines), "anon_inode:[eventpoll]", "anon_inode:[timerfd]"]
        assert not sockets & (own | seen)
        seen |= sockets
    preload.end()


def test_memory_that_the_application_fills_at_import_is_shared(preload: Site) -> None:
    size = 64 << 20
    preload.write_application(f"blob = os.urandom({size})")
    preload.settings("appservers", servers=3)
    preload.up()
    for slot, pid in appservers(preload).items():
        assert preload.eval(slot, "len(blob)") == size
        found = memory(pid)
        assert found["Rss"] > size
        assert found["Pss"] < size * 0.6
        assert found["Private_Dirty"] < size * 0.2
    preload.end()


def test_one_that_was_killed_is_replaced_from_the_template(preload: Site) -> None:
    preload.up()
    born = template(preload)
    old = entry(preload, 0)
    spawned = preload.get(0, "/child").content["pid"]
    os.kill(appservers(preload)[0], signal.SIGKILL)
    preload.wait_reborn(old)
    assert (imports(preload), template(preload)) == (1, born)
    assert "slot 0 (OK) was ended by SIGKILL" in preload.said
    wait_for(lambda: stat(spawned)[0] == "gone", "what it had started has ended, and is reaped")
    preload.end()


def test_the_status_of_one_that_exits_by_itself_is_logged(preload: Site) -> None:
    preload.up()
    old = entry(preload, 1)
    with contextlib.suppress(Exception):
        preload.eval(1, "os._exit(7)")
    preload.wait_said("slot 1 (OK) exited with status 7")
    preload.wait_reborn(old)
    preload.end()


def test_what_daemons_leave_is_reaped(preload: Site) -> None:
    preload.up()
    daemon = "subprocess.Popen(['setsid', '--fork', 'sh', '-c', 'echo $$; read x < gate'], stdout=-1, text=True)"
    os.mkfifo(preload.app_folder / "gate")
    pid = int(preload.eval(0, f"{daemon}.stdout.readline()"))
    wait_for(lambda: stat(pid)[1] == str(preload.pid), "the arbiter has it")
    (preload.app_folder / "gate").write_text("end\n")
    wait_for(lambda: stat(pid)[0] == "gone", "it is reaped")
    preload.end()


def test_a_release_makes_a_new_template_with_the_new_code(preload: Site) -> None:
    preload.up()
    first = template(preload)
    sid = preload.get(0, "/login").cookies["sid"]
    preload.write_application(COUNTED + "release = 2\n")
    assert preload.lbctl("restart", "--no-wait")[0] == 0
    preload.wait(lambda: ask(preload.control)["release"] == "" and preload.states.get(0) == "DYING", "it is released")
    second = template(preload)
    assert second != first
    wait_for(lambda: stat(first)[0] == "gone", "the old one is dead, and is reaped")
    assert imports(preload) == 2
    ok = [one.identity.slot for one in preload.ok]
    assert [preload.eval(slot, "release") for slot in ok] == [2, 2]
    assert preload.get(0, "/", sid=sid).status == 200, "the holder of a session serves on"
    preload.end()


def test_a_template_that_cannot_import_stops_the_release(preload: Site) -> None:
    preload.settings("monitor", backoff_limit=0.2)
    preload.up()
    before = appservers(preload)
    preload.write_application("import nothing_of_that_name")
    assert preload.lbctl("restart", "--no-wait")[0] == 0
    preload.wait_said(
        "release: failed: slot 2: shop:app: ModuleNotFoundError: No module named 'nothing_of_that_name'"
    )
    why = "failed: slot 2: shop:app: ModuleNotFoundError"
    preload.wait(lambda: why in ask(preload.control)["release"], "the status says so")
    assert preload.states == {0: "OK", 1: "OK"}
    assert {slot: appservers(preload)[slot] for slot in before} == before
    preload.write_application(COUNTED)
    preload.wait(lambda: preload.states.keys() == {2, 3}, "it goes on by itself")
    preload.end()


def test_an_application_that_starts_threads_is_imported_by_each_and_that_is_said(preload: Site) -> None:
    thread = (
        "import threading\nthreading.Thread(target=threading.Event().wait, name='refresher', daemon=True).start()\n"
    )
    preload.write_application(COUNTED + thread)
    preload.up()
    preload.wait_said("preload has NO effect: the application starts threads when it is imported (refresher)")
    assert imports(preload) == 3
    preload.wait(lambda: ask(preload.control)["template"] is None, "there is no template")
    alive = "[one.name for one in threading.enumerate() if one.name == 'refresher']"
    assert preload.eval(0, alive) == ["refresher"]
    preload.write_application(COUNTED)
    assert preload.lbctl("restart", "--no-wait")[0] == 0
    template(preload)  # tried again
    preload.wait(lambda: preload.states.keys() == {2, 3}, "it is released")
    preload.end()


def test_sockets_that_all_would_share_are_said(preload: Site) -> None:
    preload.write_application("import socket\npair = socket.socketpair()\n")
    preload.up()
    preload.wait_said("AppServer template: the application has opened 2 sockets at import: ALL AppServers share")
    preload.end()


def test_what_the_application_says_at_import_is_said_once(preload: Site) -> None:
    preload.write_application("print('hello of the import')")
    preload.up()
    preload.end()
    assert preload.said.count("hello of the import") == 1


def test_a_template_that_dies_costs_no_appserver_and_gets_a_successor(preload: Site) -> None:
    preload.up()
    born, before = template(preload), preload.text.splitlines()[1:]
    os.kill(born, signal.SIGKILL)
    preload.wait(lambda: template(preload) != born, "there is another")
    preload.wait(lambda: imports(preload) == 2, "it has imported the application")
    assert [line.split()[0] for line in preload.text.splitlines()[1:]] == [line.split()[0] for line in before]
    old = entry(preload, 0)
    os.kill(appservers(preload)[0], signal.SIGKILL)
    preload.wait_reborn(old)
    assert imports(preload) == 2
    preload.end()


def test_a_template_that_hangs_is_ended_and_another_tried(preload: Site) -> None:
    preload.settings("monitor", start_timeout=4.0, backoff_limit=0.2)  # the next one has to be ready in it
    preload.up()
    born = template(preload)
    os.kill(born, signal.SIGSTOP)
    old = entry(preload, 0)
    os.kill(appservers(preload)[0], signal.SIGKILL)
    preload.wait_said("the template was not ready to fork in time")
    preload.wait_reborn(old)
    wait_for(lambda: stat(born)[0] == "gone", "it is dead, and is reaped")
    preload.end()


def test_a_template_that_never_ends_its_import_is_ended(preload: Site) -> None:
    preload.settings("monitor", start_timeout=0.5, backoff_limit=0.2)
    os.mkfifo(preload.app_folder / "gate")
    preload.write_application("open('gate').read()")
    preload.start()
    preload.wait_said("slot 0 does not get ready: SIGKILL")
    preload.wait_said("the template was not ready to fork in time")
    preload.settings("monitor", start_timeout=15.0)
    preload.write_application(COUNTED)
    preload.wait_order("restart")
    preload.wait_ok()
    preload.end()


def test_an_end_does_not_wait_for_the_templates_import(preload: Site) -> None:
    os.mkfifo(preload.app_folder / "gate")
    preload.write_application("open('gate').read()")
    preload.start()
    preload.wait_said("the template starts")
    preload.end()
    assert not processes(preload.mark)


def test_appservers_outlive_the_monitor_and_its_template_does_not(preload: Site) -> None:
    preload.up()
    born, before = template(preload), appservers(preload)
    assert preload.monitor is not None
    os.kill(preload.pid, signal.SIGKILL)
    preload.monitor.wait()
    wait_for(lambda: stat(born)[0] in ("gone", "Z"), "the template has ended by itself")
    assert {preload.eval(slot, "os.getpid()") for slot in before} == set(before.values())
    preload.start()
    preload.wait_said("slot 1 is adopted: OK")
    preload.wait_ok()
    preload.wait_control()
    assert appservers(preload) == before
    old = entry(preload, 0)
    os.kill(before[0], signal.SIGKILL)
    preload.wait_reborn(old)
    assert template(preload) != born
    assert imports(preload) == 2
    preload.end()
    assert not processes(preload.mark)


def test_a_monitor_that_is_upgraded_in_place_stays_their_parent(preload: Site) -> None:
    preload.up()
    born, before = template(preload), appservers(preload)
    preload.wait_order("reexec")
    preload.wait_said("slot 1 is adopted: OK")
    preload.wait_control()
    wait_for(lambda: stat(born)[0] == "gone", "the template has ended")
    assert appservers(preload) == before
    old = entry(preload, 0)
    os.kill(before[0], signal.SIGKILL)
    preload.wait_said("slot 0 (OK) was ended by SIGKILL")  # which only a parent is told
    preload.wait_reborn(old)
    assert not [state for state in children(preload.pid).values() if state == "Z"]
    preload.end()
    assert not processes(preload.mark)


def test_a_port_in_use_is_passed_over(preload: Site) -> None:
    import socket

    with socket.socket() as squatter:
        squatter.bind(("127.0.0.1", preload.base_port))
        squatter.listen()
        preload.start()
        preload.wait_states(s1="OK", s2="OK")
    assert "slot 0 is passed over" in preload.said
    assert imports(preload) == 1
    preload.end()


@pytest.mark.parametrize("before", [True, False])
def test_preload_is_turned_on_and_off_by_a_release(preload: Site, before: bool) -> None:
    preload.settings("appservers", preload=before)
    preload.up()
    preload.wait(lambda: bool(ask(preload.control)["template"]) is before, "there is a template, or none")
    preload.settings("appservers", preload=not before)
    assert preload.lbctl("restart", "--no-wait")[0] == 0
    preload.wait(lambda: preload.states.keys() == {2, 3}, "it is released")
    preload.wait(lambda: bool(ask(preload.control)["template"]) is not before, "there is none, or one")
    preload.end()
