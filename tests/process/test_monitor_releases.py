"""A real monitor: limits, drains and releases."""

from __future__ import annotations

import os
import signal
import socket
import sys

import pytest
from monitor_fixture import PATIENCE, Site
from monitor_processes import available

from lbadaptor.contract.address import parse
from lbadaptor.contract.settings.snapshot import read
from monitor.contract.client import NoAnswer, ask
from tests.ports import held_ports


def test_past_its_limit_it_is_replaced_first_and_leaves_after_its_last_session(site: Site) -> None:
    site.settings("appservers", servers=1, max_requests=3)
    site.write_application("import time; time.sleep(0.1 if os.path.exists('slow') else 0)")
    site.up()
    (site.app_folder / "slow").touch()
    history = [site.states]
    sid = site.get(0, "/login").cookies["sid"]
    for _ in range(2):
        site.get(0, sid=sid)

    def replaced() -> bool:
        states = site.states
        if states != history[-1]:
            history.append(states)
        return states == {0: "DYING", 1: "OK"}

    site.wait(replaced, "it is replaced, then drained")
    assert all("OK" in states.values() for states in history), history
    assert history[0] == {0: "OK"}
    assert site.get(0, sid=sid).status == 200
    site.wait(lambda: site.get(0).status == 421, "it has got the order")
    assert site.get(0, "/logout", sid=sid).status == 200
    site.wait_states(s1="OK")
    site.wait(lambda: list(site.pids()) == [1], "it has ended")
    for line in ("slot 0 is past its limit (requests)", "slot 0 is DYING (limit)", "slot 0 has no session left"):
        assert line in site.said
    site.wait_said("slot 0 (STOPPING) exited after")
    site.end()


def test_drain_and_undrain(site: Site) -> None:
    site.up()
    sid = site.get(1, "/login").cookies["sid"]
    site.wait_control()
    assert site.lbctl("drain", "1") == (0, "slot 1 will be drained when its replacement is up")
    site.wait_states(s0="OK", s1="DYING", s2="OK")
    site.wait(lambda: set(available(site)) == {"__PRT__", "0", "2"}, "it gets no new visitors")
    site.wait(lambda: site.get(1).status == 421, "it takes no new visitors")
    assert site.get(1, sid=sid).status == 200
    assert site.lbctl("undrain", "1") == (0, "slot 1 is OK again")
    # Somebody else leaves, and has no session, so it is gone at once.
    site.wait(lambda: sorted(site.states.values()) == ["OK", "OK"] and site.states.get(1) == "OK", "it is OK again")
    site.wait(lambda: site.get(1).status == 200, "it takes new visitors again")
    site.wait(lambda: "1" in available(site), "it gets new visitors again")
    site.end()


def test_it_has_left_address_text_before_it_is_ordered_to_stop(site: Site) -> None:
    # An AppServer that keeps what address.text says when its order comes, and a monitor that writes slowly.
    site.write_application(
        """
import signal
_signal = signal.signal
def keep(number, handler):
    def handle(*what):
        if number == signal.SIGTERM:
            with open("../run/address.text") as file, open("seen", "a") as seen:
                seen.write(file.read())
        handler(*what)
    return _signal(number, handle)
signal.signal = keep
"""
    )
    code = (
        "import sys, time\n"
        "from monitor.arbiter.files import address_text as publish\n"
        "from monitor import __main__\n"
        "write = publish.Publisher.publish\n"
        "publish.Publisher.publish = lambda self, entries: (time.sleep(0.2), write(self, entries))\n"
        "sys.exit(__main__.main())\n"
    )
    site.settings("appservers", servers=1)
    site.start(command=[sys.executable, "-B", "-I", "-c", code, "--config", str(site.config)])
    site.wait_ok()
    site.wait_order("drain", 0)
    site.wait(lambda: list(site.pids()) == [1], "it has ended")
    (slot,) = (entry.identity.slot for entry in parse((site.app_folder / "seen").read_text()).entries)
    assert slot == 1
    (site.app_folder / "seen").unlink()
    site.end()
    assert parse((site.app_folder / "seen").read_text()).entries == ()


