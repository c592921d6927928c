"""How many sessions live, from those who know: the application, its framework's store, the ledger. Pure."""

from __future__ import annotations

from collections.abc import Callable

from lbadaptor.appserver.sessions.table import Ledger
from lbadaptor.log import logs

log = logs.logger("lbadaptor.appserver")

Count = Callable[[], int]
Clock = Callable[[], float]

PAUSE = 50
"""A count that takes its time is not made again for so many times as long: it costs 2 % of a processor."""


def by_cookies(ledger: Ledger, clock: Clock) -> Count:
    """The ledger's count."""
    return lambda: ledger.count(clock())


def by_word(count: Count, ledger: Ledger, clock: Clock) -> Count:
    """The application's own count alone decides; the ledger's does while it fails."""
    asked = _asked(count, clock)
    return lambda: ledger.count(clock()) if (number := asked()) is None else number


def by_store(count: Count, ledger: Ledger, clock: Clock) -> Count:
    """Of a framework's store and the ledger the smaller: who is not in the ledger is not admitted any more, and
    what is not in the store has ended."""
    asked = _asked(count, clock)
    return lambda: ledger.count(clock()) if (number := asked()) is None else min(number, ledger.count(clock()))


def _asked(count: Count, clock: Clock) -> Callable[[], int | None]:
    """The same count; None when it fails, which is said once."""
    failing = False
    last: int | None = None
    due = 0.0

    def asked() -> int | None:
        nonlocal failing, last, due
        began = clock()
        if last and began < due:  # "none" has to be true at the moment it is said
            return last
        try:
            last = max(0, int(count()))
            failing = False
        except Exception:
            if not failing:
                log.exception("the application's session count fails; going by their cookies until it works again")
            failing = True
            last = None
        ended = clock()
        due = ended + PAUSE * (ended - began)
        return last

    return asked
