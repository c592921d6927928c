"""What a program does not import: everybody who starts it would wait for that, and have it in memory."""

from __future__ import annotations

import subprocess
import sys

import pytest


@pytest.mark.parametrize(
    ("program", "avoided"),
    [
        ("lbadaptor.appserver.main", {"http.client", "ssl", "email", "asyncio", "subprocess", "click"}),
        ("monitor.watcher.main", {"requests", "asyncio", "subprocess", "click"}),
        ("monitor.arbiter.loop", {"http.client", "ssl", "email", "asyncio", "click"}),
        ("monitor.ctl.main", {"requests", "asyncio", "rich"}),
    ],
)
def test_no_program_waits_at_its_start_for_what_it_need_not_import(program: str, avoided: set[str]) -> None:
    code = f"import sys, {program}; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-I", "-c", code], capture_output=True, text=True, check=True)
    assert avoided.isdisjoint(done.stdout.split())
