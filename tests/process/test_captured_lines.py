"""What AppServers say comes out once, tagged, whoever is killed; and nobody waits for it."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import time
from pathlib import Path

import pytest
from monitor_fixture import Site, wait_for

from monitor.contract.client import ask

FORKED = """
def forked():
    if not os.fork():
        print("printed by a child")
        os._exit(0)
    os.wait()
def flood():
    import threading, time
    def run():
        while os.path.exists("flood"):
            os.write(1, b"the flood, line 1 of many\\n" * 4000 + b"%d\\n" % time.monotonic_ns())
            time.sleep(0.002)  # 50 MB/s
    threading.Thread(target=run).start()
"""


def logs(site: Site) -> Path:
    return site.run_folder / "logs"


@pytest.mark.parametrize("preload", [False, True])
def test_each_line_comes_once_whoever_is_killed(site: Site, preload: bool) -> None:
    site.settings("appservers", servers=1, preload=preload)
    site.write_application(f"print('printed at import')\n{FORKED}")
    site.up()
    site.wait_said(f"AppServer {'template' if preload else 0}: printed at import")
    site.eval(0, "forked()")
    site.eval(0, "sys.stderr.write('<4>to standard error\\n')")
    os.kill(site.watchers()[0], signal.SIGKILL)
    site.eval(0, "print('while the watcher is dead')")
    site.wait_said("AppServer 0: while the watcher is dead")
    assert (
        0 < site.said.find("AppServer 0: printed by a child\n") < site.said.find("AppServer 0: to standard error\n")
    )
    assert site.monitor is not None
    site.monitor.kill()
    site.monitor.wait()
    site.eval(0, "print('while the monitor is dead')")
    site.up()
    site.wait_said("AppServer 0: while the monitor is dead")
    site.eval(0, "print('last words', end='', flush=True)")
    with contextlib.suppress(ConnectionError):
        site.eval(0, "__import__('ctypes').string_at(0)")
    site.wait_said("AppServer 0: last wordsFatal Python error: Segmentation fault")
    site.wait_ok()
    site.eval(0, "print('what is said at the end', end='')")
    site.end()
    assert "AppServer 0: what is said at the end\n" in site.said
    for text in ("by a child", "standard error", "watcher is dead", "monitor is dead"):
        assert site.said.count(text) == 1, text
    assert site.said.count("printed at import") == 2, "by the AppServers, or by the templates"
    names = sorted(path.name.partition(".")[0] for path in logs(site).iterdir())
    assert names == ["0", "0", "forwarded", *(["template"] * 2 if preload else [])]
    status, shown = site.lbctl("log", "0", "-n", "1000")  # a fault names the frames of all threads
    assert status == 0
    assert shown.splitlines()[-1] == "what is said at the end"
    assert "last wordsFatal Python error: Segmentation fault" in shown
    assert site.lbctl("log", "0", "-n", "1")[1].splitlines()[1:] == ["what is said at the end"]
    assert site.lbctl("log", "7") == (1, f"lbctl: {logs(site)} has no lines of slot 7")


def test_lines_go_to_a_file_that_is_moved_away_and_the_format_changes(site: Site) -> None:
    site.settings("appservers", servers=1)
    site.settings("log", file="app.log")
    site.up()
    file = site.folder / "app.log"
    site.eval(0, "print('one')")
    site.wait(lambda: file.exists() and " info AppServer 0." in file.read_text(), "it is in the file")
    file.rename(site.folder / "app.log.1")
    site.eval(0, "print('<3>two')")
    site.wait(lambda: file.exists() and file.read_text().endswith(": two\n"), "it is in the new file")
    assert "error AppServer 0." in file.read_text()
    site.settings("log", format="json")
    site.wait_order("restart")
    site.wait_said('"program": "lbmonitor", "text": "release: every AppServer has been replaced"')
    slot = site.ok[0].identity.slot
    site.eval(slot, "print('three')")
    site.wait(lambda: '"text": "three"' in file.read_text(), "it is in the file")
    told = json.loads(file.read_text().splitlines()[-1])
    assert (told["level"], told["slot"], told["generation"]) == ("info", slot, site.ok[0].identity.generation)
    assert "AppServer" not in "".join(line for line in site.said.splitlines() if not line.startswith(("lbm", "{")))
    site.end()


def test_a_flood_keeps_nobody_waiting_and_fills_no_disk(site: Site) -> None:
    site.settings("appservers", servers=2)
    site.write_application(FORKED)
    site.up()
    flooded = site.app_folder / "flood"
    flooded.touch()
    site.eval(0, "flood()")
    most, until = 0, time.monotonic() + 2.0
    while time.monotonic() < until:
        # Who waited for the end of the flood would wait for ever.
        assert ask(site.control)["appservers"][1]["state"] == "OK"
        most = max([most, *(path.stat().st_blocks * 512 for path in logs(site).iterdir())])
        time.sleep(0.02)
    flooded.unlink()
    site.eval(1, "print('of another one')")
    site.wait_said("AppServer 1: of another one")
    site.wait_said("bytes of its log lost: more was written than is forwarded")
    assert most < 64 << 20
    small = 1 << 20
    wait_for(lambda: all(path.stat().st_blocks * 512 < small for path in logs(site).iterdir()), "all is given back")
    assert "FAILING" not in site.said
    site.end()


def test_without_a_monitor_the_file_stays_small(site: Site) -> None:
    site.settings("appservers", servers=1)
    site.write_application(FORKED)
    site.up()
    assert site.monitor is not None
    site.monitor.kill()
    site.monitor.wait()
    wait_for(lambda: not site.watchers(), "the watcher has ended")
    flooded = site.app_folder / "flood"
    flooded.touch()
    site.eval(0, "flood()")
    file = next(path for path in logs(site).iterdir() if path.name.startswith("0."))
    wait_for(lambda: file.stat().st_size > 64 << 20, "it is flooded")
    flooded.unlink()
    wait_for(lambda: file.stat().st_blocks * 512 <= 9 << 20, "it is small")
    site.up()
    site.wait_said("bytes of its log lost: more was written than is forwarded")
    site.end()


def test_where_there_can_be_no_file_lines_are_not_lost(site: Site) -> None:
    site.settings("appservers", servers=1)
    site.run_folder.mkdir()
    (site.run_folder / "logs").write_text("in the way")
    site.up()
    site.eval(0, "print('untagged')")
    site.wait_said("\nuntagged\n")
    assert "File exists: lines of new AppServers go to the monitor's standard error, untagged" in site.said
    site.end()
