"""The demo ends at a signal, however many come at once."""

from __future__ import annotations

import os
import signal

from monitor.demo.main import End


def test_a_handler_that_interrupts_another_does_not_wait_for_it() -> None:
    end = End()
    before = signal.signal(signal.SIGUSR1, end.ask)
    try:
        for _ in range(1000):
            os.kill(os.getpid(), signal.SIGUSR1)
        assert end.wait(10.0)
        assert end.is_set()
    finally:
        signal.signal(signal.SIGUSR1, before)
