"""What the kernel tells of a process."""

from __future__ import annotations

import os

import pytest

from monitor.contract import processes


def test_a_process_is_known_by_its_start() -> None:
    assert processes.start_time(os.getpid()) == processes.start_time(os.getpid()) > 0
    assert processes.start_time(1) < processes.start_time(os.getpid())
    assert (processes.cpu_time(os.getpid()) or 0) > 0
    assert processes.cpu_time(2**22 + 1) == 0
    with pytest.raises(ProcessLookupError):
        processes.start_time(2**22 + 1)
