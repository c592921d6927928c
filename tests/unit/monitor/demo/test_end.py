"""The demo ends at a signal, however many come at once."""

from __future__ import annotations

import os
import signal
import sys
from types import FrameType
from typing import Any

from monitor.demo.programs import End

WAIT = 5
"""Seconds after which a handler that waits for another one is taken to wait for ever."""


def test_a_handler_that_interrupts_another_does_not_wait_for_it() -> None:
    end = End()
    interrupted: list[str] = []

    def interrupt(frame: FrameType, event: str, _: Any) -> Any:
        """At each line of the handler another signal comes."""
        if event == "line":
            interrupted.append(frame.f_code.co_name)
            os.kill(os.getpid(), signal.SIGUSR1)
        return interrupt

    def give_up(*_: object) -> None:
        raise AssertionError("a handler waits for the one that it has interrupted")

    before = signal.signal(signal.SIGUSR1, end.ask), signal.signal(signal.SIGALRM, give_up)
    tracer = sys.gettrace()
    signal.alarm(WAIT)
    try:
        sys.settrace(interrupt)
        end.ask()
    finally:
        sys.settrace(tracer)
        signal.alarm(0)
        signal.signal(signal.SIGUSR1, before[0])
        signal.signal(signal.SIGALRM, before[1])
    assert interrupted
    assert end.wait(10.0)
    assert end.is_set()
