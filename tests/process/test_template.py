"""How a template is asked, against scripted ones: who waits, who is told what, what it cannot do wrong."""

from __future__ import annotations

import errno
import selectors
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from typing import NoReturn

import pytest
from monitor_fixture import PATIENCE

from lbadaptor.appserver.process import messages
from lbadaptor.contract.address import Identity
from monitor.arbiter.processes.child import Child, Reaper
from monitor.arbiter.processes.template import Template

ONE, TWO = Identity(0, 1001), Identity(1, 1002)

SCRIPT = """
import json, os, socket, sys
channel = socket.socket(fileno=int(sys.argv[1]))
def say(**words):
    channel.sendall(json.dumps(words).encode() + b"\\n")
def asked():
    data, descriptors, _, _ = socket.recv_fds(channel, 65536, 1)
    return json.loads(data)["slot"], socket.socket(fileno=descriptors[0])
"""
IMPORTED = "say(type='imported')\n"


class TemplateOwner:
    """Starts a scripted template, and keeps what it is told."""

    def __init__(self) -> None:
        self.script = ""
        self.first = IMPORTED
        self.started: list[Child] = []
        self.living: dict[Identity, Child] = {}
        self.told: list[tuple[Identity, str]] = []

    def start_template(self) -> Child:
        self.started.append(
            Child.start([sys.executable, "-S", "-I", "-c", SCRIPT + self.first + self.script, "{channel}"])
        )
        return self.started[-1]

    def request(self, identity: Identity) -> messages.Fork:
        return messages.Fork(identity.slot, "127.0.0.1:1")

    def open_captured(self, identity: Identity) -> int | None:
        return None

    def forked(self, identity: Identity, child: Child) -> None:
        self.living[identity] = child

    def log_trace(self, who: str, trace: Sequence[str]) -> None:
        pass

    def not_forked(self, identity: Identity, why: str) -> None:
        self.told.append((identity, why))

    def start(self, identity: Identity) -> None:
        self.told.append((identity, "again"))


class Stage:
    """A template and the loop that reads its messages."""

    def __init__(self) -> None:
        self.owner = TemplateOwner()
        self.selector = selectors.DefaultSelector()
        self.reaper = Reaper()
        self.template = Template(self.owner, self.selector, self.reaper)

    def wait(self, look: Callable[[], object], what: str) -> None:
        until = time.monotonic() + PATIENCE
        while not look():
            assert time.monotonic() < until, what
            for key, _ in self.selector.select(0.05):
                key.data()

    def end(self) -> None:
        self.template.drop("ends")
        self.reaper.wait(PATIENCE)
        self.selector.close()


@pytest.fixture
def stage(monkeypatch: pytest.MonkeyPatch) -> Iterator[Stage]:
    monkeypatch.setattr(
        "monitor.arbiter.processes.template.become_subreaper", lambda: None
    )  # it would last as long as the tests
    stage = Stage()
    yield stage
    stage.end()


def test_forks_are_asked_for_one_at_a_time_and_a_failed_one_does_not_stop_the_next(stage: Stage) -> None:
    stage.owner.script = """
for _ in range(2):
    slot, own = asked()
    channel.setblocking(False)
    try:
        channel.recv(1)
    except BlockingIOError:
        say(type="unforked", why=f"no room for {slot}")
    channel.setblocking(True)
channel.recv(1)
"""
    stage.template.fork(ONE)
    stage.template.fork(TWO)
    stage.wait(lambda: len(stage.owner.told) == 2, "both are told")
    assert stage.owner.told == [(ONE, "cannot fork: no room for 0"), (TWO, "cannot fork: no room for 1")]
    assert len(stage.owner.started) == 1


def test_a_template_ends_without_a_word_when_its_monitor_is_killed() -> None:
    ours, its = socket.socketpair()
    command = [sys.executable, "-m", "lbadaptor.appserver", "--preload", "--channel", str(its.fileno())]
    with subprocess.Popen(command, pass_fds=[its.fileno()], stderr=subprocess.PIPE) as process:
        its.close()
        ours.sendall(messages.encode(messages.Preload("wsgiref.simple_server:demo_app")) + b"\n")
        ours.settimeout(PATIENCE)
        assert ours.recv(1, socket.MSG_PEEK)  # what it reports is not read
        ours.close()
        _, said = process.communicate(timeout=PATIENCE)
    assert (process.returncode, said) == (0, b"")


def test_one_that_is_not_wanted_any_more_finds_its_channel_closed(stage: Stage) -> None:
    stage.owner.script = """
slot, own = asked()
say(type="nothing that matters") if own.recv(1) else say(type="forked", pid=os.getpid())
slot, own = asked()
say(type="unforked", why="the second")
channel.recv(1)
"""
    stage.template.fork(ONE)
    stage.template.fork(TWO)
    stage.wait(lambda: stage.template._asked == ONE, "it is asked")
    assert ONE in stage.template
    stage.template.cancel(ONE)
    assert ONE not in stage.template
    stage.wait(lambda: stage.owner.told, "the next one is asked for")
    assert stage.owner.told == [(TWO, "cannot fork: the second")]
    assert stage.owner.living == {}


def test_one_that_waits_may_be_cancelled(stage: Stage) -> None:
    stage.owner.script = "slot, own = asked()\nsay(type='unforked', why=str(slot))\nchannel.recv(1)"
    stage.template.fork(ONE)
    stage.template.fork(TWO)
    stage.template.cancel(ONE)
    stage.wait(lambda: stage.owner.told, "the other one is asked for")
    assert stage.owner.told == [(TWO, "cannot fork: 1")]


