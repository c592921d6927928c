"""Children: real forks, the channel, how they end, and what they do not inherit."""

from __future__ import annotations

import contextlib
import ctypes
import errno
import gc
import os
import resource
import select
import signal
import socket
import sys
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest
from monitor_fixture import PATIENCE, wait_for

from monitor.arbiter.processes.child import MAX_LINE, Child, Reaper, become_subreaper
from monitor.arbiter.processes.process_environment import ProcessEnvironment
from monitor.contract.processes import start_time

CHANNEL = "import os, socket, sys; channel = socket.socket(fileno=int(sys.argv[1]))\n"


class Children:
    """Children of one test; none outlives it."""

    def __init__(self) -> None:
        self.children: list[Child] = []

    def start(self, code: str, environment: dict[str, str] | None = None) -> Child:
        environment = ProcessEnvironment(environment)
        child = Child.start([sys.executable, "-S", "-I", "-c", CHANNEL + code, "{channel}"], environment)
        self.children.append(child)
        return child


@pytest.fixture
def children() -> Iterator[Children]:
    gc.collect()  # what other tests left to the collector is not this one's
    before = sorted(os.listdir("/proc/self/fd"))
    children = Children()
    yield children
    for child in children.children:
        if child.channel.fileno() != -1:
            child.kill_group()
            child.wait(PATIENCE)
    assert sorted(os.listdir("/proc/self/fd")) == before, "descriptors were left behind"


def lines_of(child: Child, count: int) -> list[bytes]:
    """So many lines from its channel."""
    lines: list[bytes] = []

    def enough() -> bool:
        lines.extend(child.receive() or [])
        return len(lines) >= count

    wait_for(enough, f"{count} lines came")
    return lines


def own_children() -> set[int]:
    """The children of this process, zombies included."""
    found = set()
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            if int(stat.read_text().rpartition(")")[2].split()[1]) == os.getpid():
                found.add(int(stat.parent.name))
    return found


def over(child: Child) -> str:
    """Wait for its exit by its pidfd: how it ended."""
    assert select.select([child.pidfd], [], [], PATIENCE)[0], "its pidfd says nothing"
    how = child.reap()
    assert how is not None
    return how


def test_lines_go_both_ways(children: Children) -> None:
    child = children.start("for line in channel.makefile('rb'): channel.sendall(line.upper())")
    assert child.send(b"one")
    assert child.send(b"two")
    assert lines_of(child, 2) == [b"ONE", b"TWO"]
    assert child.receive() == []


def test_half_a_line_waits_for_its_other_half(children: Children) -> None:
    child = children.start("channel.sendall(b'one\\ntw'); channel.recv(9); channel.sendall(b'o\\n'); channel.recv(9)")
    assert lines_of(child, 1) == [b"one"]
    assert child.receive() == []
    child.send(b"go on")
    assert lines_of(child, 1) == [b"two"]


def test_a_closed_channel_says_so(children: Children) -> None:
    child = children.start("channel.close(); import time; time.sleep(600)")
    wait_for(lambda: child.receive() is None, "the channel is closed")


def test_a_line_without_end_is_not_kept(children: Children) -> None:
    child = children.start("channel.sendall(b'x' * (4 << 20))")
    wait_for(lambda: child.receive() is None, "it is not listened to any more")
    assert len(child._received) < MAX_LINE + (1 << 19)


def test_a_child_that_does_not_read_does_not_block(children: Children) -> None:
    child = children.start("import time; time.sleep(600)")
    begun = time.monotonic()
    line = b"x" * 10_000
    taken = 0
    while child.send(line):
        taken += 1
        assert taken < 2000, "it takes messages for ever"
    assert child.backlog
    assert time.monotonic() - begun < PATIENCE, "less than the child sleeps"


def test_what_could_not_be_sent_goes_with_the_next_call(children: Children) -> None:
    child = children.start(
        "channel.recv(1)\nfor line in channel.makefile('rb'): channel.sendall(b'%d\\n' % len(line))"
    )
    big = b"x" * 900_000
    assert child.send(b"")
    assert not child.backlog
    assert child.send(b"y" + big)
    assert child.backlog

    def flushed() -> bool:
        return child.send(b"") and not child.backlog

    wait_for(flushed, "everything is sent")
    assert lines_of(child, 1) == [b"900001"]


def test_sending_to_one_that_is_over(children: Children) -> None:
    child = children.start("")
    assert select.select([child.pidfd], [], [], PATIENCE)[0]
    assert not child.send(b"hello")
    child.signal(signal.SIGUSR1)  # to a zombie: no trouble
    assert over(child) == "exited"
    assert child.channel.fileno() == -1


