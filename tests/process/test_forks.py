"""What an application forks: it keeps nothing of the AppServer's, and ends where it would come back to it."""

from __future__ import annotations

import http.client
import json
import os
import signal
import socket
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest
from appserver_fixture import PROJECT, WAIT, Start, ready

from lbadaptor.appserver.process import messages
from lbadaptor.appserver.process.messages import STOP, Ready

FORKS = """
    import ctypes, json, multiprocessing, os, signal, socket, subprocess, sys, threading, time

    FORK = multiprocessing.get_context("fork")

    def descriptors():
        found = {}
        for name in os.listdir("/proc/self/fd"):
            try:
                found[int(name)] = os.readlink(f"/proc/self/fd/{name}")
            except OSError:
                pass  # it was for this look
        return sorted(what for number, what in found.items() if number > 2)

    def handlers():
        return [str(int(signal.getsignal(number))) for number in (signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2)]

    def ends(how):
        if how == "exit 0": sys.exit(0)
        if how == "exit 3": sys.exit(3)
        if how == "exit text": sys.exit("in words")
        if how == "exit none": sys.exit()
        if how == "raises": raise KeyError("in the child")
        if how == "_exit": os._exit(7)
        if how == "stops": raise KeyboardInterrupt

    def forks(environ, start_response):
        how = environ["QUERY_STRING"]
        child = os.fork()
        if not child:
            print("printed by the child", flush=False)
            ends(how)
            start_response("200 OK", [("Set-Cookie", "_SID_=childs; Path=/")])
            return [b"the child's answer"]
        _, status = os.waitpid(child, 0)
        start_response("200 OK", [])
        return [b"%d" % os.waitstatus_to_exitcode(status)]

    def forks_late(environ, start_response):
        how = environ["QUERY_STRING"]
        start_response("200 OK", [] if how == "chunks" else [("Content-Length", "8")])
        yield b"both"
        child = os.fork()
        if child:
            os.waitpid(child, 0)
        yield b"them" if child else b"they"

    def looks(environ, start_response):
        reader, writer = os.pipe()
        child = os.fork()
        if not child:
            os.close(reader)
            os.write(writer, json.dumps([descriptors(), handlers()]).encode())
            os._exit(0)
        os.close(writer)
        with open(reader, "rb") as file:
            start_response("200 OK", [])
            return [file.read()]

    def lives_on(environ, start_response):
        child = os.fork()
        if not child:
            os.setsid()
            for number in (1, 2):
                os.close(number)
            time.sleep(100)
            os._exit(0)
        start_response("200 OK", [])
        return [b"%d" % child]

    def nothing():
        time.sleep(100)

    def double(number):
        return 2 * number

    def works(environ, start_response):
        found = {}
        process = FORK.Process(target=nothing)
        process.start()
        process.terminate()
        process.join()
        found["terminated"] = process.exitcode
        process = FORK.Process(target=sys.exit, args=(4,))
        process.start()
        process.join()
        found["process"] = process.exitcode
        with FORK.Pool(2) as pool:
            found["pool"] = pool.map(double, range(5))
        child, terminal = os.forkpty()
        if not child:
            os.write(1, b"from a terminal")
            os._exit(0)
        found["pty"] = os.read(terminal, 100).decode()
        os.waitpid(child, 0)
        os.close(terminal)
        done = subprocess.run(["/bin/echo", "said"], preexec_fn=os.setsid, stdout=subprocess.PIPE)
        found["preexec"] = done.stdout.decode().strip()
        start_response("200 OK", [])
        return [json.dumps(found).encode()]

    def hello(environ, start_response):
        start_response("200 OK", [])
        return [b"hello"]

    def counted():
        if not os.fork():
            how = os.environ["HOW"]
            ends(how)
            return 1
        os.wait()
        return 0
"""
IMPORTS = """
    import os, sys
    child = os.fork()
    if not child:
        {child}
    else:
        status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])

    def application(environ, start_response):
        start_response("200 OK", [])
        return [b"%d" % status]
"""


@pytest.fixture
def site(folder: Path) -> Path:
    (folder / "forks.py").write_text(textwrap.dedent(FORKS))
    return folder


@pytest.mark.parametrize(
    ("how", "status"),
    [
        ("exit 0", 0),
        ("exit 3", 3),
        ("exit text", 1),
        ("exit none", 0),
        ("raises", 1),
        ("stops", 1),
        ("_exit", 7),
        ("answers", 0),
    ],
)
def test_a_child_ends_without_an_answer(site: Path, start: Start, how: str, status: int) -> None:
    appserver = ready(start("forks:forks"))
    other = appserver.connect()
    other.connect()
    for _ in range(3):
        assert appserver.ask(LB_Query=how.replace(" ", "%20"))[1] == b"%d" % status
    assert other.sock is not None
    other.sock.setblocking(False)
    with pytest.raises(BlockingIOError):
        other.sock.recv(1)
    other.close()
    appserver.order(STOP)
    code, out, err = appserver.ended()
    assert code == 0
    assert out.count("printed by the child") == 3
    assert err.count("ends: KeyError: 'in the child'") == (3 if how == "raises" else 0)
    assert err.count("in words") == (3 if how == "exit text" else 0)
    assert "failed" not in err, "it is no failure of a request"


