"""Folders that processes use meanwhile."""

from __future__ import annotations

import shutil
from pathlib import Path

MOST_TRIES = 1000


def delete(folder: Path) -> None:
    """Delete a folder. A process that has it open may still make files in it; one that makes it anew has a new one.

    Raises OSError where that does not come to an end.
    """
    gone = folder.rename(folder.with_name(f"{folder.name}.gone"))
    for _ in range(MOST_TRIES):
        shutil.rmtree(gone, ignore_errors=True)
        if not gone.exists():
            return
    shutil.rmtree(gone)
