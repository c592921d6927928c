"""Threads that are started while memory is short."""

from __future__ import annotations

import mmap
import threading

ROOM = 1 << 20
"""Bytes: more than a thread takes for its first steps, besides its stack."""


def start(thread: threading.Thread) -> None:
    """Start it. Raises MemoryError where there is no room for a thread.

    Python waits for ever for a thread that finds no memory for its first step, so it is looked for before.
    """
    try:
        mmap.mmap(-1, ROOM).close()
        thread.start()
    except (OSError, RuntimeError) as error:
        raise MemoryError(str(error)) from None
