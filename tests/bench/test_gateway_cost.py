"""The benchmark of the gateway runs."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path


def test_it_prints_what_each_part_costs() -> None:
    command = [sys.executable, "-m", "tests.bench.gateway_cost", "quick"]
    top = Path(__file__).parents[2]
    ran = subprocess.run(command, cwd=top, check=True, capture_output=True, text=True, timeout=60)
    assert [line.split()[0] for line in ran.stdout.splitlines()] == ["environ", "receive", "whole"]
    assert all(float(line.split()[1]) > 0 for line in ran.stdout.splitlines())
