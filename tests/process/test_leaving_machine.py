"""A whole machine is drained, and comes back: against a real monitor."""

from __future__ import annotations

import json
import os
import signal
from typing import Any

from monitor_fixture import Site
from survival_stage import crash, restart

from lbadaptor.contract.settings.snapshot import read
from monitor.contract.client import ask


def machine(site: Site) -> dict[str, Any]:
    return dict(ask(site.control)["machine"])


def told_adaptors(site: Site) -> bool:
    return read(site.run_folder / "settings.json").leaving


def test_a_machine_is_drained_and_comes_back(site: Site) -> None:
    site.settings("machine", number=7)
    assert site.lbctl("key", "make")[0] == 0
    site.up()
    sid = site.get(0, "/login").cookies["sid"]
    site.wait(lambda: machine(site)["sessions"] == 1, "its session is counted")
    assert (machine(site)["number"], machine(site)["leaving"], told_adaptors(site)) == (7, False, False)
    serial = site.table.serial
    status, said = site.lbctl("drain", "--all", "--wait", "0.1")
    assert status == 1, said
    assert said.startswith(
        "this machine is leaving: nothing in it is replaced until `lbctl undrain --all`; it has 1 "
    )
    assert "[machine] has no front and no agent: no balancer is told" in said
    site.wait(lambda: site.table.serial > serial, "adaptors learn that something has changed")
    assert told_adaptors(site)
    assert "machine 7 is leaving" in site.lbctl("status")[1]
    status, said = site.lbctl("check")
    assert (status, "this machine is leaving" in said) == (0, True), said

    os.kill(site.pids()[1], signal.SIGKILL)
    site.wait(lambda: [one["slot"] for one in ask(site.control)["appservers"]] == [0], "it is not replaced")
    assert site.get(0, "/", sid).status == site.get(0, "/").status == 200, "holders and new visitors are served"
    for words in (("restart",), ("restart", "0")):
        status, said = site.lbctl(*words)
        assert (status, "`lbctl undrain --all` first" in said) == (1, True), said

    crash(site)
    restart(site, adopted=1)
    site.wait(lambda: machine(site)["sessions"] == 1, "the session is counted again")
    assert machine(site) | {"longest_session": 0} == {
        "number": 7,
        "leaving": True,
        "sessions": 1,
        "longest_session": 0,
        "empty": False,
    }
    site.get(0, "/logout", sid)
    status, said = site.lbctl("drain", "--all", "--wait", "30")
    assert (status, said.splitlines()[-1]) == (0, "this machine is empty: it can be switched off")
    assert machine(site)["empty"]
    assert [entry.state.value for entry in site.table.entries] == ["OK"]

    status, said = site.lbctl("undrain", "--all")
    assert (status, said) == (0, "this machine takes new visitors again")
    site.wait_ok()
    assert not told_adaptors(site)
    assert json.loads((site.run_folder / "runtime.json").read_text()) == {}
    events = [json.loads(line) for line in site.lbctl("events", "--json")[1].splitlines()]
    told = [(one["event"], "ordered by" in one.get("why", "")) for one in events if "machine" in one["event"]]
    assert told == [("machine leaving", True), ("machine empty", False), ("machine stays", True)]
    site.end()
