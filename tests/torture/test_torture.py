"""The torture test with a fixed seed: a minute, and half a minute with the fast lane.

`make torture` runs it longer and with other seeds.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize("options", [("--minutes", "1"), ("--minutes", "0.5", "--fast-lane")], ids=" ".join)
def test_torture(options: tuple[str, ...]) -> None:
    command = [sys.executable, "-m", "tests.torture", "--seed", "7", *options]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"
