"""How many sessions live, as the application, its framework's store, or the table of sessions tells. Pure."""

from __future__ import annotations

from collections.abc import Callable

from lbadaptor.appserver.sessions.table import SessionTable
from lbadaptor.log import logs

log = logs.logger("lbadaptor.appserver")

Count = Callable[[], int]
Clock = Callable[[], float]

PAUSE = 50
"""After a count, none is made for this many times as long as it took: counting costs at most 2 % of a processor."""


def by_cookies(table: SessionTable, clock: Clock) -> Count:
    """The table's count."""
    return lambda: table.count(clock())


def by_application(count: Count, table: SessionTable, clock: Clock) -> Count:
    """The application's own count. While that fails: the table's."""
    asked = _guarded(count, clock)
    return lambda: table.count(clock()) if (number := asked()) is None else number


def by_store(count: Count, table: SessionTable, clock: Clock) -> Count:
    """The smaller one of the store's count and the table's. A session that is not in the table is not admitted any
    more; a session that is not in the store has ended."""
    asked = _guarded(count, clock)
    return lambda: table.count(clock()) if (number := asked()) is None else min(number, table.count(clock()))


def at_most(count: Count, kept: Count) -> Count:
    """The smaller one of a count and the number of sessions that are kept, each of which the store holds. A cookie
    may be set for a session that the store does not hold, as by CherryPy with an error page."""
    return lambda: min(count(), kept())


def _guarded(count: Count, clock: Clock) -> Callable[[], int | None]:
    """The same count; None when it fails. The first failure is logged."""
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
