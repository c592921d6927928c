"""Forwarding: each line once, in order, whoever is killed; old files are removed."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from monitor.contract.captured import KEPT_BYTES, POSITIONS, CapturedName
from monitor.watcher.lines import forwarder as module
from monitor.watcher.lines.forwarder import THOROUGH, TURN_BYTES, Forwarder
from monitor.watcher.lines.line import Line
from monitor.watcher.lines.reader import KEPT_UNREAD, MOST_UNREAD


class Output:
    """Takes lines, as long as there is room."""

    def __init__(self) -> None:
        self.lines: list[Line] = []
        self.room = 1 << 30
        self.done = True

    def put(self, lines: Sequence[Line]) -> int:
        taken = lines[: self.room]
        self.room -= len(taken)
        self.lines += taken
        return len(taken)

    def close(self) -> None:
        pass

    @property
    def said(self) -> list[str]:
        return [f"{line.name}: {line.text}" for line in self.lines]


class Stage:
    def __init__(self, folder: Path) -> None:
        self.folder = folder / "logs"
        self.output = Output()
        self.forwarder = self.another()
        self.open: dict[str, int] = {}

    def another(self) -> Forwarder:
        forwarder = Forwarder()
        forwarder.direct(self.folder, self.output)
        return forwarder

    def write(self, slot: int, generation: int, data: bytes) -> None:
        name = str(CapturedName(generation, slot))
        self.folder.mkdir(exist_ok=True)
        if name not in self.open:
            flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT
            self.open[name] = os.open(self.folder / name, flags, 0o640)
        os.write(self.open[name], data)

    def die(self, slot: int, generation: int) -> None:
        os.close(self.open.pop(str(CapturedName(generation, slot))))

    def turn(self, times: int = 1) -> list[str]:
        """What it says in so many turns."""
        before = len(self.output.lines)
        for _ in range(times):
            self.forwarder.turn()
        return self.output.said[before:]

    @property
    def files(self) -> set[str]:
        return {*os.listdir(self.folder)} - {POSITIONS}


@pytest.fixture
def stage(tmp_path: Path) -> Iterator[Stage]:
    stage = Stage(tmp_path)
    yield stage
    stage.forwarder.finish(1.0)
    for descriptor in stage.open.values():
        os.close(descriptor)


def killed(forwarder: Forwarder) -> None:
    """What the kernel does when it is."""
    os.close(forwarder._lock)
    forwarder._lock = -1
    for source in forwarder._sources.values():
        source.reader.close()


def test_lines_are_forwarded_as_they_come(stage: Stage) -> None:
    assert stage.turn() == []
    stage.write(0, 11, b"one\n<4>two\nthr")
    stage.write(1, 12, b"other\n")
    assert sorted(stage.turn()) == ["0.11: one", "0.11: two", "1.12: other"]
    assert [line.priority for line in stage.output.lines if line.name.slot == 0] == [6, 4]
    stage.write(0, 11, b"ee\n")
    assert stage.turn() == ["0.11: three"]


def test_last_words_without_an_end_come_when_nobody_can_add_to_them(stage: Stage) -> None:
    stage.write(0, 11, b"Fatal Python error: Segm")
    assert stage.turn(THOROUGH) == []
    stage.write(0, 13, b"the next one\n")  # its slot is taken already
    stage.die(0, 11)
    assert sorted(stage.turn(THOROUGH)) == ["0.11: Fatal Python error: Segm", "0.13: the next one"]


def test_the_next_watcher_goes_on_where_a_killed_one_ended(stage: Stage) -> None:
    stage.write(0, 11, b"one\n")
    stage.turn()
    killed(stage.forwarder)
    stage.write(0, 11, b"two\n")
    stage.write(1, 12, b"three\n")
    stage.die(1, 12)
    stage.forwarder = stage.another()
    assert sorted(stage.turn(2)) == ["0.11: two", "1.12: three"]
    stage.turn(THOROUGH)  # one of them is known to be over
    killed(stage.forwarder)
    stage.forwarder = stage.another()
    assert stage.turn(THOROUGH) == []


def test_two_watchers_do_not_forward_at_the_same_time(stage: Stage) -> None:
    stage.write(0, 11, b"one\n")
    stage.turn()
    other = stage.another()
    stage.write(0, 11, b"two\n")
    other.turn()
    assert stage.output.said == ["0.11: one"]
    killed(stage.forwarder)
    other.turn()
    other.turn()
    assert stage.output.said == ["0.11: one", "0.11: two"]
    stage.forwarder = other


def test_what_could_not_be_written_is_not_noted_as_forwarded(stage: Stage) -> None:
    stage.output.room = 1
    stage.write(0, 11, b"one\ntwo\n")
    stage.turn(2)
    killed(stage.forwarder)
    stage.output.room = 10
    stage.forwarder = stage.another()
    assert stage.turn() == ["0.11: one", "0.11: two"]  # the first one twice


@pytest.mark.parametrize("junk", [b"", b"\xff\0nonsense\n0.11 x\n0.11\n", b"0.11 999999999\n"])
def test_a_spoilt_file_of_positions_costs_lines_twice_at_most(stage: Stage, junk: bytes) -> None:
    stage.write(0, 11, b"one\n")
    stage.turn()
    killed(stage.forwarder)
    (stage.folder / POSITIONS).write_bytes(junk)
    stage.forwarder = stage.another()
    stage.write(0, 11, b"two\n")
    assert stage.turn()[-2:] == ["0.11: one", "0.11: two"]


def test_a_turn_is_bounded_and_nobody_waits_for_a_flood(stage: Stage) -> None:
    flood = b"".join(b"%01023d\n" % number for number in range(MOST_UNREAD // 1024))
    stage.write(0, 11, flood)
    stage.write(1, 12, b"a word\n")
    said = stage.turn()
    assert "1.12: a word" in said
    assert len(said) * 1024 <= TURN_BYTES + 2048
    rest = stage.turn(MOST_UNREAD // TURN_BYTES + 1)
    assert len(said) + len(rest) - 1 == MOST_UNREAD // 1024


def test_while_nothing_can_be_written_files_do_not_grow(stage: Stage) -> None:
    stage.output.room = 0
    stage.write(0, 11, b"first\n")
    stage.turn()
    for _ in range(10):
        stage.write(0, 11, (b"x" * 99 + b"\n") * (MOST_UNREAD // 200))
        stage.turn()
        assert os.fstat(stage.open["0.11"]).st_blocks * 512 < MOST_UNREAD + 2 * KEPT_BYTES
    stage.output.room = 1 << 30
    first, lost, *more = stage.turn(KEPT_UNREAD // TURN_BYTES * 8)
    assert first == "0.11: first"
    assert "bytes of its log lost" in lost
    assert more == ["0.11: " + "x" * 99]


def test_the_last_two_files_of_a_slot_stay(stage: Stage) -> None:
    for generation in range(11, 15):
        stage.write(0, generation, b"it serves\n")
        stage.turn()
        stage.die(0, generation)
        stage.turn(THOROUGH)
    stage.write(0, 15, b"")  # has said nothing
    stage.die(0, 15)
    stage.write(0, 16, b"it serves\n")
    stage.write(1, 9, b"it serves\n")
    stage.write(-1, 8, b"imported\n")
    stage.turn(THOROUGH)
    assert stage.files == {"0.16", "0.14", "1.9", "template.8"}
    assert stage.output.said.count("0.14: it serves") == 1


def test_a_file_stays_as_long_as_somebody_writes_to_it(stage: Stage) -> None:
    """A process that the AppServer has started, say."""
    for generation in (11, 12, 13, 14):
        stage.write(0, generation, b"it serves\n")
    for generation in (12, 13, 14):
        stage.die(0, generation)
    stage.turn(2 * THOROUGH)
    assert stage.files == {"0.11", "0.13", "0.14"}
    stage.write(0, 11, b"still here\n")
    assert stage.turn() == ["0.11: still here"]


def test_a_file_that_cannot_be_opened_holds_nobody_up(stage: Stage, caplog: pytest.LogCaptureFixture) -> None:
    stage.write(0, 11, b"one\n")
    (stage.folder / "1.5").symlink_to("elsewhere")
    stage.write(2, 12, b"two\n")
    assert sorted(stage.turn(2)) == ["0.11: one", "2.12: two"]
    (said,) = caplog.messages
    assert "1.5: Too many levels of symbolic links; tried again" in said


def test_the_folder_is_deleted(stage: Stage) -> None:
    stage.write(0, 11, b"one\n")
    stage.turn()
    for name in os.listdir(stage.folder):
        os.unlink(stage.folder / name)
    stage.folder.rmdir()
    os.write(stage.open["0.11"], b"two\n")
    assert stage.turn() == ["0.11: two"]
    stage.write(1, 12, b"in the new folder\n")
    assert stage.turn(2) == ["1.12: in the new folder"]
    assert stage.files == {"1.12"}


def test_at_the_end_all_is_forwarded(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "TURN_BYTES", 100)
    stage.write(0, 11, b"word\n" * 1000 + b"the end")
    stage.write(1, 12, b"bye\n")
    stage.die(0, 11)
    stage.forwarder.finish(10.0)
    assert sorted(stage.output.said) == [
        "0.11: (the last line came 999 times more)",
        "0.11: the end",
        "0.11: word",
        "1.12: bye",
    ]


def test_an_end_does_not_wait_for_ever(stage: Stage) -> None:
    stage.output.room = 0
    stage.write(0, 11, b"one\n")
    stage.forwarder.finish(0.05)
    assert stage.output.said == []
