"""What the answers to probes, and their absence, say of an AppServer. Pure."""

from __future__ import annotations

from collections.abc import Iterable

from lbadaptor.contract.settings import Monitor
from lbadaptor.log import texts
from monitor.contract.messages import ProbeAnswer
from monitor.policy.life import Life
from monitor.policy.states import LifeState

HUNG_GRACE = 2.0
"""Seconds between SIGTERM and SIGKILL for one that does not answer anyway, or that eats the machine's memory."""
UNKILLABLE = 10.0
"""Seconds after SIGKILL: if the process is still there, in the kernel, other hung ones no longer wait for it."""
LAST_PROBE = 0.3
"""How much the last probe counts in how busy an AppServer is; the one before counts 0.3 of the rest, and so on."""
MOST_SESSIONS = 10**9
"""An application's own count is taken for this at most, and for 0 at least: it has a column in address.text."""


def sessions(counted: int) -> int:
    """An application's own count, within bounds."""
    return min(max(0, counted), MOST_SESSIONS)


def busy(before: float, answer: ProbeAnswer) -> float:
    """The part of its threads that is busy, 0 to 1: of several probes, the last of which counts most.

    A single one says little: with requests of a few milliseconds it is mere chance.
    """
    now = min(1.0, max(0, answer.in_flight) / max(1, answer.threads))
    return before + LAST_PROBE * (now - before)


def count_failure(life: Life, why: str, cpu: float | None, now: float) -> None:
    """A probe failed. `cpu`: the seconds for which its process has computed; None: that could not be found out.

    An AppServer that computes may hold the interpreter lock for long, and is not hung as long as it does so.
    """
    seen = life.supervision
    seen.failed_probes += 1
    if cpu is None or cpu > seen.cpu:
        seen.cpu = seen.cpu if cpu is None else cpu
        seen.computed_at = now
    if life.state is LifeState.FAILING:
        seen.failure = failure(life, why)


def failure(life: Life, why: str) -> str:
    """Why an AppServer is FAILING, for people. `why` the last probe failed."""
    return f"{texts.count(life.supervision.failed_probes, 'probe')} failed: {why}"


def last_progress(life: Life) -> float:
    """When a FAILING one last did something: it began to fail then, or computed."""
    return max(life.since, life.supervision.computed_at)


def hung_at(life: Life, monitor: Monitor) -> float:
    """When one that is FAILING is taken for hung, as things are now."""
    return min(last_progress(life) + monitor.failing_limit, life.since + monitor.computing_limit)


def ending_a_hung_one(lives: Iterable[Life], now: float) -> bool:
    """Whether a hung AppServer is being ended: they are ended one at a time. One that SIGKILL does not end does not
    count."""
    return any(
        life.supervision.hung_since is not None and now - life.supervision.hung_since < HUNG_GRACE + UNKILLABLE
        for life in lives
    )
