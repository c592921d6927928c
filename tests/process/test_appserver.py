"""The AppServer as a process: assignment, reports, orders, and its end."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import signal
import socket
import struct
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from lbadaptor.appserver.main import CANNOT_START, REFUSE_TIME
from lbadaptor.appserver.process.messages import (
    DRAIN,
    STOP,
    UNDRAIN,
    Assignment,
    Empty,
    Failed,
    PastLimit,
    Ready,
    Report,
    decode_report,
    encode,
)

WAIT = 20.0
"""Seconds after which a test gives up waiting for an event."""
PROJECT = str(Path(__file__).resolve().parents[2])
LB = {
    "LB-Key": "caller's",
    "LB-Generation": "17",
    "LB-Remote-Addr": "192.0.2.7",
    "LB-Remote-Port": "51234",
    "LB-Scheme": "http",
    "LB-Script-Name": "",
    "LB-Path": "/",
    "LB-Request-Uri": "/",
    "LB-Server-Name": "localhost",
    "LB-Server-Port": "80",
    "LB-Server-Protocol": "HTTP/1.1",
}

SITE = """
    import os, sys, threading

    def hello(environ, start_response):
        start_response("200 OK", [])
        return [b"hello"]

    def login(environ, start_response):
        start_response("200 OK", [("Set-Cookie", "_SID_=mine; Path=/")])
        return [b"welcome"]

    def session(environ, start_response):
        logout = environ.get("HTTP_X_LOGOUT")
        start_response("200 OK", [("Set-Cookie", "_SID_=mine; Path=/" + ("; Max-Age=0" if logout else ""))])
        return [b"welcome"]

    def slow(environ, start_response):
        start_response("200 OK", [])(b"begun ")
        return [environ["wsgi.input"].read()]

    def where(environ, start_response):
        import monitor
        start_response("200 OK", [])
        return [f"{os.getcwd()}|{os.environ['FLAVOUR']}|{monitor.WHOSE}".encode()]

    def logs(environ, start_response):
        import logging
        logging.basicConfig(level=logging.DEBUG, format="MINE %(message)s", stream=sys.stderr)
        logging.getLogger("site").debug("logged")
        start_response("200 OK", [])
        return []

    asked, eaten = [], []

    def warm(environ, start_response):
        path = environ["PATH_INFO"]
        status, headers = {"/bad": "500 Bad", "/moved": "302 Found", "/gone": "404 Not Found"}.get(path, "200 OK"), []
        if path == "/asked":
            start_response(status, headers)
            return [repr(asked).encode()]
        names = ("PATH_INFO", "QUERY_STRING", "REQUEST_URI", "REQUEST_METHOD", "SCRIPT_NAME", "lbadaptor.slot")
        asked.append(tuple(environ[name] for name in names))
        if path == "/raises":
            raise RuntimeError("cold")
        if path == "/hangs":
            threading.Event().wait()
        if path == "/login":
            headers.append(("Set-Cookie", "_SID_=mine; Path=/"))
        start_response(status, headers)
        return [b"x" * 200_000]

    def eats(environ, start_response):
        eaten.append(b"x" * 200_000_000)
        return hello(environ, start_response)

    def count():
        return 1

    def broken_count():
        raise KeyError("no store")
