"""The AppServer as a process: assignment, reports, orders, and its end."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import signal
import socket
import subprocess
from pathlib import Path

import pytest
from appserver_fixture import LB, PROJECT, AppServer, Start, ready

from lbadaptor.appserver.main import REFUSE_TIME
from lbadaptor.appserver.process.messages import (
    DRAIN,
    STOP,
    UNDRAIN,
    Empty,
    PastLimit,
)


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
    for _ in range(10):  # on a busy machine it may have ended before SIGSTOP comes
        appserver = ready(start("hello"))
        kept, fresh = appserver.connect(), [appserver.connect() for _ in range(20)]
        kept.request("GET", "/", headers=LB)
        assert kept.getresponse().read() == b"hello"
        appserver.order(STOP)
        with contextlib.suppress(ConnectionError, http.client.HTTPException):
            appserver.wait_for_status("DYING")
        appserver.order(signal.SIGSTOP)
        found = os.waitid(os.P_PID, appserver.process.pid, os.WSTOPPED | os.WEXITED | os.WNOWAIT)
        if found is not None and found.si_code == os.CLD_STOPPED:
            break
        kept.close()
    else:
        pytest.fail("it never takes as long as its refusals do")
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