@pytest.mark.parametrize("how", ["chunks", "length"])
def test_a_child_forked_within_an_answer_says_nothing(site: Path, start: Start, how: str) -> None:
    appserver = ready(start("forks:forks_late"))
    for _ in range(3):
        assert appserver.ask(LB_Query=how)[1] == b"boththem"


def test_a_child_holds_no_descriptor_of_ours_and_has_the_usual_signals(site: Path, start: Start) -> None:
    appserver = ready(start("forks:looks", unix_socket=str(site / "0")))
    others = [appserver.connect() for _ in range(5)]
    for other in others:
        other.connect()
    found, handlers = json.loads(appserver.ask()[1])
    assert [what for what in found if not what.startswith(("pipe:", "/dev/null"))] == []
    assert handlers == [str(signal.SIG_DFL.value)] * 3
    for other in others:
        other.close()


def test_a_child_with_a_session_of_its_own_lives_on_and_keeps_neither_port_nor_channel(
    site: Path,
    start: Start,
) -> None:
    appserver = ready(start("forks:lives_on", unix_socket=str(site / "0")))
    child = int(appserver.ask()[1])
    try:
        appserver.order(STOP)
        assert appserver.process.wait(WAIT) == 0
        os.kill(child, 0)
        assert appserver.report() is None, "nobody holds the channel"
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(appserver.address, WAIT)
        with socket.socket(socket.AF_UNIX) as caller, pytest.raises(OSError, match=r"refused|No such file"):
            caller.connect(str(site / "0"))
    finally:
        os.kill(child, signal.SIGKILL)


def test_what_libraries_do_with_forks_works(site: Path, start: Start) -> None:
    appserver = ready(start("forks:works"))
    for _ in range(2):
        assert json.loads(appserver.ask()[1]) == {
            "terminated": -signal.SIGTERM,
            "process": 4,
            "pool": [0, 2, 4, 6, 8],
            "pty": "from a terminal",
            "preexec": "said",
        }


@pytest.mark.parametrize(
    ("child", "status"),
    [("sys.exit(0)", 0), ("sys.exit(5)", 5), ("raise KeyError", 1), ("pass", 0), ("os._exit(6)", 6)],
)
def test_a_child_forked_at_import_ends_and_is_no_appserver(
    site: Path,
    start: Start,
    child: str,
    status: int,
) -> None:
    (site / "imports.py").write_text(textwrap.dedent(IMPORTS).format(child=child))
    appserver = ready(start("imports:application"))
    assert appserver.ask()[1] == b"%d" % status
    appserver.order(STOP)
    assert appserver.report() is None, "no child reports"
    assert appserver.ended()[0] == 0


@pytest.mark.parametrize("how", ["exit 0", "raises", "answers"])
def test_a_child_forked_in_the_session_count_ends(site: Path, start: Start, how: str) -> None:
    appserver = ready(start("forks:hello", session_count="forks:counted", environment={"HOW": how}))
    deadline = time.monotonic() + 1.5  # some looks at the sessions
    while time.monotonic() < deadline:
        assert appserver.ask()[1] == b"hello"
    children = Path(f"/proc/{appserver.process.pid}/task/{appserver.process.pid}/children").read_text().split()
    assert len(children) <= 1, "none stays"
    appserver.order(STOP)
    assert appserver.ended()[0] == 0


def test_what_is_forked_from_a_template_is_an_appserver_and_what_that_forks_is_none(site: Path) -> None:
    (site / "imports.py").write_text(textwrap.dedent(IMPORTS).format(child="pass") + "from forks import forks\n")
    channel, theirs = socket.socketpair()
    reserved = socket.socket()
    reserved.bind(("127.0.0.1", 0))
    address: tuple[str, int] = reserved.getsockname()
    with theirs:
        command = [sys.executable, "-m", "lbadaptor.appserver", "--preload", "--channel", str(theirs.fileno())]
        environment = {"PATH": os.environ["PATH"], "PYTHONPATH": PROJECT}
        template = subprocess.Popen(command, cwd=site, env=environment, pass_fds=[theirs.fileno()])
    with channel, channel.makefile("rb") as lines:
        channel.settimeout(WAIT)
        channel.sendall(messages.encode(messages.Preload("imports:forks")) + b"\n")
        assert messages.decode_template_report(lines.readline()) == messages.Imported()
        own, theirs = socket.socketpair()
        with own, theirs, own.makefile("rb") as reports:
            own.settimeout(WAIT)
            reserved.close()
            asked = messages.encode(messages.Fork(3, "{}:{}".format(*address)))
            socket.send_fds(channel, [asked + b"\n"], [theirs.fileno()])
            theirs.close()
            forked = messages.decode_template_report(lines.readline())
            assert isinstance(forked, messages.Forked)
            own.sendall(messages.encode(messages.Assignment("imports:forks")) + b"\n")
            assert messages.decode_report(reports.readline()) == Ready()
            connection = http.client.HTTPConnection(*address, timeout=WAIT)
            connection.request("GET", "/?raises")
            assert connection.getresponse().read() == b"1"
            connection.close()
            os.kill(forked.pid, STOP)
            assert reports.readline() == b"", "nobody else holds its channel"
    assert template.wait(WAIT) == 0
