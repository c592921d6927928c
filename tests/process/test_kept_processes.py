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

from lbadaptor.contract.settings import Application, Files, Settings
from lbadaptor.contract.ticket import make_keys
from monitor.arbiter.files.state_json import StateFile
from monitor.arbiter.processes import appservers as module
from monitor.arbiter.processes.appservers import AppServerProcesses
from monitor.arbiter.processes.child import Child, Reaper
from monitor.contract.processes import start_time
from monitor.policy.actions import Send, Signal
from monitor.policy.life import Life
from monitor.policy.pool import Pool
from monitor.policy.problems import Problems
from monitor.policy.states import LifeState


class Stage:
    def __init__(self, folder: Path) -> None:
        settings = Settings(Application("a:b", "sid"), Files(run_folder="run", key_file="keys"), folder=str(folder))
        settings.run_folder.mkdir()
        self.settings = settings
        self.problems = Problems()
        self.pool = Pool(settings, problems=self.problems)
        self.keys = make_keys(settings.key_file, None)
        self.selector = selectors.DefaultSelector()
        state = StateFile(settings.run_folder / "state.json", self.problems)
        self.processes = AppServerProcesses(
            self.pool, self.keys, state, {}, None, None, self.selector, Reaper(), self.problems
        )


@pytest.fixture
def stage(tmp_path: Path) -> Iterator[Stage]:
    one = Stage(tmp_path)
    yield one
    one.selector.close()


def short(*_: object) -> int:
    raise OSError(errno.EMFILE, "Too many open files")


def test_an_order_to_kill_needs_no_descriptor(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    """An adopted one is ended at once, and what it has started as soon as that can be."""
    script = "import subprocess, sys; subprocess.Popen(['sleep', '600'], stdout=sys.stdout).wait()"
    with subprocess.Popen(
        [sys.executable, "-S", "-c", script], stdout=subprocess.PIPE, start_new_session=True
    ) as process:
        assert process.stdout is not None
        wait_for(lambda: children_of(process.pid), "it has started another")
        child = Child.adopt(process.pid, start_time(process.pid))
        life = Life(
            slot=0,
            generation=17,
            pid=child.pid,
            started=child.started,
            host="127.0.0.1",
            port=9000,
            state=LifeState.OK,
            since=0.0,
            born=0.0,
        )
        stage.processes.take_over(life, child, stage.keys.ticket(life.identity))
        monkeypatch.setattr("monitor.arbiter.processes.child.start_time", short)
        stage.processes.do(Send(life.identity, Signal.KILL))
        wait_for(child.over, "it is ended")
        monkeypatch.undo()
        stage.processes.maintain(0.0)
        assert process.stdout.read() == b"", "what it has started is ended, too"
    child.release()


def children_of(pid: int) -> str:
    return Path(f"/proc/{pid}/task/{pid}/children").read_text()


def test_the_problem_of_the_socket_folder_ends_when_any_process_has_made_it(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "make_room_for_socket", short)
    stage.processes.maintain(0.0)
    assert "sockets" in stage.problems
    os.mkdir(stage.settings.socket_folder)
    stage.processes.maintain(0.0)
    assert "sockets" not in stage.problems
