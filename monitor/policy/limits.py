"""Limits beyond which an AppServer is ended together with its sessions: `drain_limit` and `hard_memory`. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from lbadaptor.contract.settings import Settings
from monitor.policy.life import Life
from monitor.policy.problems import Problems


def too_long_dying(lives: Iterable[Life], settings: Settings, now: float) -> Iterator[Life]:
    """Those that are DYING for longer than the limit on a drain."""
    limit = settings.monitor.drain_limit
    for life in lives:
        if not life.draining:
            continue
        if life.draining_since is None:
            life.draining_since = life.since  # adopted
        if limit and now - life.draining_since >= limit:
            yield life


def next_too_long(lives: Iterable[Life], settings: Settings) -> list[float]:
    """When those that are DYING reach it; monotonic seconds."""
    limit = settings.monitor.drain_limit
    since = [life.draining_since for life in lives if life.draining and life.draining_since is not None]
    return [moment + limit for moment in since] if limit else []


def say_hard_memory(lives: Iterable[Life], settings: Settings, problems: Problems) -> None:
    """A limit that an application is beyond from the start would end every AppServer as soon as it is ready."""
    numbers = [str(life.slot) for life in lives if life.needs_more and life.published]
    hard = settings.appservers.hard_memory
    problems.say(
        "hard_memory",
        f"hard_memory = {hard} is less than the application needs from the start, and no limit for slot "
        f"{', '.join(numbers)}"
        if numbers
        else "",
        "hard_memory is a limit again",
    )
