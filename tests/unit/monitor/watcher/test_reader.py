"""Reading the file of an AppServer, which grows, has holes, and is emptied by strangers."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from lbadaptor.log import captured
from monitor.contract.captured import KEPT_BYTES, CapturedName
from monitor.watcher.lines import reader as module
from monitor.watcher.lines.line import LONGEST
from monitor.watcher.lines.reader import KEPT_UNREAD, MOST_UNREAD, STEP, Reader

NAME = CapturedName(17, 2)


class Stage:
    def __init__(self, folder: Path) -> None:
        self.folder = folder
        flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT
        self.writer = os.open(folder / str(NAME), flags, 0o640)
        self.reader = Reader(folder, NAME, None)

    def write(self, data: bytes) -> None:
        os.write(self.writer, data)

    def take(self, over: bool = False, most: int = 1 << 20) -> list[str]:
        self.reader.pass_over()
        return [said.text for said in self.reader.take(most, over)]

    @property
    def room(self) -> int:
        return os.fstat(self.writer).st_blocks * 512


@pytest.fixture
def stage(tmp_path: Path) -> Iterator[Stage]:
    stage = Stage(tmp_path)
    yield stage
    stage.reader.close()
    os.close(stage.writer)


def test_a_line_is_read_when_it_has_ended(stage: Stage) -> None:
    stage.write(b"one\ntw")
    assert stage.take() == ["one"]
    assert stage.take() == []
    stage.write(b"o\n\nthree\n")
    assert stage.take() == ["two", "", "three"]
    stage.write(b"its last wor")
    assert stage.take() == []
    assert stage.take(over=True) == ["its last wor"]
    assert stage.take(over=True) == []


def test_no_more_is_read_than_asked_for(stage: Stage) -> None:
    stage.write(b"".join(b"line %d\n" % number for number in range(10_000)))
    read = []
    while some := stage.take(most=LONGEST):
        assert len(some) < LONGEST / 6
        read += some
    assert read == [f"line {number}" for number in range(10_000)]


def test_a_long_line_comes_in_pieces(stage: Stage) -> None:
    long = b"x" * (5 * LONGEST // 2)
    stage.write(b"<3>" + long[3:] + b"\nshort\n" + long)
    first, second, third, short = stage.reader.take(1 << 20, over=False)
    assert [len(one.text) for one in (first, second, third)] == [LONGEST - 3 + 2, LONGEST + 2, LONGEST // 2]
    assert {one.priority for one in (first, second, third)} == {3}
    assert (first.text[-2:], third.text[-2:], short.text) == (" …", "xx", "short")
    assert [len(one) for one in (*stage.take(), *stage.take())] == [LONGEST + 2] * 2
    assert stage.take() == []
    stage.write(b"\n")
    assert [len(one) for one in stage.take()] == [LONGEST // 2]


def test_what_is_read_is_given_back_but_for_its_end(stage: Stage) -> None:
    for _ in range(40):
        stage.write(b"y" * 99_999 + b"\n")
        stage.take()
        stage.reader.give_back()
        assert stage.room <= KEPT_BYTES + STEP + 100_000 + captured.PAGE
    stage.reader.give_back(all_but_kept=True)
    assert stage.room <= KEPT_BYTES + 2 * captured.PAGE
    assert os.fstat(stage.writer).st_size == 4_000_000
    again = Reader(stage.folder, NAME, None)  # its position is not known
    assert 4_000_000 - again.position <= KEPT_BYTES + captured.PAGE
    again.close()


def test_a_flood_is_passed_over_and_counted(stage: Stage) -> None:
    stage.write(b"first\n")
    flood = b"z" * 99 + b"\n"
    stage.write(flood * (MOST_UNREAD // 100 + 100))
    size = stage.reader.size
    lost, *lines = stage.take(most=1 << 21)
    assert lost == f"{size - 100 * len(lines)} bytes of its log lost: more was written than is forwarded"
    assert KEPT_UNREAD - 100 <= 100 * len(lines) <= KEPT_UNREAD
    assert {*lines} == {"z" * 99}


def test_what_its_owner_gave_back_unread_is_counted(stage: Stage) -> None:
    stage.write(b"a" * (2 * captured.PAGE - 1) + b"\nbehind\n")
    assert captured.punch(stage.writer, captured.PAGE + 1)
    lost, behind = stage.take()
    assert lost == f"{2 * captured.PAGE} bytes of its log lost: more was written than is forwarded"
    assert behind == "behind"


def test_somebody_empties_it(stage: Stage) -> None:
    stage.write(b"before\n")
    assert stage.take() == ["before"]
    os.truncate(stage.folder / str(NAME), 0)
    stage.write(b"new\n")
    assert stage.take() == ["somebody has emptied the file of its log; lines may be lost", "new"]


def test_whether_it_is_written_to(stage: Stage) -> None:
    assert not stage.reader.is_over(newest=True)
    stage.reader.give_back(all_but_kept=True)
    other = os.open(stage.folder / str(NAME), os.O_WRONLY)
    os.dup2(other, stage.writer)
    os.close(other)
    assert not stage.reader.is_over(newest=False)
    os.dup2(os.open(os.devnull, os.O_RDONLY), stage.writer)
    assert stage.reader.is_over(newest=True)


def test_a_file_system_without_leases_counts_the_newest_as_written_to(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuses(*_: object) -> int:
        raise OSError(22, "Invalid argument")

    monkeypatch.setattr(fcntl, "fcntl", refuses)
    assert not stage.reader.is_over(newest=True)
    assert stage.reader.is_over(newest=False)


def test_a_file_system_without_holes_empties_it_when_all_is_read(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module.captured, "punch", lambda *_: False)
    line = b"l" * 99_999 + b"\n"
    for _ in range(12):
        stage.write(line)
        stage.take()
        stage.reader.give_back()
    stage.write(b"next\n")
    assert stage.take() == ["next"]
    assert stage.reader.size < captured.KEPT
