"""The AppServers' own access log: its lines, and the file that they go to."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any

import pytest

from lbadaptor.appserver.http.access_log import LONGEST, LOOK, AccessLog, CountedAnswer
from lbadaptor.appserver.wsgi.environ import Request
from lbadaptor.http1.states import REQUEST

LINES = (
    *("LB-Session: held", "LB-Remote-Addr: 192.0.2.7", "LB-Request-Uri: /app/page?x=1", "LB-Request-Id: Z1@a-b"),
    *("LB-Server-Protocol: HTTP/2.0", "Referer: https://www.example.org/", "User-Agent: Test/1"),
)


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


class Sink:
    keep_alive = True
    state = REQUEST

    def send(self, data: bytes) -> None:
        pass


@pytest.fixture
def clock() -> Clock:
    return Clock()


def request(*lines: str, method: str = "GET") -> Request:
    made = Request("\r\n".join((f"{method} /page?x=1 HTTP/1.1", *lines)))
    made.since = 99.9988
    return made


def answered(
    blocks: tuple[bytes, ...] = (b"hello",), method: str = "GET", status: str = "200 OK", *headers: tuple[str, str]
) -> CountedAnswer:
    """An answer that was sent."""

    def application(environ: Any, start_response: Any) -> Any:
        start_response(status, list(headers))
        return list(blocks)

    answer = CountedAnswer(Sink(), method, True, lambda headers, _: headers, lambda: b"", lambda _: None)
    answer.run(application, {})
    return answer


def written(path: Path) -> list[str]:
    return path.read_text().splitlines()


def test_a_line_is_combined_with_slot_verdict_id_and_microseconds(tmp_path: Path, clock: Clock) -> None:
    path = tmp_path / "access.log"
    AccessLog(str(path), 2, clock).record(request(*LINES), answered())
    [line] = written(path)
    assert re.fullmatch(
        r'192\.0\.2\.7 - - \[\d\d/[A-Z][a-z]{2}/\d{4}:\d\d:\d\d:\d\d [+-]\d{4}\] "GET /app/page\?x=1 HTTP/2\.0" '
        r'200 5 "https://www\.example\.org/" "Test/1" slot=2 verdict=held id=Z1@a-b us=1200',
        line,
    )
    assert path.stat().st_mode & 0o777 == 0o640


@pytest.mark.parametrize(("said", "verdict"), [("held", "held"), ("lost", "lost"), ("none", "none")])
def test_the_verdict_is_what_the_adaptor_said(tmp_path: Path, clock: Clock, said: str, verdict: str) -> None:
    path = tmp_path / "access.log"
    AccessLog(str(path), 2, clock).record(request(f"LB-Session: {said}"), answered())
    assert written(path)[0].endswith(f'"-" "-" slot=2 verdict={verdict} id=- us=1200')


def test_no_visitor_can_forge_a_line(tmp_path: Path, clock: Clock) -> None:
    path = tmp_path / "access.log"
    evil = 'x" 200\\ \xe4\t' + "y" * 2 * LONGEST
    lines = ("LB-Remote-User: a%0Ab c", f"User-Agent: {evil}", "LB-Request-Id: a b")
    AccessLog(str(path), 2, clock).record(request(*lines), answered())
    [line] = written(path)
    assert " - a\\x0ab%20c [" in line
    assert '"x\\" 200\\\\ \\xe4\\x09yyy' in line
    assert line.count("y") == LONGEST - len('x" 200\\ \xe4\t')
    assert " id=- us=" in line


@pytest.mark.parametrize(
    ("answer", "told"),
    [
        (answered((b"one", b"two")), "200 6"),
        (answered((b"", b"")), "200 -"),
        (answered((b"more than that",), "GET", "206 Partial Content", ("Content-Length", "4")), "206 4"),
        (answered((b"body",), "HEAD"), "200 -"),
        (answered((b"body",), "GET", "304 Not Modified"), "304 -"),
    ],
)
def test_status_and_bytes_are_what_was_sent(tmp_path: Path, clock: Clock, answer: CountedAnswer, told: str) -> None:
    path = tmp_path / "access.log"
    AccessLog(str(path), 2, clock).record(request(*LINES), answer)
    assert f'HTTP/2.0" {told} "' in written(path)[0]


def test_a_file_that_was_moved_away_is_left(tmp_path: Path, clock: Clock) -> None:
    """As logrotate does it."""
    path, moved = tmp_path / "access.log", tmp_path / "access.log.1"
    log = AccessLog(str(path), 2, clock)
    log.record(request(*LINES), answered())
    path.rename(moved)
    log.record(request(*LINES), answered())
    assert (len(written(moved)), path.exists()) == (2, False)
    clock.now += LOOK
    log.record(request(*LINES), answered())
    assert (len(written(moved)), len(written(path))) == (2, 1)


def test_a_missing_folder_is_told_once_and_lines_come_when_it_is_there(
    tmp_path: Path, clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "logs" / "access.log"
    log = AccessLog(str(path), 2, clock)
    for _ in range(3):
        log.record(request(*LINES), answered())
        clock.now += LOOK
    assert [record.getMessage() for record in caplog.records] == [
        f"the access log {path} cannot be written: No such file or directory; lines are lost"
    ]
    path.parent.mkdir()
    log.record(request(*LINES), answered())
    assert len(written(path)) == 1
    assert caplog.records[-1].getMessage() == f"the access log {path} is written again; lines lost: 3"


def test_an_error_of_ours_is_told_too(tmp_path: Path, clock: Clock, caplog: pytest.LogCaptureFixture) -> None:
    path = tmp_path / "access.log"
    log = AccessLog(str(path), 2, clock)
    without_time = request(*LINES)
    del without_time.since
    for _ in range(3):
        log.record(without_time, answered())
    [told] = [record.getMessage() for record in caplog.records]
    assert told.startswith(f"the access log {path} cannot be written: ")
    assert "since" in told


def test_a_full_disk_is_told_once(clock: Clock, caplog: pytest.LogCaptureFixture) -> None:
    log = AccessLog("/dev/full", 2, clock)
    for _ in range(3):
        log.record(request(*LINES), answered())
        clock.now += LOOK
    assert [record.getMessage() for record in caplog.records] == [
        "the access log /dev/full cannot be written: No space left on device; lines are lost"
    ]


def test_the_rest_of_a_line_that_a_full_disk_took_is_a_line_of_its_own(
    tmp_path: Path, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, write = tmp_path / "access.log", os.write
    log = AccessLog(str(path), 2, clock)
    with monkeypatch.context() as patch:
        patch.setattr(os, "write", lambda descriptor, data: write(descriptor, data[:10]))
        log.record(request(*LINES), answered())
    log.record(request(*LINES), answered())
    first, second = written(path)
    assert (len(first), second[:10]) == (10, "192.0.2.7 ")


def test_what_now_has_the_number_of_a_descriptor_that_the_application_closed_is_not_written_to(
    tmp_path: Path, clock: Clock
) -> None:
    path, other = tmp_path / "access.log", tmp_path / "other"
    log = AccessLog(str(path), 2, clock)
    log.record(request(*LINES), answered())
    with other.open("wb") as file:
        os.dup2(file.fileno(), log._descriptor)
        taken = log._descriptor
        log.record(request(*LINES), answered())
        assert (len(written(path)), other.read_bytes()) == (2, b"")
        os.close(taken)
    os.close(log._descriptor)