@pytest.mark.parametrize("way", ["lbctl restart", "SIGHUP"])
def test_a_release_replaces_everybody(site: Site, way: str) -> None:
    site.up()
    sid = site.get(0, "/login").cookies["sid"]
    old = {entry.identity for entry in site.ok}
    site.write_application("assert True, 'a new release'")
    if way == "SIGHUP":
        os.kill(site.pid, signal.SIGHUP)
    else:
        site.wait_control()
        assert site.lbctl("restart", "--no-wait") == (0, "replacing 2 AppServers, 1 at a time")

    def rolled() -> bool:
        assert len(site.ok) >= 2, "fewer are OK than before"
        return len(site.ok) == 2 and not old & {entry.identity for entry in site.ok}

    site.wait(rolled, "everybody was replaced")
    site.wait_said("release: every AppServer has been replaced")
    site.wait(lambda: site.states.get(0) == "DYING" and len(site.states) == 3, "only the one with a session stays")
    assert site.get(0, sid=sid).status == 200
    site.end()


def test_a_release_that_does_not_start_leaves_the_old_ones_serving(site: Site) -> None:
    site.settings("monitor", backoff_limit=0.2)
    site.up()
    before = site.pids()
    site.write_application("raise RuntimeError('a bad release')")
    site.wait_order("restart")
    site.wait(lambda: site.said.count("cannot start: shop:app: RuntimeError") >= 3, "it was tried several times")
    assert site.said.count("Traceback") == 1
    assert site.states == {0: "OK", 1: "OK"}
    assert before.items() <= site.pids().items()
    site.write_application()
    site.wait_said("release: every AppServer has been replaced")
    assert not set(before.values()) & {site.pids()[entry.identity.slot] for entry in site.ok}
    site.end()


def test_settings_that_cannot_be_are_no_release(site: Site) -> None:
    site.settings("appservers", servers=1)
    site.up()
    before = site.pids()
    site.wait_control()
    site.settings("files", run_folder="elsewhere")
    with pytest.raises(NoAnswer, match=r"a change in \[files\] needs a restart of the monitor"):
        ask(site.folder / "run" / "control.sock", "restart")
    site.settings("files", run_folder="run")
    site.settings("machine", number=7)
    with pytest.raises(NoAnswer, match=r"a change of \[machine\] number needs a restart of the monitor"):
        ask(site.control, "restart")
    site.config.write_text("[nonsense]\n")
    os.kill(site.pid, signal.SIGHUP)
    site.wait_said("no release: ")
    site.wait_said("unknown section [nonsense]")
    assert site.pids() == before
    site.end()


def told_by_agent(port: int) -> bytes:
    with socket.create_connection(("127.0.0.1", port), PATIENCE) as front:
        return front.recv(1000)


def test_a_front_and_an_agent_need_no_restart_of_the_monitor(site: Site) -> None:
    site.settings("appservers", servers=1)
    site.settings("machine", number=7)
    assert site.lbctl("key", "make")[0] == 0
    site.up()
    with held_ports(1) as port:
        site.settings("machine", agent=f"127.0.0.1:{port}", front=["127.0.0.1"])
        site.wait_order("restart")
        site.wait_said(f"the agent answers HAProxy at 127.0.0.1:{port}")
        site.wait(lambda: told_by_agent(port).startswith(b"ready up "), "the agent asks for visitors")
    assert read(site.run_folder / "settings.json").settings.machine.front == ("127.0.0.1",)
    site.end()


def test_an_old_one_keeps_its_address_when_the_settings_change(site: Site) -> None:
    site.settings("appservers", servers=1)
    site.up()
    sid = site.get(0, "/login").cookies["sid"]
    site.settings("appservers", base_port=site.base_port + 3, slots=5)
    site.wait_order("restart")
    site.wait_states(s0="DYING", s1="OK")
    assert [entry.address.port - site.base_port for entry in site.table.entries] == [0, 4]
    assert site.get(0, sid=sid).status == 200
    site.wait(lambda: ask(site.control)["appservers"][0]["memory"], "it is probed where it is")
    site.end()