@pytest.mark.parametrize(
    ("code", "words"),
    [
        ("", "exited"),
        ("sys.exit(3)", "exited with status 3"),
        ("os.kill(os.getpid(), 9)", "was ended by SIGKILL"),
        ("os.kill(os.getpid(), 40)", "was ended by signal 40"),
        ("raise SystemExit", "exited"),
    ],
)
def test_how_it_ended_in_words(children: Children, code: str, words: str) -> None:
    assert over(children.start(code)) == words


def test_one_that_runs_is_not_reaped(children: Children) -> None:
    child = children.start("channel.recv(9)")
    assert child.reap() is None
    assert child.channel.fileno() != -1
    child.signal(signal.SIGTERM)
    assert over(child) == "was ended by SIGTERM"


def test_a_signal_reaches_only_its_process(children: Children) -> None:
    child = children.start(
        "import signal, subprocess\n"
        "other = subprocess.Popen([sys.executable, '-S', '-c', 'import time; time.sleep(600)'])\n"
        "signal.signal(signal.SIGTERM, lambda *_: channel.sendall(b'%d\\n' % (other.poll() is None)))\n"
        "channel.sendall(b'ready\\n')\n"
        "while True: signal.pause()\n"
    )
    assert lines_of(child, 1) == [b"ready"]
    child.signal(signal.SIGTERM)
    assert lines_of(child, 1) == [b"1"]


def test_all_that_it_started_ends_with_it(children: Children) -> None:
    child = children.start(
        "import subprocess\n"
        "other = subprocess.Popen([sys.executable, '-S', '-c', 'import time; time.sleep(600)'])\n"
        "channel.sendall(b'%d\\n' % other.pid)\n"
    )
    (pid,) = map(int, lines_of(child, 1))
    assert select.select([child.pidfd], [], [], PATIENCE)[0]
    other = os.pidfd_open(pid)
    try:
        child.kill_group()  # it is over itself, and not yet reaped
        assert select.select([other], [], [], PATIENCE)[0], "its child lives on"
    finally:
        os.close(other)
    assert over(child) == "exited"


def test_it_is_in_a_session_of_its_own(children: Children) -> None:
    child = children.start("channel.sendall(b'%d %d\\n' % (os.getsid(0), os.getpgid(0)))")
    assert lines_of(child, 1) == [b"%d %d" % (child.pid, child.pid)]


def test_it_inherits_its_channel_and_standard_streams_alone(children: Children, tmp_path: Path) -> None:
    with open(tmp_path / "secret", "w") as secret:
        os.set_inheritable(secret.fileno(), True)
        first = children.start("channel.recv(9)")
        second = children.start(
            "names = [name for name in os.listdir('/proc/self/fd') if os.path.exists('/proc/self/fd/' + name)]\n"
            "left = set(map(int, names)) - {0, 1, 2, channel.fileno()}\n"
            "channel.sendall(repr(sorted(left)).encode() + b'\\n')\n"
        )
        assert lines_of(second, 1) == [b"[]"]
        assert first.reap() is None


def test_its_environment_is_the_one_given(children: Children) -> None:
    child = children.start("channel.sendall(repr(dict(os.environ)).encode() + b'\\n')", {"ONLY": "this"})
    (line,) = lines_of(child, 1)
    environment = eval(line)
    assert environment.pop("LC_CTYPE", None) in (None, "C.UTF-8")  # Python's own (PEP 538)
    assert environment == {"ONLY": "this"}


def test_signals_that_its_parent_handles_are_its_own_again(children: Children) -> None:
    before = signal.signal(signal.SIGTERM, lambda *_: None)
    try:
        child = children.start("import signal; channel.sendall(b'%d\\n' % signal.getsignal(signal.SIGTERM))")
        assert lines_of(child, 1) == [b"%d" % signal.SIG_DFL]
    finally:
        signal.signal(signal.SIGTERM, before)


def test_waiting_for_one_that_does_not_die_has_an_end(children: Children) -> None:
    child = children.start("channel.recv(9)")
    begun = time.monotonic()
    child.wait(0.1)
    assert time.monotonic() - begun < PATIENCE
    assert child.channel.fileno() != -1
    child.kill_group()
    child.wait(PATIENCE)
    assert child.channel.fileno() == -1


def test_a_program_that_is_not_there(children: Children) -> None:
    with pytest.raises(FileNotFoundError):
        Child.start(["/nonexistent/python"])


@pytest.mark.parametrize("spare", range(12))
def test_without_descriptors_nothing_is_left_behind(children: Children, spare: int) -> None:
    # Wherever they run out: in the socket pair, in the fork, or when the child runs already.
    before = own_children()
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    lowest = os.open("/dev/null", os.O_RDONLY)
    os.close(lowest)
    resource.setrlimit(resource.RLIMIT_NOFILE, (lowest + spare, limits[1]))
    try:
        child = Child.start(["/bin/sleep", "600"])
    except OSError:
        child = None
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)
    if child is not None:
        children.children.append(child)
    assert own_children() == before | ({child.pid} if child else set())
    assert (child is not None) or spare < 10, "this many are enough"


