"""Starting threads while memory is short."""

from __future__ import annotations

import mmap
import threading

ROOM = 1 << 20
"""Bytes: more than a thread needs for its first steps, besides its stack."""


def start(thread: threading.Thread) -> None:
    """Start it. Raises MemoryError if there is not enough memory.

    Python waits for ever for a thread that gets no memory for its first step, so this tries to get some before.
    """
    try:
        mmap.mmap(-1, ROOM).close()
        thread.start()
    except (OSError, RuntimeError) as error:
        raise MemoryError(str(error)) from None
