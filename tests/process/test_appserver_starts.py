"""How an AppServer starts, warms up, and why it cannot."""

from __future__ import annotations

import contextlib
import json
import os
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from appserver_fixture import PROJECT, WAIT, AppServer, Start, ready

from lbadaptor.appserver.main import CANNOT_START
from lbadaptor.appserver.process.messages import (
    DRAIN,
    STOP,
    UNDRAIN,
    Assignment,
    Empty,
    Failed,
    Ready,
    encode,
)


def test_a_store_that_cannot_be_counted_keeps_it_from_being_ready(start: Start) -> None:
    appserver = start("hello", session_count="flask")
    why = 'session_count = "flask": the application has no sessions of that kind'
    assert appserver.report() == Failed(why)
    assert appserver.report() is None
    assert appserver.ended() == (CANNOT_START, "", f"AppServer 3: cannot start: {why}\n")


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
