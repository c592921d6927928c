"""What the commands `lbmonitor` and `lbctl` run: the package `monitor` in a Python that is its own.

A Python in isolated mode (`-I`) looks neither into the current folder nor into PYTHONPATH, where the user's
own `monitor.py` may be. Both reach the AppServers all the same, through the environment.
"""

from __future__ import annotations

import os
import sys
from importlib.util import find_spec

_NEEDED = ("monitor", "itsdangerous", "msgspec", "requests")


def lbmonitor() -> None:
    """Become `python -I -m monitor`."""
    _become("monitor")


def lbctl() -> None:
    """Become `python -I -m monitor.ctl`."""
    _become("monitor.ctl")


def _become(module: str) -> None:
    """Exits with a sentence where this user cannot run it."""
    if why := next(filter(None, map(_unreadable, _NEEDED)), ""):
        sys.exit(f"{os.path.basename(sys.argv[0])}: {why}")
    try:
        os.execv(sys.executable, [sys.executable, "-I", "-m", module, *sys.argv[1:]])
    except OSError as error:
        sys.exit(f"{os.path.basename(sys.argv[0])}: {_me()} cannot run {sys.executable}: {error.strerror}")


def _unreadable(package: str) -> str:
    """What to say of a package that cannot be imported; empty: it can.

    A folder that may not be entered looks to Python like a package without files.
    """
    try:
        spec = find_spec(package)
    except OSError:
        spec = None
    origin = spec.origin if spec else None
    if origin and os.access(origin, os.R_OK):
        return ""
    there = origin or next(iter(spec.submodule_search_locations or ()), "") if spec else ""
    if not there:
        return f"the package {package!r} is missing in {sys.executable}, or {_me()} cannot read it"
    return f"{_me()} cannot read {there}; `chmod -R a+rX {sys.prefix}` lets everybody read this Python's packages"


def _me() -> str:
    import pwd

    try:
        return f"the user {pwd.getpwuid(os.geteuid()).pw_name}"
    except KeyError:
        return f"the user {os.geteuid()}"


def version() -> str:
    """This package's, for --version; it may run without having been installed."""
    from importlib import metadata

    try:
        return metadata.version("lbadaptor")
    except metadata.PackageNotFoundError:
        return "(not installed)"
