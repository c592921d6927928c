"""lbctl log: the last lines of a slot, from the files in the run folder."""

from __future__ import annotations

import os
import re
from pathlib import Path

import pytest

from lbadaptor.log import captured
from monitor.ctl import main
from monitor.ctl.commands import log as command


@pytest.fixture
def logs(tmp_path: Path) -> Path:
    folder = tmp_path / "logs"
    folder.mkdir()
    return folder


def told(logs: Path, capsys: pytest.CaptureFixture[str], *words: str, status: int = 0) -> str:
    assert main.main(["log", *words, "--socket", str(logs.parent / "control.sock")]) == status
    said = capsys.readouterr()
    return (said.err if status else said.out).replace(str(logs), "LOGS")


def test_the_last_lines_of_a_slot(logs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (logs / "2.12").write_bytes(b"<6>one\n<3>two \x1b[31mred\x1b]0;x\x07\nthe rest")
    (logs / "3.13").write_bytes(b"another slot\n")
    assert told(logs, capsys, "2") == "one\ntwo red\\x1b]0;x\\x07\nthe rest\n"
    assert told(logs, capsys, "2", "-n", "1") == "the rest\n"
    assert told(logs, capsys, "2", "-n", "0") == ""


def test_an_appserver_that_has_said_nothing(logs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (logs / "2.12").touch()
    assert main.main(["log", "2", "--socket", str(logs.parent / "control.sock")]) == 0
    assert capsys.readouterr() == ("", "lbctl: slot 2 has said nothing\n")


def test_lines_of_the_one_before_it(logs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (logs / "2.12").write_text("its last\nwords\n")
    (logs / "2.13").write_text("new\n")
    said = told(logs, capsys, "2", "-n", "2")
    moment = r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d"
    headings = [rf"--- AppServer 2\.{generation}, last line {moment} ---\n" for generation in (12, 13)]
    assert re.fullmatch(f"{headings[0]}words\n{headings[1]}new\n", said)
    assert told(logs, capsys, "2", "--generation", "12") == "its last\nwords\n"
    assert re.fullmatch(f"{headings[1]}new\n", told(logs, capsys, "2", "-n", "1"))


def test_what_was_given_back_is_left_out(logs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    line = b"x" * 999 + b"\n"
    (logs / "2.12").write_bytes(line * 20 + b"end\n")
    with open(logs / "2.12", "r+b") as file:
        assert captured.punch(file.fileno(), 16_384)
    said = told(logs, capsys, "2").splitlines()
    assert ({*said[:-1]}, len(said), said[-1]) == ({"x" * 999}, 4, "end")


def test_the_template(logs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (logs / "template.12").write_text("imported\n")
    assert told(logs, capsys, "template") == "imported\n"


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("2",), "lbctl: LOGS has no lines of slot 2\n"),
        (("template",), "lbctl: LOGS has no lines of the template\n"),
        (("2", "--generation", "9"), "lbctl: LOGS has no lines of slot 2 of generation 9\n"),
    ],
)
def test_there_are_none(logs: Path, capsys: pytest.CaptureFixture[str], words: tuple[str, ...], said: str) -> None:
    assert told(logs, capsys, *words, status=1) == said
    logs.rmdir()
    assert told(logs, capsys, *words, status=1) == said


def test_it_follows_and_goes_on_with_the_next_appserver(
    logs: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    file = logs / "2.12"
    file.write_text("one\ntw")

    def write(path: Path, text: str) -> None:
        with open(path, "a") as opened:
            opened.write(text)

    turns = [
        lambda: write(file, "o\n"),
        lambda: (write(file, "last words"), write(logs / "2.13", "new\n")),
        lambda: os.truncate(logs / "2.13", 0),
        lambda: write(logs / "2.13", "more\n"),
    ]

    def sleep(_: float) -> None:
        if not turns:
            raise KeyboardInterrupt
        turns.pop(0)()

    monkeypatch.setattr(command.time, "sleep", sleep)
    assert main.main(["log", "2", "--follow", "--socket", str(logs.parent / "control.sock")]) == main.INTERRUPTED
    *lines, heading, new, more = capsys.readouterr().out.splitlines()
    assert lines == ["one", "two", "last words"]
    assert heading.startswith("--- AppServer 2.13, last line ")
    assert (new, more) == ("new", "more")
