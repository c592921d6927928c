"""AppServers that do not do as their last signal asks for: it is sent again. Pure.

The application may have replaced the signal's handler. The first answer that contradicts it may be older than it.
"""

from __future__ import annotations

from monitor.policy.actions import Signal
from monitor.policy.life import Life
from monitor.policy.problems import Problems
from monitor.policy.states import PUBLISHED, LifeState

REPEAT_SIGNAL = 2
"""After so many answers to probes that contradict a signal, it is sent again."""


def signal_again(life: Life, status: str, problems: Problems) -> Signal | None:
    """The signal to send again after an AppServer has told this status; None: it does as ordered, or is to be asked
    once more. Says whether it does as ordered."""
    seen = life.supervision
    if not _contradicts(life, status):
        if seen.contradictions:
            seen.contradictions = 0
            problems.end(f"order {life.slot}", f"slot {life.slot} does as ordered")
        return None
    seen.contradictions += 1
    if seen.contradictions % REPEAT_SIGNAL:
        return None
    order = "drain" if life.draining else "take visitors again"
    problems.begin(
        f"order {life.slot}", f"slot {life.slot} does not take the order to {order}; it is given again and again"
    )
    return Signal.DRAIN if life.draining else Signal.UNDRAIN


def _contradicts(life: Life, status: str) -> bool:
    """Whether the status that it tells is another than its last signal asks for."""
    wanted = PUBLISHED.get(life.before_failing if life.state is LifeState.FAILING else life.state)
    return wanted is not None and bool(status) and status != wanted.value
