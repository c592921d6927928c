"""The lock on a run folder, and the file that says whose it is."""

from __future__ import annotations

import os
from collections.abc import Callable
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


@pytest.mark.parametrize("make", [os.mkdir, os.mkfifo, lambda path: os.symlink("elsewhere", path)])
def test_what_is_no_file_and_has_its_name_is_told_with_what_to_do(
    tmp_path: Path, make: Callable[[Path], None]
) -> None:
    make(tmp_path / PID_FILE)
    before = sorted(os.listdir("/proc/self/fd"))
    for look in (RunFolderLock, run_folder.running):
        with pytest.raises(OSError, match=r"the monitor makes a file of this name.*remove that") as caught:
            look(tmp_path)
        assert caught.value.filename == str(tmp_path / PID_FILE)
    assert sorted(os.listdir("/proc/self/fd")) == before


def test_a_running_monitor_gets_over_a_folder_in_its_place(tmp_path: Path) -> None:
    hold = RunFolderLock(tmp_path)
    try:
        (tmp_path / PID_FILE).unlink()
        (tmp_path / PID_FILE).mkdir()
        with pytest.raises(OSError, match="remove that"):
            hold.keep(1.0)
        (tmp_path / PID_FILE).rmdir()
        hold.keep(2.0)
        hold.keep(2.0 + run_folder.FILE_WAIT)
        assert run_folder.owner(tmp_path)[0] == os.getpid()
    finally:
        hold.release()