"""


class AppServer:
    """One process, and the monitor's end of its channel."""

    def __init__(self, folder: Path, assignment: Assignment | None, arguments: list[str], **environment: str) -> None:
        self.slot = 3
        self._reserved = socket.socket()
        self._reserved.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # bound by both, listened on by one
        self._reserved.bind(("127.0.0.1", 0))
        self.address: tuple[str, int] = self._reserved.getsockname()
        self.channel, theirs = socket.socketpair()
        self.channel.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, struct.pack("@ll", int(WAIT), 0))
        self._lines = self.channel.makefile("rb")
        command = [
            sys.executable,
            "-m",
            "lbadaptor.appserver",
            "--address",
            "{}:{}".format(*self.address),
            *arguments,
        ]
        if assignment is not None:
            command += ["--slot", str(self.slot), "--channel", str(theirs.fileno())]
        with theirs:
            self.process = subprocess.Popen(
                command,
                cwd=folder,
                env={"PATH": os.environ["PATH"], "PYTHONPATH": PROJECT, **environment},
                pass_fds=[theirs.fileno()],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
            )
        if assignment is not None:
            self.channel.sendall(encode(assignment) + b"\n")

    def report(self) -> Report | None:
        """The next report; None: the AppServer has ended."""
        line = self._lines.readline()
        return decode_report(line) if line else None

    def order(self, number: int) -> None:
        self.process.send_signal(number)

    def connect(self) -> http.client.HTTPConnection:
        return http.client.HTTPConnection(*self.address, timeout=WAIT)

    def ask(self, *, path: str = "/", **more: str) -> tuple[int, bytes, dict[str, str]]:
        """Status, body and headers; `X_A="b"` is sent as `X-A: b`."""
        connection = self.connect()
        fields = {name.replace("_", "-"): value for name, value in more.items()}
        connection.request("GET", path, headers={**LB, **fields})
        response = connection.getresponse()
        body = response.read()
        connection.close()
        return response.status, body, dict(response.getheaders())

    def wait_for_status(self, status: str) -> None:
        """Wait until an order, which comes as a signal, was obeyed."""
        while self.ask()[2]["LB-Status"] != status:
            pass

    def ended(self) -> tuple[int, str, str]:
        """Exit status, stdout and stderr. Blocks until it has ended."""
        out, err = self.process.communicate(timeout=WAIT)
        return self.process.returncode, out.decode(), err.decode()

    def close(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.process.communicate()
        self._lines.close()
        self.channel.close()
        self._reserved.close()


Start = Callable[..., AppServer]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "site_.py").write_text(textwrap.dedent(SITE))
    return tmp_path


@pytest.fixture
def start(folder: Path) -> Iterator[Start]:
    started: list[AppServer] = []

    def run(app: str, environment: dict[str, str] | None = None, **assignment: Any) -> AppServer:
        made = Assignment(
            f"site_:{app}" if ":" not in app else app,
            **{
                "session_cookie": "_SID_",
                "generation": 17,
                "ticket": "3.17.x",
                "caller_key": "caller's",
                "probe_key": "probe's",
                **assignment,
            },
        )
        started.append(AppServer(folder, made, [], **(environment or {})))
        return started[-1]

    yield run
    for appserver in started:
        appserver.close()


def ready(appserver: AppServer) -> AppServer:
    assert appserver.report() == Ready()
    return appserver


def test_it_serves_from_its_ready_report_until_its_order_to_stop(start: Start) -> None:
    appserver = ready(start("hello"))
    status, body, headers = appserver.ask()
    assert (status, body, headers["LB-Status"]) == (200, b"hello", "OK")
    appserver.order(STOP)
    assert appserver.report() is None
    assert appserver.ended() == (0, "", "")


def test_the_port_refuses_until_the_application_is_imported(folder: Path, start: Start) -> None:
    os.mkfifo(folder / "go")
    (folder / "late.py").write_text("open('go').read()\nfrom site_ import hello\n")
    appserver = start("late:hello")
    with open(folder / "go", "w"), pytest.raises(ConnectionRefusedError):
        appserver.ask()
    assert ready(appserver).ask()[0] == 200


def test_what_the_probe_hears(start: Start) -> None:
    appserver = ready(start("hello", threads=5))
    _, body, _ = appserver.ask(path="/__lb__/status", LB_Probe="probe's")
    report = json.loads(body)
    assert (report["slot"], report["generation"], report["pid"]) == (3, 17, appserver.process.pid)
    assert (report["status"], report["threads"], report["empty"]) == ("OK", 5, False)


def test_drained_without_sessions_it_reports_empty_and_goes_on_refusing(start: Start) -> None:
    appserver = ready(start("hello"))
    appserver.order(DRAIN)
    assert appserver.report() == Empty()
    status, _, headers = appserver.ask()
    assert (status, headers["LB-Refused"], headers["LB-Status"]) == (421, "DYING", "DYING")


def test_drained_it_serves_its_sessions_and_reports_empty_at_the_last_ones_end(start: Start) -> None:
    appserver = ready(start("session"))
    _, _, headers = appserver.ask()
    assert "__PRT__=3.17.x" in headers["Set-Cookie"]
    appserver.order(DRAIN)
    appserver.wait_for_status("DYING")
    assert appserver.ask()[0] == 421
    assert appserver.ask(Cookie="_SID_=mine")[0] == 200
    assert appserver.ask(Cookie="_SID_=mine", X_Logout="1")[0] == 200
    assert appserver.report() == Empty()


