"""The file system of the sessions' folder: one of its own, as far as that can be made, so that it can be full."""

from __future__ import annotations

import contextlib
import os
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

SIZE = 16 * 2**20
"""Bytes of a file system of its own, in memory."""
_PIECE = bytes(2**16)
_SESSION = re.compile("[0-9a-f]{40}")


class Disk:
    """`mount` first, `unmount` at the end."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.is_own = False
        """it is a file system of its own: an ordinary user cannot have one"""
        self._filler = folder / "filler"

    @property
    def can_be_own(self) -> bool:
        return os.geteuid() == 0

    def mount(self) -> None:
        self.folder.mkdir(mode=0o711)
        self.folder.chmod(0o711)
        if self.can_be_own:
            options = f"size={SIZE},mode=0711,nosuid,nodev"
            command = ["mount", "-t", "tmpfs", "-o", options, "torture", str(self.folder)]
            self.is_own = not subprocess.run(command, capture_output=True, check=False).returncode

    def unmount(self) -> None:
        if self.is_own:
            subprocess.run(["umount", "--lazy", str(self.folder)], capture_output=True, check=False)
            self.is_own = False

    def fill(self) -> None:
        """Leave no room for another block. Only where it is a file system of its own."""
        assert self.is_own
        with contextlib.suppress(OSError):
            descriptor = os.open(self._filler, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW, 0o600)
            try:
                for piece in (_PIECE, _PIECE[:4096]):
                    with contextlib.suppress(OSError):
                        while True:
                            os.write(descriptor, piece)
            finally:
                os.close(descriptor)

    def free(self) -> None:
        self._filler.unlink(missing_ok=True)

    def left_behind(self, sessions: Path) -> Iterator[str]:
        """What is in the sessions' folder after an orderly end, and should not be."""
        for place in (*sessions.glob("new.*"), *sessions.glob("free/*/*")):
            if place.parent == sessions or not _SESSION.fullmatch(place.name):
                yield f"{place} in the sessions' folder"
