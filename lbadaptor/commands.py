"""What the commands `lbmonitor` and `lbctl` run: the package `monitor` in a Python that is its own.

A Python in isolated mode (`-I`) looks neither into the current folder nor into PYTHONPATH, where the user's
own `monitor.py` may be. Both reach the AppServers all the same, through the environment.
"""

from __future__ import annotations

import os
import sys


def lbmonitor() -> None:
    """Become `python -I -m monitor`."""
    _become("monitor")


def lbctl() -> None:
    """Become `python -I -m monitor.ctl`."""
    _become("monitor.ctl")


def _become(module: str) -> None:
    os.execv(sys.executable, [sys.executable, "-I", "-m", module, *sys.argv[1:]])