def test_drained_it_is_not_empty_before_the_idle_time_is_over(start: Start) -> None:
    appserver = ready(start("login", session_idle=0.2))
    appserver.ask()
    appserver.order(DRAIN)
    assert appserver.report() == Empty()
    assert appserver.ask(Cookie="_SID_=mine")[0] == 421


def test_drained_it_is_not_empty_while_a_request_is_in_flight(start: Start) -> None:
    appserver = ready(start("slow"))
    connection = appserver.connect()
    connection.request("POST", "/", headers={**LB, "Content-Length": "4"})
    answer = connection.getresponse()
    assert answer.read(6) == b"begun "
    appserver.order(DRAIN)
    appserver.wait_for_status("DYING")
    appserver.order(UNDRAIN)  # which it obeys after it has looked whether it is empty
    appserver.wait_for_status("OK")
    with pytest.raises(BlockingIOError):
        appserver.channel.recv(1, socket.MSG_DONTWAIT | socket.MSG_PEEK)
    appserver.order(DRAIN)
    appserver.wait_for_status("DYING")
    connection.send(b"done")
    assert answer.read() == b"done"
    connection.close()
    assert appserver.report() == Empty()


def test_undrained_it_takes_everybody_again_and_reports_empty_at_the_next_drain(start: Start) -> None:
    appserver = ready(start("hello"))
    for _ in range(2):
        appserver.order(DRAIN)
        assert appserver.report() == Empty()
        appserver.order(UNDRAIN)
        appserver.wait_for_status("OK")
        assert appserver.ask()[0] == 200


def test_the_applications_own_count_decides_when_it_is_empty(start: Start) -> None:
    appserver = ready(start("hello", session_count="site_:count"))
    while appserver.ask()[2]["LB-Load"].rpartition("/")[2] != "1":
        pass  # it counts just after its ready report
    appserver.order(DRAIN)
    appserver.wait_for_status("DYING")
    appserver.order(STOP)
    assert appserver.report() is None


def test_a_count_that_fails_is_logged_once_and_the_cookies_decide(start: Start) -> None:
    appserver = ready(start("hello", session_count="site_:broken_count"))
    for _ in range(3):
        appserver.order(DRAIN)
        assert appserver.report() == Empty()
        appserver.order(UNDRAIN)
        appserver.wait_for_status("OK")
    appserver.order(STOP)
    code, _, err = appserver.ended()
    assert code == 0
    assert err.count("KeyError: 'no store'") == 1


def test_a_store_that_cannot_be_counted_keeps_it_from_being_ready(start: Start) -> None:
    appserver = start("hello", session_count="flask")
    why = 'session_count = "flask": the application has no sessions of that kind'
    assert appserver.report() == Failed(why)
    assert appserver.report() is None
    assert appserver.ended() == (CANNOT_START, "", f"AppServer 3: cannot start: {why}\n")


def test_sessions_outside_the_process_are_reported(folder: Path, start: Start) -> None:
    (folder / "cookies.py").write_text("import flask\napplication = flask.Flask(__name__)\n")
    appserver = ready(start("cookies:application", session_cookie="session"))
    appserver.order(STOP)
    told = "AppServer 3: the sessions are in flask.sessions.SecureCookieSessionInterface, not in this process alone"
    assert appserver.ended()[2].startswith(told)


def test_past_its_limit_it_reports_once_and_goes_on(start: Start) -> None:
    appserver = ready(start("hello", max_requests=2))
    for _ in range(3):
        assert appserver.ask()[0] == 200
    assert appserver.report() == PastLimit("requests")
    assert appserver.ask()[2]["LB-Status"] == "OK"
    appserver.order(DRAIN)
    assert appserver.report() == Empty()


def test_past_its_memory_it_reports_that(start: Start) -> None:
    appserver = ready(start("eats", max_memory=150_000_000))
    assert appserver.ask()[0] == 200
    assert appserver.report() == PastLimit("memory")


def test_past_its_age_it_reports_that(start: Start) -> None:
    assert ready(start("hello", max_age=0.1)).report() == PastLimit("age")


def test_it_warms_up_before_it_is_ready(start: Start) -> None:
    appserver = ready(start("warm", warm_up=["/login", "/a%20b?c=d%20e", "/moved"], max_requests=2))
    # Nothing of it counts: no session, no request.
    appserver.order(DRAIN)
    assert appserver.report() == Empty()
    appserver.order(UNDRAIN)
    appserver.wait_for_status("OK")
    asked = [
        ("/login", "", "/login", "GET", "", 3),
        ("/a b", "c=d%20e", "/a%20b?c=d%20e", "GET", "", 3),
        ("/moved", "", "/moved", "GET", "", 3),
    ]
    answer = appserver.ask(path="/asked", LB_Path="/asked")[1].decode()
    assert answer.startswith(repr(asked)[:-1])