def test_to_cancel_one_that_was_never_asked_for_leaves_the_others(stage: Stage) -> None:
    stage.owner.script = """
slot, own = asked()
channel.recv(1)
say(type="nothing that matters" if own.recv(1) else "unforked", why="its channel is closed")
"""
    stage.template.fork(ONE)
    stage.wait(lambda: stage.template._asked == ONE, "it is asked")
    stage.template.cancel(TWO)
    assert ONE in stage.template


@pytest.mark.parametrize("pid", ["os.getppid()", "os.getpid()", "1 << 22"])
def test_a_pid_that_is_not_a_child_of_its_own_is_not_followed(stage: Stage, pid: str) -> None:
    stage.owner.script = f"asked()\nsay(type='forked', pid={pid})\nchannel.recv(1)"
    stage.template.fork(ONE)
    stage.wait(lambda: stage.owner.told, "it is told")
    ((identity, why),) = stage.owner.told
    assert (identity, why.startswith("it ended at once")) == (ONE, True)
    assert stage.owner.living == {}


@pytest.mark.parametrize(
    ("script", "why"),
    [
        ("asked()\nchannel.sendall(b'nonsense\\n')\nchannel.recv(1)", "the template reports nonsense"),
        ("asked()\nos._exit(1)", "the template died"),
    ],
)
def test_who_waits_for_a_template_that_fails_has_failed(stage: Stage, script: str, why: str) -> None:
    stage.owner.script = script
    stage.template.fork(ONE)
    stage.template.fork(TWO)
    stage.wait(lambda: len(stage.owner.told) == 2, "both are told")
    assert [identity for identity, _ in stage.owner.told] == [ONE, TWO]
    assert all(said.startswith(why) for _, said in stage.owner.told)
    assert stage.template.pid is None


def test_a_start_that_waits_for_a_template_that_cannot_import_gets_the_reason(stage: Stage) -> None:
    stage.owner.first, stage.owner.script = "", "say(type='failed', why='no such module')\nos._exit(3)"
    stage.template.fork(ONE)
    stage.template.fork(TWO)
    stage.wait(lambda: len(stage.owner.told) == 2, "both are told")
    assert stage.owner.told == [(ONE, "no such module"), (TWO, "no such module")]


def test_a_release_starts_those_that_wait_anew(stage: Stage) -> None:
    stage.owner.script = "asked()\nchannel.recv(1)"
    stage.template.fork(ONE)
    stage.template.fork(TWO)
    stage.wait(lambda: stage.template._asked == ONE, "it is asked")
    stage.template.renew()
    assert stage.owner.told == [(ONE, "again"), (TWO, "again")]


def test_an_unfit_one_leaves_those_that_wait_to_others(stage: Stage) -> None:
    stage.owner.first, stage.owner.script = "", "say(type='unfit', why='threads')"
    stage.template.fork(ONE)
    stage.wait(lambda: stage.owner.told, "it is told")
    assert stage.owner.told == [(ONE, "again")]
    assert stage.template.unfit


def test_one_that_had_imported_and_died_gets_a_successor_after_a_pause(stage: Stage) -> None:
    stage.owner.script = "channel.recv(1)"
    stage.template.fork(ONE)
    stage.template.cancel(ONE)
    stage.wait(lambda: stage.template._imported, "it can fork")
    stage.owner.started[0].kill_group()
    stage.wait(lambda: stage.template.pid is None, "it is gone")
    now = time.monotonic()
    stage.template.keep_running(now, wanted=True)
    assert stage.template.pid is None
    stage.template.keep_running(now + 60, wanted=True)
    assert stage.template.pid is not None
    stage.template.keep_running(now + 60, wanted=False)
    assert stage.template.pid is None


def full(*_: object) -> NoReturn:
    raise OSError(errno.EMFILE, "Too many open files")


def test_without_a_descriptor_nothing_is_forked_and_the_template_stays(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    stage.owner.script = "slot, own = asked()\nsay(type='unforked', why='seen')\nchannel.recv(1)\n"
    stage.template.fork(ONE)
    stage.wait(lambda: stage.owner.told, "it was asked for one")
    pid = stage.template.pid
    with monkeypatch.context() as short:
        short.setattr("monitor.arbiter.processes.template.socket.socketpair", full)
        stage.template.fork(ONE)
        stage.template.fork(TWO)
    why = "cannot fork: Too many open files"
    assert stage.owner.told[1:] == [(ONE, why), (TWO, why)]
    assert stage.template.pid == pid


def test_a_template_that_cannot_be_followed_is_ended(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as short:
        short.setattr(stage.selector, "register", full)
        stage.template.fork(ONE)
    assert stage.owner.told == [(ONE, "the template cannot be started: Too many open files")]
    (child,) = stage.owner.started
    stage.reaper.wait(PATIENCE)
    assert child.released
    assert not stage.selector.get_map()


def test_late_messages_of_a_former_template_do_not_count_for_the_new_one(stage: Stage) -> None:
    stage.owner.script = "channel.recv(1)\n"
    stage.template.fork(ONE)
    child = stage.owner.started[0]
    late = [stage.selector.get_key(descriptor).data for descriptor in (child.pidfd, child.channel)]
    stage.template.renew()
    stage.template.fork(TWO)
    new = stage.template.pid
    assert new not in (None, child.pid)
    for message in late:
        message()
    assert stage.template.pid == new
    assert TWO in stage.template


def test_an_error_of_the_application_within_a_fork_makes_no_second_template() -> None:
    script = """
import atexit, os
from lbadaptor.appserver import template

def refused():
    raise RuntimeError("an audit hook's")

os.fork = refused
atexit.register(print, "the end")
try:
    template._fork()
except OSError as error:
    print(error)
"""
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, timeout=PATIENCE, check=True
    )
    assert done.stdout == "[Errno 0] fork: the new process ended at once\nthe end\n"
    assert done.stderr == ""
