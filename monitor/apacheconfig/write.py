"""`lbctl apache-config`: write the file that Apache is to include, or check one."""

from __future__ import annotations

import contextlib
import os
import stat
import sys
import tempfile
from pathlib import Path

from monitor.apacheconfig.compare import compare
from monitor.apacheconfig.compose import Composed, Options, Refused, compose

MODE = 0o644
"""Of a new file."""


def run(options: Options, write: Path | None = None, check: Path | None = None) -> int:
    """Print or write it, or check a file that was written before. The exit status. Blocks for half a minute at most.

    Raises LbadaptorError.
    """
    if check is not None:
        good, composed = compare(check, options)
        _tell(composed)
        return 0 if good else 1
    composed = compose(options)
    if write is None:
        print(composed.text, end="")
    else:
        replace(write, composed.text)
    _tell(composed)
    if write is not None:
        print(f"{write}: written, with {composed.lanes}")
        print("Include it in Apache's configuration, and then: apache2ctl configtest && systemctl reload apache2")
    return 0


def replace(file: Path, text: str) -> None:
    """Write a file by way of another one beside it: Apache reads the old one or the new one, never a part.

    It keeps its mode, and its owner where root writes; a symbolic link stays one. Raises Refused; the file is as
    before then.
    """
    place = Path(os.path.realpath(file))
    try:
        mode, owner = MODE, (-1, -1)
        with contextlib.suppress(FileNotFoundError):
            there = place.stat()
            if not stat.S_ISREG(there.st_mode):
                raise Refused(f"{file} is no file that can be replaced")
            mode, owner = stat.S_IMODE(there.st_mode), (there.st_uid, there.st_gid)
        descriptor, beside = tempfile.mkstemp(prefix=f".{place.name}.", dir=place.parent)
        try:
            with open(descriptor, "w", encoding="utf-8") as new:
                new.write(text)
                new.flush()
                if not os.geteuid():
                    os.fchown(descriptor, *owner)
                os.fchmod(descriptor, mode)
                os.fsync(descriptor)
            os.rename(beside, place)
        except BaseException:
            os.unlink(beside)
            raise
    except OSError as error:
        raise Refused(f"{file} cannot be written: {error.strerror}") from None


def _tell(composed: Composed) -> None:
    if composed.why_not:
        print(f"lbctl: no fast lane, all requests take the Python lane: {composed.why_not}", file=sys.stderr)
    for warning in composed.warnings:
        print(f"lbctl: {warning}", file=sys.stderr)