@pytest.mark.parametrize(
    ("page", "why"), [("/bad", "500 Bad"), ("/gone", "404 Not Found"), ("/raises", "500 Internal Server Error")]
)
def test_a_page_that_is_not_right_keeps_it_from_being_ready(start: Start, page: str, why: str) -> None:
    appserver = start("warm", warm_up=["/", page, "/never"])
    assert appserver.report() == Failed(f"warm-up: {page} answered {why}")
    assert appserver.report() is None
    code, _, err = appserver.ended()
    assert code == CANNOT_START
    assert f"AppServer 3: cannot start: warm-up: {page} answered {why}" in err


def test_an_order_to_stop_ends_the_warm_up(start: Start) -> None:
    appserver = start("warm", warm_up=["/hangs"])
    status: dict[str, Any] = {}
    while status.get("in_flight") != 1:
        with contextlib.suppress(ConnectionRefusedError):
            status = json.loads(appserver.ask(path="/__lb__/status", LB_Probe="probe's")[1])
    assert status["ready"] is False
    appserver.order(STOP)
    assert appserver.report() is None
    assert appserver.ended()[0] == 0


def test_ordered_to_stop_it_refuses_finishes_what_is_in_flight_and_exits(start: Start) -> None:
    appserver = ready(start("slow"))
    connection, idle = appserver.connect(), appserver.connect()
    connection.request("POST", "/", headers={**LB, "Content-Length": "4"})
    answer = connection.getresponse()
    assert answer.read(6) == b"begun "
    appserver.order(STOP)
    appserver.wait_for_status("DYING")
    idle.request("GET", "/", headers=LB)
    refusal = idle.getresponse()
    assert (refusal.status, refusal.headers["LB-Refused"]) == (421, "DYING")
    refusal.read()
    connection.send(b"done")
    assert answer.read() == b"done"
    assert appserver.ended() == (0, "", "")
    connection.close()
    idle.close()


def test_stopped_by_sigstop_at_its_end_it_still_refuses_requests_that_came_meanwhile(start: Start) -> None:
    appserver = ready(start("hello"))
    kept, fresh = appserver.connect(), [appserver.connect() for _ in range(20)]
    kept.request("GET", "/", headers=LB)
    assert kept.getresponse().read() == b"hello"
    appserver.order(STOP)
    appserver.wait_for_status("DYING")
    appserver.order(signal.SIGSTOP)
    for connection in (kept, *fresh):
        connection.request("POST", "/", b"abc", headers=LB)
    with pytest.raises(subprocess.TimeoutExpired):
        appserver.process.wait(2 * REFUSE_TIME)
    appserver.order(signal.SIGCONT)
    for connection in (kept, *fresh):
        answer = connection.getresponse()
        assert (answer.status, answer.headers["LB-Refused"]) == (421, "DYING")
        connection.close()
    assert appserver.ended() == (0, "", "")


def test_what_does_not_end_within_its_grace_is_abandoned(start: Start) -> None:
    appserver = ready(start("slow", stop_grace=0.1))
    connection = appserver.connect()
    connection.request("POST", "/", headers={**LB, "Content-Length": "4"})
    answer = connection.getresponse()
    appserver.order(STOP)
    code, _, err = appserver.ended()
    assert code == 0
    assert "1 request abandoned after stop_grace" in err
    with pytest.raises((http.client.IncompleteRead, ConnectionResetError)):
        answer.read()
    connection.close()


def test_a_port_in_use_is_reported(folder: Path, start: Start) -> None:
    first = ready(start("hello"))
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = "{}:{}".format(*taken.getsockname())
        second = AppServer(folder, Assignment("site_:hello", caller_key="x"), ["--address", address])
        try:
            report = second.report()
            assert isinstance(report, Failed)
            assert report.port
            assert address in report.why
            assert second.report() is None
            code, _, err = second.ended()
            assert (code, address in err) == (CANNOT_START, True)
        finally:
            second.close()
    assert first.ask()[0] == 200


