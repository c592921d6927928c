"""A minute of torture, always the same one. `make torture` has longer and other ones."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]


def test_a_minute_of_torture() -> None:
    command = [sys.executable, "-m", "tests.torture", "--minutes", "1", "--seed", "7"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"
