"""The files that get what AppServers say: whose they are, and what happens where there can be none."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from monitor.arbiter.files.captured_files import CapturedFiles
from monitor.contract.captured import CapturedName, files
from monitor.policy.problems import Problems

NAME = CapturedName(17, 2)


def test_it_appends_and_only_the_monitors_user_may_read_it(tmp_path: Path) -> None:
    folder = tmp_path / "logs"
    opened = CapturedFiles(folder, Problems())
    for text in (b"one\n", b"two\n"):  # started again as the same generation: from another template
        descriptor = opened.open(NAME)
        assert descriptor is not None
        os.write(descriptor, text)
        os.close(descriptor)
    assert (folder / "2.17").read_bytes() == b"one\ntwo\n"
    assert files(folder) == [NAME]
    assert stat.S_IMODE(folder.stat().st_mode) & 0o027 == 0
    assert stat.S_IMODE((folder / "2.17").stat().st_mode) & 0o137 == 0


def test_where_there_can_be_none_it_is_a_problem_that_ends(tmp_path: Path) -> None:
    folder = tmp_path / "logs"
    problems = Problems()
    opened = CapturedFiles(folder, problems)
    folder.write_text("in the way")
    opened.keep_folder()
    assert opened.open(NAME) is None
    (told,) = problems
    assert told.startswith(f"{folder}: File exists: lines of new AppServers go to the monitor's standard error")
    folder.unlink()
    opened.keep_folder()
    assert folder.is_dir()
    descriptor = opened.open(NAME)
    assert descriptor is not None
    os.close(descriptor)
    assert list(problems) == []


def test_it_follows_no_link(tmp_path: Path) -> None:
    (tmp_path / "logs").mkdir()
    (tmp_path / "logs" / "2.17").symlink_to(tmp_path / "elsewhere")
    assert CapturedFiles(tmp_path / "logs", Problems()).open(NAME) is None
    assert not (tmp_path / "elsewhere").exists()


@pytest.mark.parametrize("name", ["forwarded", "0.1.gz", "template"])
def test_other_files_are_left_out(tmp_path: Path, name: str) -> None:
    (tmp_path / name).touch()
    assert files(tmp_path) == []
