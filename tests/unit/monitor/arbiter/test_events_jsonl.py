"""events.jsonl: appended, bounded, and read in order."""

from __future__ import annotations

import json
import os
import stat
from pathlib import Path

import pytest

from monitor.arbiter.files import events_jsonl
from monitor.arbiter.files.events_jsonl import EventsFile
from monitor.contract import events
from monitor.contract.events import NAME, OLDER_NAME, Happened, What, read
from monitor.policy.problems import Problems


class Clock:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def problems() -> Problems:
    return Problems()


@pytest.fixture
def clock() -> Clock:
    return Clock()


def note(problems: Problems, *whys: str) -> None:
    for why in whys:
        problems.journal.note(What.SCALED, why)


def test_an_event_is_a_line_for_its_owner_alone(tmp_path: Path, problems: Problems, clock: Clock) -> None:
    note(problems, "six")
    EventsFile(tmp_path, problems, clock).keep()
    assert json.loads((tmp_path / NAME).read_text()) == {"event": "scaled", "time": 1000.0, "why": "six"}
    assert stat.S_IMODE((tmp_path / NAME).stat().st_mode) == 0o600


def test_nothing_is_written_when_nothing_happened(tmp_path: Path, problems: Problems) -> None:
    EventsFile(tmp_path, problems).keep()
    assert os.listdir(tmp_path) == []


def test_no_two_have_one_time_even_if_the_clock_is_set_back(tmp_path: Path, problems: Problems, clock: Clock) -> None:
    file = EventsFile(tmp_path, problems, clock)
    note(problems, "a", "b")
    file.keep()
    clock.now = 10.0
    note(problems, "c")
    file.keep()
    found = read(tmp_path, 0.0)
    assert [one.why for one in found] == ["a", "b", "c"]
    assert len({one.time for one in found}) == 3
    assert [one.why for one in read(tmp_path, found[0].time)] == ["b", "c"]


def test_the_next_monitor_goes_on_in_the_same_file(tmp_path: Path) -> None:
    for why in ("before", "after"):
        problems = Problems()
        note(problems, why)
        EventsFile(tmp_path, problems).keep()
    assert [one.why for one in read(tmp_path, 0.0)] == ["before", "after"]


def test_it_is_bounded_and_the_older_file_is_read_first(
    tmp_path: Path, problems: Problems, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(events_jsonl, "MAX_BYTES", 1000)
    file = EventsFile(tmp_path, problems, clock)
    for number in range(100):
        clock.now += 1
        note(problems, str(number))
        file.keep()
    assert sorted(os.listdir(tmp_path)) == [OLDER_NAME, NAME]
    assert all((tmp_path / name).stat().st_size <= 1000 for name in (NAME, OLDER_NAME))
    numbers = [int(one.why) for one in read(tmp_path, 0.0)]
    assert numbers == list(range(100 - len(numbers), 100))
    assert len(numbers) > 10


def test_what_cannot_be_written_is_a_problem_and_is_written_later(
    tmp_path: Path, problems: Problems, clock: Clock
) -> None:
    folder = tmp_path / "run"
    file = EventsFile(folder, problems, clock)
    note(problems, "six")
    file.keep()
    assert [text for text in problems if "events.jsonl cannot be written: " in text]
    folder.mkdir()
    file.keep()
    assert list(problems) == []
    assert [one.event for one in read(folder, 0.0)][:2] == [What.SCALED, What.PROBLEM_BEGUN]


def test_a_part_of_a_line_is_taken_back(
    tmp_path: Path, problems: Problems, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = EventsFile(tmp_path, problems, clock)
    note(problems, "whole")
    file.keep()
    whole = (tmp_path / NAME).read_bytes()
    write = os.write
    monkeypatch.setattr(events_jsonl.os, "write", lambda descriptor, data: write(descriptor, data[:5]))
    note(problems, "broken")
    file.keep()
    assert (tmp_path / NAME).read_bytes() == whole
    monkeypatch.undo()
    file.keep()
    assert [one.why for one in read(tmp_path, 0.0)][:2] == ["whole", "broken"]


def test_only_so_many_wait_to_be_written(tmp_path: Path, problems: Problems, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(events_jsonl, "MOST_WAITING", 3)
    file = EventsFile(tmp_path / "none", problems)
    note(problems, *"abcdef")
    file.keep()
    (tmp_path / "none").mkdir()
    note(problems, "g")
    file.keep()
    assert [one.why for one in read(tmp_path / "none", 0.0) if one.event is What.SCALED] == ["d", "e", "f", "g"]


def test_lines_of_another_release_are_passed_over(tmp_path: Path) -> None:
    good = events.encode(Happened(What.READY, time=5.0, slot=2))
    (tmp_path / NAME).write_bytes(b'{"event": "of tomorrow", "time": 4.0}\nnonsense\n' + good + b"\n")
    assert read(tmp_path, 0.0) == [Happened(What.READY, time=5.0, slot=2)]


def test_it_follows_no_link(tmp_path: Path, problems: Problems) -> None:
    (tmp_path / "elsewhere").touch()
    (tmp_path / NAME).symlink_to("elsewhere")
    note(problems, "six")
    EventsFile(tmp_path, problems).keep()
    assert (tmp_path / "elsewhere").read_bytes() == b""
    assert list(problems)