def test_a_port_that_is_taken_while_the_application_is_imported_is_reported(folder: Path, start: Start) -> None:
    os.mkfifo(folder / "go")
    (folder / "late.py").write_text("open('go').read()\nfrom site_ import hello\n")
    appserver = start("late:hello")
    with open(folder / "go", "w"):
        appserver._reserved.listen()
    report = appserver.report()
    assert isinstance(report, Failed)
    assert report.port
    assert appserver.ended()[0] == CANNOT_START


def test_an_address_that_is_not_this_machines_is_no_matter_of_the_port(folder: Path) -> None:
    appserver = AppServer(folder, Assignment("site_:hello", caller_key="x"), ["--address", "192.0.2.1:9000"])
    try:
        report = appserver.report()
        assert isinstance(report, Failed)
        assert not report.port
        assert appserver.ended()[0] == CANNOT_START
    finally:
        appserver.close()


@pytest.mark.parametrize(
    ("module", "app", "told"),
    [
        ("raise ImportError('no such thing')", "bad:app", "ImportError: no such thing"),
        ("import sys; sys.exit('settings are missing')", "bad:app", "SystemExit: settings are missing"),
        ("app = 5", "bad:app", "TypeError: bad:app is not callable"),
        ("", "bad:app", "AttributeError: module 'bad' has no attribute 'app'; the module is {folder}/bad.py"),
        ("", "absent:app", "No module named 'absent'; looked for by {python} in {folder}, "),
        (
            "\n\nimport absent.part",
            "bad:app",
            "'absent' ({folder}/bad.py, line 3), which imports it; looked for by {python} in {folder}",
        ),
        ("class Own(BaseException): pass\nraise Own('text')", "bad:app", "Own: text ({folder}/bad.py, line 2)"),
        ("raise KeyboardInterrupt", "bad:app", "KeyboardInterrupt ({folder}/bad.py, line 1)"),
        ("raise GeneratorExit('x')", "bad:app", "GeneratorExit: x"),
        ("raise ValueError('half \\ud800 \\n\\x1b')", "bad:app", "ValueError: half \\ud800 \\n\\x1b"),
        ("raise ValueError('x' * 600_000)", "bad:app", "xxx …"),
        ("class Bad(Exception):\n  def __str__(self): 1/0\nraise Bad", "bad:app", "Bad: (its text cannot be shown)"),
    ],
)
def test_an_application_that_cannot_be_imported_is_reported_with_its_traceback(
    folder: Path, start: Start, module: str, app: str, told: str
) -> None:
    told = told.replace("{folder}", str(folder)).replace("{python}", sys.executable)
    (folder / "bad.py").write_text(module)
    appserver = start(app)
    report = appserver.report()
    assert isinstance(report, Failed)
    assert told in report.why
    assert not report.port
    code, _, err = appserver.ended()
    assert code == CANNOT_START
    assert told in err
    assert err.count("\n") == 1  # the monitor says the traceback, once for all
    frames = [line for line in report.trace if line.startswith('  File "')]
    assert not [line for line in frames if "lbadaptor" in line or "importlib" in line]
    assert bool(module and module != "app = 5") == bool(frames)
    assert len(encode(report)) < 50_000


def test_without_a_monitor_its_traceback_is_said_by_itself(folder: Path, start: Start) -> None:
    (folder / "bad.py").write_text("1/0")
    appserver = AppServer(folder, None, ["bad:app"])
    try:
        code, _, err = appserver.ended()
    finally:
        appserver.close()
    assert code == CANNOT_START
    assert "ZeroDivisionError: division by zero" in err.splitlines()[-1]
    assert "Traceback" in err


def test_a_start_that_hangs_says_where(folder: Path, start: Start) -> None:
    """All three hang at once, and have time enough to reach their line on a machine that is busy."""
    hang = {
        "waits": ("import threading\n\nthreading.Event().wait()", "line 3, and there in"),
        "turns": ("def turn():\n    while True: pass\nturn()", "line 2, in turn"),
        "accepts": ("import socket\ns = socket.create_server(('', 0))\ns.accept()", "line 3, and there"),
    }
    started = {}
    for name, (module, _) in hang.items():
        (folder / f"{name}.py").write_text(module)
        started[name] = start(f"{name}:app", start_timeout=2.0, ready_by=time.monotonic() + 6.0)
    for name, appserver in started.items():
        report = appserver.report()
        assert isinstance(report, Failed)
        where = f"{name}:app did not get ready within 2 s: its main thread is in {folder}/{name}.py, {hang[name][1]}"
        assert report.why.startswith(where)
        assert [line for line in report.trace if f'{folder}/{name}.py"' in line]
        assert appserver.process.poll() is None  # the monitor ends it


