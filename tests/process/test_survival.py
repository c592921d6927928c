"""The monitor may die; its AppServers do not, and the next monitor adopts them."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys

import pytest
from monitor_fixture import Site, processes, wait_for
from survival_stage import crash, identities, restart, state

from tests.folders import delete

GIL_HOG = """
def hog(seconds):
    import re, time
    until = time.monotonic() + seconds
    pattern, text = re.compile("(a+)+$"), "a" * 23 + "b"
    while time.monotonic() < until:
        pattern.match(text)  # a match lets nobody else run
"""


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
    site.up()
    sid = site.get(0, "/login").cookies["sid"]
    before, pids = identities(site), site.pids()
    crash(site)
    for file in list(site.run_folder.iterdir()):
        if not file.is_dir():
            file.unlink()
    if lost == "folder":
        delete(site.run_folder)
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
    site.settings("monitor", probe_timeout=0.4, failing_limit=4.0)  # less than it lasts
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
            '    elif page == "/where":', '    elif page == "/hog":\n        hog(6)\n    elif page == "/where":'
        )
    )
    site.settings("monitor", probe_timeout=0.2, failing_limit=4.5)  # less than it computes for
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
