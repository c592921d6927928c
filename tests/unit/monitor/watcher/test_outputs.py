"""Where lines go: standard error, the journal, a file that logrotate moves away."""

from __future__ import annotations

import json
import os
import socket
import stat
from pathlib import Path

import pytest

from lbadaptor.log import loggers
from lbadaptor.log.writer import BACKLOG, Writer
from monitor.contract.captured import CapturedName
from monitor.watcher.lines import outputs
from monitor.watcher.lines.line import LONGEST, Line
from monitor.watcher.lines.outputs import BATCH, File, Journal, Output, StandardError

NAME = CapturedName(17, 2)


def lines(*given: str, priority: int = 6) -> list[Line]:
    return [Line(NAME, 1764313700.5, priority, text) for text in given]


def put_all(output: Output, given: list[Line]) -> int:
    """How many it takes before it takes none."""
    taken = 0
    while taken < len(given) and (count := output.put(given[taken:])):
        taken += count
    return taken


# Standard error.


def test_lines_wait_while_nobody_reads_standard_error() -> None:
    reader, writer = os.pipe()
    made = Writer(writer, "")
    output = StandardError(made, json=False)
    given = lines(*(f"{number} {'x' * LONGEST}" for number in range(100)))
    taken = put_all(output, given)
    assert 0 < taken < 100
    assert made._size <= BACKLOG
    read = b""
    os.set_blocking(reader, False)
    while taken < 100 or not output.done:
        read += os.read(reader, 1 << 20)
        taken += put_all(output, given[taken:])
    read += os.read(reader, 1 << 20)
    assert [line.split()[2] for line in read.decode().splitlines()] == [str(number) for number in range(100)]
    for descriptor in (reader, writer, made._descriptor):
        os.close(descriptor)


@pytest.mark.parametrize("marked", [False, True])
def test_a_line_has_a_mark_for_the_journal(tmp_path: Path, marked: bool) -> None:
    with open(tmp_path / "stderr", "wb") as file:
        made = Writer(file.fileno(), "")
        made.journal = marked
        assert StandardError(made, json=False).put(lines("it fails", priority=3)) == 1
        os.close(made._descriptor)
    assert (tmp_path / "stderr").read_text() == ("<3>" if marked else "") + "AppServer 2: it fails\n"


# The journal.


def test_the_journal_gets_fields(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as journal:
        journal.bind(str(tmp_path / "socket"))
        output = Journal(StandardError(Writer(2, ""), json=False), json=False, path=tmp_path / "socket")
        assert output.put(lines("it fails", priority=3)) == 1
        fields = dict(line.split("=", 1) for line in journal.recv(1 << 16).decode().splitlines())
        assert fields == {
            "MESSAGE": "AppServer 2: it fails",
            "PRIORITY": "3",
            "SYSLOG_IDENTIFIER": "lbmonitor",
            "LBADAPTOR_SLOT": "2",
            "LBADAPTOR_GENERATION": "17",
        }
        taken = put_all(output, lines(*map(str, range(1000))))
        assert 0 < taken < 1000, "it is full, and nothing is lost"
        assert json.loads(journal.recv(1 << 16).decode().splitlines()[0].removeprefix("MESSAGE=AppServer 2: ")) == 0
        assert put_all(output, lines("next")) == 1
    output.close()


def test_without_a_journal_lines_go_to_standard_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with open(tmp_path / "stderr", "wb") as file:
        made = Writer(file.fileno(), "")
        made.journal = True
        monkeypatch.setattr(loggers.program, "output", made)
        monkeypatch.setattr(outputs, "JOURNAL", tmp_path / "absent")
        assert outputs.output("", json=False).put(lines("a line")) == 1
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as journal:
            journal.bind(str(tmp_path / "socket"))
            monkeypatch.setattr(outputs, "JOURNAL", tmp_path / "socket")
            output = outputs.output("", json=False)
            assert isinstance(output, Journal)
        assert output.put(lines("it is gone", "still")) == 1
        output.close()
        os.close(made._descriptor)
    assert (tmp_path / "stderr").read_text() == "<6>AppServer 2: a line\n<6>AppServer 2: it is gone\n"


# A file.


def test_a_file_is_opened_again_when_it_was_moved_away(tmp_path: Path) -> None:
    path = tmp_path / "app.log"
    output = File(path, json=False)
    assert output.put(lines("one")) == 1
    path.rename(tmp_path / "app.log.1")
    assert output.put(lines("two")) == 1
    os.truncate(path, 0)  # logrotate's copytruncate
    assert output.put(lines("three", "four")) == 2
    assert (tmp_path / "app.log.1").read_text() == "2025-11-28T07:08:20.500Z info AppServer 2.17: one\n"
    assert path.read_text().splitlines() == [
        "2025-11-28T07:08:20.500Z info AppServer 2.17: three",
        "2025-11-28T07:08:20.500Z info AppServer 2.17: four",
    ]
    assert stat.S_IMODE(path.stat().st_mode) & 0o137 == 0
    output.close()


def test_json(tmp_path: Path) -> None:
    output = File(tmp_path / "app.log", json=True)
    assert put_all(output, lines(*map(str, range(BATCH + 10)))) == BATCH + 10
    told = [json.loads(line) for line in (tmp_path / "app.log").read_text().splitlines()]
    assert [one["text"] for one in told] == [str(number) for number in range(BATCH + 10)]
    output.close()


def test_lines_wait_until_a_file_can_be_written(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loggers, "_threshold", loggers.INFO)
    path = tmp_path / "missing" / "app.log"
    output = File(path, json=False)
    assert [output.put(lines("one")) for _ in range(3)] == [0, 0, 0]
    assert [record.getMessage() for record in caplog.records] == [
        f"[log] file {path}: No such file or directory; the AppServers' lines wait, and it is tried again"
    ]
    path.parent.mkdir()
    assert output.put(lines("one")) == 1
    assert caplog.messages[-1] == f"the AppServers' lines go to {path} again"
    assert path.read_text().count("one") == 1
    output.close()


def test_a_full_disk_loses_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    output = File(tmp_path / "app.log", json=False)
    assert output.put(lines("one")) == 1
    real, room = os.write, 10

    def full(descriptor: int, data: bytes) -> int:
        nonlocal room
        if not room:
            raise OSError(28, "No space left on device")
        taken, room = data[:room], max(0, room - len(data))
        return real(descriptor, taken)

    monkeypatch.setattr(outputs.os, "write", full)
    assert output.put(lines("two")) == 1
    assert not output.done
    assert output.put(lines("three")) == 0
    room = 1 << 20
    assert output.put(lines("three")) == 1
    assert output.done
    told = (tmp_path / "app.log").read_text().splitlines()
    assert [line.rpartition(" ")[2] for line in told] == ["one", "two", "three"]
    output.close()
