"""What the monitor keeps of its AppServers' processes: orders when it runs short, and the folder of sockets."""

from __future__ import annotations

import errno
import os
import selectors
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from monitor_fixture import wait_for

from lbadaptor.contract.address import Address
from lbadaptor.contract.settings import Application, Files, Settings
from lbadaptor.contract.ticket import make_keys
from monitor.arbiter.files.state_json import StateFile
from monitor.arbiter.processes import appservers as module
from monitor.arbiter.processes.appservers import AppServers
from monitor.arbiter.processes.child import Child, Reaper
from monitor.contract.processes import start_time
from monitor.policy.plan import Plan
from monitor.policy.problems import Problems
from monitor.policy.record import Order, Record, Tell
from monitor.policy.states import Life


class House:
    def __init__(self, folder: Path) -> None:
        settings = Settings(Application("a:b", "sid"), Files(run_folder="run", key_file="keys"), folder=str(folder))
        settings.run_folder.mkdir()
        self.settings = settings
        self.problems = Problems()
        self.plan = Plan(settings, problems=self.problems)
        self.keys = make_keys(settings.key_file, None)
        self.selector = selectors.DefaultSelector()
        state = StateFile(settings.run_folder / "state.json", self.problems)
        self.appservers = AppServers(
            self.plan, self.keys, state, {}, None, None, self.selector, Reaper(), self.problems
        )


@pytest.fixture
def house(tmp_path: Path) -> Iterator[House]:
    one = House(tmp_path)
    yield one
    one.selector.close()


def short(*_: object) -> int:
    raise OSError(errno.EMFILE, "Too many open files")


def test_an_order_to_kill_needs_no_descriptor(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    """An adopted one is ended at once, and what it has started as soon as that can be."""
    script = "import subprocess, sys; subprocess.Popen(['sleep', '600'], stdout=sys.stdout).wait()"
    with subprocess.Popen(
        [sys.executable, "-S", "-c", script], stdout=subprocess.PIPE, start_new_session=True
    ) as process:
        assert process.stdout is not None
        wait_for(lambda: children_of(process.pid), "it has started another")
        record = Record(0, 17, since=0.0, born=0.0, life=Life.OK)
        child = Child.adopt(process.pid, start_time(process.pid))
        ticket = house.keys.ticket(record.identity)
        house.appservers.take_over(record, child, Address("127.0.0.1", 9000), ticket)
        monkeypatch.setattr("monitor.arbiter.processes.child.start_time", short)
        house.appservers.do(Tell(record.identity, Order.KILL))
        wait_for(child.over, "it is ended")
        monkeypatch.undo()
        house.appservers.tend(0.0)
        assert process.stdout.read() == b"", "what it has started is ended, too"
    child.release()


def children_of(pid: int) -> str:
    return Path(f"/proc/{pid}/task/{pid}/children").read_text()


def test_the_folder_of_sockets_is_no_problem_any_more_whoever_has_made_it(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "make_room_for_socket", short)
    house.appservers.tend(0.0)
    assert "sockets" in house.problems
    os.mkdir(house.settings.socket_folder)
    house.appservers.tend(0.0)
    assert "sockets" not in house.problems