def test_a_start_whose_time_is_over_before_the_application_is_reached_does_not_blame_it(
    folder: Path, start: Start
) -> None:
    report = start("hello", start_timeout=2.0, ready_by=time.monotonic()).report()
    assert isinstance(report, Failed)
    assert "did not get ready within 2 s: no thread is in the application; its main thread is in " in report.why


def test_a_warm_up_that_hangs_says_where(folder: Path, start: Start) -> None:
    appserver = start("warm", warm_up=("/hangs",), start_timeout=3.0, ready_by=time.monotonic() + 6.0)
    report = appserver.report()
    assert isinstance(report, Failed)
    assert f"a request of its warm-up is in {folder}/site_.py, line " in report.why


def test_a_start_in_time_is_no_failure(start: Start) -> None:
    appserver = start("hello", start_timeout=0.2, ready_by=time.monotonic() + 20)
    assert appserver.report() == Ready()
    appserver.order(STOP)
    assert appserver.report() is None


def test_environment_folder_path_and_the_users_own_monitor_reach_the_application(folder: Path, start: Start) -> None:
    (folder / "lib").mkdir()
    (folder / "lib" / "monitor.py").write_text("WHOSE = 'mine'")
    path = os.pathsep.join([str(folder / "lib"), PROJECT])
    appserver = ready(start("where", environment={"PYTHONPATH": path, "FLAVOUR": "vanilla"}))
    assert appserver.ask()[1].decode() == f"{folder}|vanilla|mine"


def test_a_monitor_module_beside_the_application_is_the_users(folder: Path, start: Start) -> None:
    (folder / "monitor.py").write_text("WHOSE = 'beside'")
    appserver = ready(start("where", environment={"FLAVOUR": "plain"}))
    assert appserver.ask()[1].endswith(b"|beside")


def test_the_root_logger_is_the_applications(start: Start) -> None:
    appserver = ready(start("logs"))
    assert appserver.ask()[0] == 200
    appserver.order(STOP)
    assert "MINE logged" in appserver.ended()[2]


def test_it_outlives_its_monitor(start: Start) -> None:
    appserver = ready(start("hello"))
    appserver._lines.close()
    appserver.channel.close()
    appserver.order(DRAIN)  # which it would report
    appserver.wait_for_status("DYING")
    appserver.order(UNDRAIN)
    appserver.wait_for_status("OK")
    assert appserver.ask()[0] == 200
    appserver.order(STOP)
    assert appserver.ended() == (0, "", "")


def test_without_a_handover_it_does_not_start(folder: Path) -> None:
    appserver = AppServer(folder, None, ["--channel", "0"])
    try:
        assert appserver.ended()[0] != 0
    finally:
        appserver.close()


def test_a_monitor_that_goes_away_before_its_handover_ends_it(folder: Path) -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        process = subprocess.Popen(
            [sys.executable, "-m", "lbadaptor.appserver", "--channel", str(theirs.fileno())],
            cwd=folder,
            env={"PATH": os.environ["PATH"], "PYTHONPATH": PROJECT},
            pass_fds=[theirs.fileno()],
            stderr=subprocess.PIPE,
        )
        theirs.close()
        ours.sendall(b'{"app": ')
        ours.close()
        _, err = process.communicate(timeout=WAIT)
    assert process.returncode != 0
    assert b"before it sent the assignment" in err


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_alone_it_serves_a_browser_until_ctrl_c(folder: Path, number: int) -> None:
    appserver = AppServer(folder, None, ["site_:session", "--session-cookie", "_SID_"])
    try:
        assert appserver.process.stdout is not None
        told = appserver.process.stdout.readline().decode()
        assert "http://{}:{}/".format(*appserver.address) in told
        connection = appserver.connect()
        connection.request("GET", "/")
        response = connection.getresponse()
        assert (response.status, response.read()) == (200, b"welcome")
        assert response.headers.get_all("Set-Cookie") == ["_SID_=mine; Path=/"]
        connection.close()
        appserver.order(number)
        assert appserver.ended()[0] == 0
    finally:
        appserver.close()


def test_alone_it_needs_an_application(folder: Path) -> None:
    appserver = AppServer(folder, None, [])
    try:
        code, _, err = appserver.ended()
        assert (code, "module:callable" in err) == (2, True)
    finally:
        appserver.close()
