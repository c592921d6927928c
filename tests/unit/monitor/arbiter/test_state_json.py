"""state.json: whole or not at all, of this boot alone."""

import json
import logging
import os
from pathlib import Path

import pytest

from monitor.arbiter.files.state_json import Known, StateFile

KNOWN = Known(2, 1700, 4711, 99, "h", 9002, "DYING", "OK", ["limit"], False, 12.5, 10.0, True, 11.0, "/own/2.1700")


def test_what_was_written_is_read(tmp_path: Path) -> None:
    StateFile(tmp_path / "state.json").write([KNOWN], 1800)
    after = StateFile(tmp_path / "state.json")
    assert (after.read(), after.last_generation) == ([KNOWN], 1800)
    assert (tmp_path / "state.json").stat().st_mode & 0o777 == 0o600
    assert os.listdir(tmp_path) == ["state.json"]


def test_a_record_survives_the_monitor() -> None:
    assert Known.of(KNOWN.record, KNOWN.pid, KNOWN.started, KNOWN.address, KNOWN.own_folder) == KNOWN


def test_the_same_is_not_written_twice(tmp_path: Path) -> None:
    file = StateFile(tmp_path / "state.json")
    file.write([KNOWN], 1800)
    written = (tmp_path / "state.json").stat()
    file.write([KNOWN], 1800)
    assert (tmp_path / "state.json").stat() == written
    file.write([KNOWN], 1801)
    assert (tmp_path / "state.json").stat() != written


def test_what_somebody_deleted_or_locked_away_is_written_again(tmp_path: Path) -> None:
    path = tmp_path / "state.json"
    file = StateFile(path)
    file.write([KNOWN], 1800)
    path.unlink()
    file.write([KNOWN], 1800)
    path.chmod(0)
    file.write([KNOWN], 1800)
    assert path.stat().st_mode & 0o777 == 0o600
    assert StateFile(path).read() == [KNOWN]


def test_of_another_boot_only_the_generation_counts(tmp_path: Path) -> None:
    file = StateFile(tmp_path / "state.json")
    file.write([KNOWN], 1800)
    content = json.loads((tmp_path / "state.json").read_text())
    (tmp_path / "state.json").write_text(json.dumps({**content, "boot": "another"}))
    assert (file.read(), file.last_generation) == ([], 1800)


@pytest.mark.parametrize("content", ["", "{", "[]", '{"boot": "x"}', '{"boot": 1, "last_generation": 1}'])
def test_nonsense_is_said_and_nothing_is_known(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, content: str
) -> None:
    (tmp_path / "state.json").write_text(content)
    assert StateFile(tmp_path / "state.json").read() == []
    assert "going by address.text" in caplog.text


def test_one_that_cannot_be_written_is_said_once_and_tried_again(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder = tmp_path / "run"
    file = StateFile(folder / "state.json")
    with caplog.at_level(logging.ERROR):
        file.write([KNOWN], 1)
        file.write([KNOWN], 1)
    assert len(caplog.records) == 1
    folder.mkdir()
    file.write([KNOWN], 1)
    assert StateFile(folder / "state.json").read() == [KNOWN]
