"""The torture test with a fixed seed: half a minute or less for each way to run it.

`make torture` runs it longer and with other seeds.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize(
    "options",
    [
        "--minutes 0.6 --no-fast-lane",
        "--minutes 0.4",
        "--minutes 0.5 --survive anything --no-fast-lane",
        "--minutes 0.25 --survive anything --preload",
    ],
)
def test_torture(options: str) -> None:
    command = [sys.executable, "-m", "tests.torture", "--seed", "7", *options.split()]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"


@pytest.mark.parametrize("target", ["demo", "torture"])
@pytest.mark.parametrize(("value", "off"), [("", False), ("1", False), ("0", True)])
def test_make_leaves_the_fast_lane_out_for_0_alone(target: str, value: str, off: bool) -> None:
    command = ["make", "--dry-run", target, f"FASTLANE={value}"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60, check=True)
    assert ("--no-fast-lane" in done.stdout) is off
