"""The commands `lbmonitor` and `lbctl`. They run the package `monitor` in a Python in isolated mode (`-I`).

That Python searches neither the current folder nor PYTHONPATH, where the user may have a `monitor.py` of their own.
AppServers still get both, through the environment.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from importlib.util import find_spec

_NEEDED = ("monitor", "itsdangerous", "msgspec")
_NEEDED_BY_LBCTL = ("click",)


def lbmonitor() -> None:
    """Become `python -I -m monitor`."""
    _exec("monitor", _NEEDED)


def lbctl() -> None:
    """Become `python -I -m monitor.ctl`."""
    _exec("monitor.ctl", (*_NEEDED, *_NEEDED_BY_LBCTL))


def _exec(module: str, needed: Sequence[str]) -> None:
    """Replace this process. Exits with a message if this user cannot run the module."""
    if why := next(filter(None, map(_unreadable, needed)), ""):
        sys.exit(f"{os.path.basename(sys.argv[0])}: {why}")
    try:
        os.execv(sys.executable, [sys.executable, "-I", "-m", module, *sys.argv[1:]])
    except OSError as error:
        sys.exit(f"{os.path.basename(sys.argv[0])}: {_me()} cannot run {sys.executable}: {error.strerror}")


def _unreadable(package: str) -> str:
    """Why a package cannot be imported; empty if it can.

    Python takes a folder that it may not enter for a package without files.
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
    """The version of this package, for --version. The package may run without being installed."""
    from importlib import metadata

    try:
        return metadata.version("lbadaptor")
    except metadata.PackageNotFoundError:
        return "(not installed)"
