"""Who is at the other end is believed as far as the kernel confirms it."""

from __future__ import annotations

import os
import socket
from pathlib import Path

import pytest

from monitor.peers import listens, verified


@pytest.mark.parametrize("claimed", [-1, 0, 1, os.getppid()])
@pytest.mark.parametrize("family", [socket.AF_UNIX, socket.AF_INET, socket.AF_INET6])
def test_a_pid_that_is_not_its_own_is_not_believed(family: int, claimed: int, tmp_path: Path) -> None:
    with socket.socket(family) as listener, socket.socket(family) as caller:
        if family == socket.AF_UNIX:
            listener.bind(str(tmp_path / "socket"))
        else:
            listener.bind(("127.0.0.1" if family == socket.AF_INET else "::1", 0))
        listener.listen()
        caller.connect(listener.getsockname())
        assert verified(os.getpid(), caller) == os.getpid()
        assert verified(claimed, caller) == 0


def test_a_port_that_nobody_listens_on_is_nobodys() -> None:
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        assert not listens(os.getpid(), bound.getsockname()[1])
