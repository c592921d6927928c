"""The lock on a run folder, and the file that says whose it is."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from monitor.arbiter.files import run_folder
from monitor.arbiter.files.run_folder import PID_FILE, RunFolderLock
from monitor.contract.processes import start_time


@pytest.mark.parametrize("text", ["", "nonsense\n", "1\n2 of-another-boot\n"])
def test_the_owner_is_written_again_if_it_was_overwritten(tmp_path: Path, text: str) -> None:
    hold = RunFolderLock(tmp_path)
    mine = os.getpid(), start_time(os.getpid())
    try:
        assert run_folder.owner(tmp_path) == mine
        written = (tmp_path / PID_FILE).stat().st_mtime_ns
        assert not hold.keep(1.0)
        assert (tmp_path / PID_FILE).stat().st_mtime_ns == written, "it is left alone where it is whole"
        (tmp_path / PID_FILE).write_text(text)
        os.utime(tmp_path / PID_FILE, ns=(0, 0))
        assert run_folder.owner(tmp_path) == (0, 0)
        assert not hold.keep(2.0)
        assert run_folder.owner(tmp_path) == mine
        assert run_folder.running(tmp_path)
    finally:
        hold.release()
    assert not run_folder.running(tmp_path)
