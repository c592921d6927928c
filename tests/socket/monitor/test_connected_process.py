"""Who is at the other end is believed as far as the kernel confirms it."""

from __future__ import annotations

import os
import resource
import socket
import subprocess
import time
from pathlib import Path

import pytest

from monitor.contract.processes import RUN_FOLDER, belongs, listens, verified


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


def test_whose_an_appserver_is_may_be_unknown_for_a_moment() -> None:
    with subprocess.Popen(["sleep", "600"], env={RUN_FOLDER: "/run/shop"}) as process:
        try:
            deadline = time.monotonic() + 10.0
            while not belongs(process.pid, "/run/shop") and time.monotonic() < deadline:
                time.sleep(0.01)  # it is a copy of this process until its exec
            assert belongs(process.pid, "/run/shop") is True
            assert belongs(process.pid, "/run/board") is False
            limits = resource.getrlimit(resource.RLIMIT_NOFILE)
            resource.setrlimit(resource.RLIMIT_NOFILE, (0, limits[1]))
            try:
                assert belongs(process.pid, "/run/shop") is None
            finally:
                resource.setrlimit(resource.RLIMIT_NOFILE, limits)
        finally:
            process.kill()
    assert belongs(process.pid, "/run/shop") is False, "it is gone"


def test_a_port_without_listener_belongs_to_no_process() -> None:
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        assert not listens(os.getpid(), bound.getsockname()[1])
