"""`lbctl demo`: become the demo, a program of its own, which reads its own options."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence

from monitor.contract.client import NoAnswer

ABOUT = "run a private Apache, a monitor and AppServers, until Ctrl-C (demo --help)"


def run(options: argparse.Namespace, others: Sequence[str]) -> int:
    """Does not return. `others` are the demo's options. Raises NoAnswer, OSError."""
    if options.socket or options.config:
        raise NoAnswer("the demo has a monitor and settings of its own; it takes neither --config nor --socket")
    os.execv(sys.executable, [sys.executable, "-I", "-m", "monitor.demo", *others])