def test_one_that_cannot_be_watched_is_not_left_running(children: Children, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(pid: int) -> int:
        raise OSError(errno.ENFILE, "Too many open files in system")

    before = own_children()
    monkeypatch.setattr("monitor.arbiter.processes.child.os.pidfd_open", full)
    with pytest.raises(OSError, match="Too many open files in system"):
        Child.start(["/bin/sleep", "600"])
    assert own_children() == before


def test_hundreds_of_lives_leave_no_descriptor_and_no_zombie(children: Children) -> None:
    before = own_children()
    for _ in range(100):
        child = Child.start(["/bin/true"])
        child.send(b"hello")
        assert over(child) == "exited"
    assert own_children() == before


def test_an_adopted_process_reports_its_end_and_takes_signals(children: Children) -> None:
    child = children.start("import time; print(1); time.sleep(600)")
    adopted = Child.adopt(child.pid, start_time(child.pid))
    assert (adopted.reap(), adopted.receive(), adopted.send(b"x")) == (None, None, False)
    adopted.signal(signal.SIGTERM)
    adopted.wait(PATIENCE)
    assert adopted.released


def test_a_pid_that_is_another_process_now_is_not_adopted(children: Children) -> None:
    child = children.start("import time; time.sleep(600)")
    with pytest.raises(ProcessLookupError):
        Child.adopt(child.pid, start_time(child.pid) + 1)


def test_what_an_adopted_one_started_ends_with_it(children: Children) -> None:
    child = children.start(
        "import subprocess\n"
        "other = subprocess.Popen([sys.executable, '-S', '-c', 'import time; time.sleep(600)'])\n"
        "channel.sendall(b'%d\\n' % other.pid)\n"
        "import time; time.sleep(600)\n"
    )
    (pid,) = map(int, lines_of(child, 1))
    adopted = Child.adopt(child.pid, child.started)
    children.children.append(adopted)
    other = os.pidfd_open(pid)
    try:
        os.kill(child.pid, signal.SIGKILL)
        over(child)  # somebody else has reaped it
        adopted.kill_group()
        assert select.select([other], [], [], PATIENCE)[0], "its child lives on"
    finally:
        os.close(other)


def test_a_group_whose_pid_is_another_process_now_is_not_killed(children: Children) -> None:
    child = children.start("import time; time.sleep(600)")
    adopted = Child.adopt(child.pid, child.started)
    children.children.append(adopted)
    adopted.started -= 1
    adopted.kill_group()
    assert child.reap() is None


def test_what_it_goes_by_is_still_known_when_it_is_over(children: Children) -> None:
    child = children.start("import time; time.sleep(600)")
    started = start_time(child.pid)
    adopted = Child.adopt(child.pid, started)
    children.children.append(adopted)
    child.kill_group()
    child.wait(PATIENCE)
    assert child.released
    with pytest.raises(ProcessLookupError):
        start_time(child.pid)
    assert child.started == adopted.started == started


def test_a_kill_that_cannot_be_done_now_is_done_later(children: Children, monkeypatch: pytest.MonkeyPatch) -> None:
    child = children.start("import time; time.sleep(600)")
    adopted = Child.adopt(child.pid, child.started)
    reaper = Reaper()
    reaper.take(adopted, patience=0.0)

    def short(pid: int) -> int:
        raise OSError(errno.EMFILE, "Too many open files")

    monkeypatch.setattr("monitor.arbiter.processes.child.start_time", short)
    reaper.look()
    assert child.reap() is None
    monkeypatch.undo()
    reaper.look()
    assert over(child) == "was ended by SIGKILL"
    wait_for(lambda: reaper.look() or adopted.released, "it is let go of")


# Those that were forked for this process by another.

FORKED_FOR_US = """
import os, time
between = os.fork()
if not between:
    if os.fork():
        os._exit(0)
    os.setsid()
    channel.sendall(str(os.getpid()).encode() + b"\\n")
    {does}
    os._exit(7)
os.waitpid(between, 0)
time.sleep(600)
"""


@pytest.fixture
def subreaper() -> Iterator[None]:
    become_subreaper()
    yield
    libc = ctypes.CDLL(None)
    assert libc.prctl(36, *map(ctypes.c_ulong, (0, 0, 0, 0))) == 0


def forked_for_us(children: Children, does: str = "channel.recv(1)") -> Child:
    template = children.start(FORKED_FOR_US.replace("{does}", does))
    (pid,) = lines_of(template, 1)
    ours, theirs = socket.socketpair()
    theirs.close()
    wait_for(lambda: int(pid) in own_children(), "it is our child")
    child = Child.reparented(int(pid), ours)
    children.children.append(child)
    return child


@pytest.mark.usefixtures("subreaper")
def test_a_process_that_a_template_forked_reports_how_it_ended(children: Children) -> None:
    child = forked_for_us(children)
    assert child.reap() is None
    children.children[0].send(b"end")
    assert over(child) == "exited with status 7"


@pytest.mark.usefixtures("subreaper")
def test_one_that_was_forked_for_us_takes_its_group_along_when_it_is_over(children: Children) -> None:
    spawn = "sleeper = os.posix_spawn('/bin/sleep', ['sleep', '600'], {})"
    child = forked_for_us(children, does=f"channel.recv(1); {spawn}; channel.sendall(b'%d\\n' % sleeper)")
    children.children[0].send(b"go on")
    (line,) = lines_of(children.children[0], 1)
    sleeper = int(line)
    wait_for(child.over, "it is over")
    assert sleeper in own_children()
    child.kill_group()
    reaper = Reaper()
    reaper.look()
    assert child.pid in own_children(), "it is not the reaper's to reap"
    assert over(child) == "exited with status 7"
    wait_for(lambda: reaper.look() or sleeper not in own_children(), "the sleeper is killed, and reaped")


def test_a_reaper_that_runs_short_of_memory_loses_no_child(
    children: Children, monkeypatch: pytest.MonkeyPatch
) -> None:
    several = [children.start("") for _ in range(3)]
    wait_for(lambda: all(child.over() for child in several), "all have ended")
    reaper, done = Reaper(), []
    for child in several:
        reaper.take(child, then=partial(done.append, child.pid))
    reap = Child.reap

    def short(child: Child) -> str | None:
        if child is several[1]:
            raise MemoryError
        return reap(child)

    monkeypatch.setattr(Child, "reap", short)
    with pytest.raises(MemoryError):
        reaper.look()
    monkeypatch.undo()
    reaper.look()
    assert done == [child.pid for child in several]


@pytest.mark.parametrize("environment", [{"A": "nul\0"}, {"A=B": "1"}])
def test_a_variable_that_the_system_does_not_take_is_an_os_error(environment: dict[str, str]) -> None:
    gc.collect()
    before = sorted(os.listdir("/proc/self/fd"))
    with pytest.raises(OSError, match=r"null byte|illegal environment variable name"):
        Child.start(["/bin/true"], ProcessEnvironment(environment))
    assert sorted(os.listdir("/proc/self/fd")) == before


@pytest.mark.parametrize(("code", "status"), [("", 0), ("sys.exit(3)", 3), ("os.kill(os.getpid(), 15)", -15)])
def test_its_exit_status_is_kept(children: Children, code: str, status: int) -> None:
    child = children.start(code)
    assert child.code is None
    over(child)
    assert child.code == status


def test_no_other_process_is_taken_for_one_that_a_template_forked(children: Children) -> None:
    followed = children.start("channel.recv(1)").pid
    before = sorted(os.listdir("/proc/self/fd"))
    for pid in (os.getppid(), followed):
        ours, theirs = socket.socketpair()
        with theirs, pytest.raises(ProcessLookupError):
            Child.reparented(pid, ours)
    assert sorted(os.listdir("/proc/self/fd")) == before


# What they are born into.


def test_a_child_is_born_into_its_environment(tmp_path: Path) -> None:
    (tmp_path / "work").mkdir()
    code = (
        "import os, resource; channel.recv(9); mask = os.umask(0); channel.sendall(repr((os.getcwd(), mask,"
        " os.getpriority(os.PRIO_PROCESS, 0), resource.getrlimit(resource.RLIMIT_NOFILE),"
        " resource.getrlimit(resource.RLIMIT_CORE), dict(os.environ))).encode() + b'\\n')"
    )
    environment = ProcessEnvironment(
        {"A": "1", "LC_ALL": "C.UTF-8"}, str(tmp_path / "work"), None, 0o027, 3, {"nofile": 99, "core": 0}
    )
    child = Child.start([sys.executable, "-S", "-I", "-c", CHANNEL + code, "{channel}"], environment)
    child.send(b"go on")
    (line,) = lines_of(child, 1)
    nice = os.getpriority(os.PRIO_PROCESS, 0) + 3
    environment = {"A": "1", "LC_ALL": "C.UTF-8"}
    assert eval(line) == (str(tmp_path / "work"), 0o027, nice, (99, 99), (0, 0), environment)
    assert over(child) == "exited"


def test_one_that_may_not_be_limited_so_is_not_started() -> None:
    before = own_children(), sorted(os.listdir("/proc/self/fd"))
    with pytest.raises(PermissionError, match="limits, nice or user cannot be set"):
        Child.start(["/bin/sleep", "600"], ProcessEnvironment(limits={"nofile": 1 << 62}))
    assert (own_children(), sorted(os.listdir("/proc/self/fd"))) == before
