"""What a forked child closes, though no object refers to it."""

from __future__ import annotations

import os
import threading

from lbadaptor.appserver.http import forked


def test_the_file_of_a_thread_that_was_just_opening_it_is_closed() -> None:
    """As where another thread has opened it, and not yet stored its number, when the application forks."""
    state = os.open(f"/proc/self/task/{threading.get_native_id()}/stat", os.O_RDONLY | os.O_CLOEXEC)
    other = os.open("/proc/1/task/1/stat", os.O_RDONLY | os.O_CLOEXEC)  # the application's
    child = os.fork()
    if child == 0:
        forked.close_stat_files(os.getppid())
        os._exit(_open(state) * 2 + _open(other))
    os.close(state)
    os.close(other)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 1, "the first is closed, and the other is not"


def _open(descriptor: int) -> bool:
    try:
        os.fstat(descriptor)
    except OSError:
        return False
    return True
