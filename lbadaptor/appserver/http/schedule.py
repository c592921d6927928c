"""Which thread polls and which one serves: the schedule of the gateway's threads.

There are two of them behind one interface, and they pass the same tests. `schedule_plain` is easy to follow: one
thread polls, others take requests from a queue. `schedule_fast` is the one in use: it costs less for each request.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from threading import Thread
from typing import Protocol, TypeVar

from lbadaptor.appserver.http.admission import Admission
from lbadaptor.appserver.http.own_errors import OwnErrors
from lbadaptor.appserver.http.schedule_fast import FastSchedule
from lbadaptor.appserver.http.schedule_plain import PlainSchedule

VARIABLE = "LBADAPTOR_SCHEDULE"
"""A variable of the environment: `plain` or `fast`. For tests and benchmarks."""

Task = TypeVar("Task")


class Schedule(Protocol):
    """Made with an Admission, from which it takes the requests that wait; and these:

    `poll` waits for callers and handles what comes, which may put requests into the Admission. One thread at a time
    calls it, and some thread always does, so that a probe waits for no request. It may raise anything.

    `serve` serves one request. Any thread calls it, as many at once as Admission allows. If it
    raises, or cannot be called for an error of the schedule's own, `give_up` is called: it reports the error that is
    being handled, and never raises.

    `errors` reports all other errors; the thread goes on.
    """

    @property
    def threads(self) -> Sequence[Thread]:
        """All of them. One that has not started is not alive."""

    def start(self) -> None:
        """Raises RuntimeError when there can be no more threads."""

    def stop(self) -> None:
        """Each thread ends when it has done what it is doing. The caller wakes the one that polls."""

    def close(self) -> None:
        """Close descriptors. `stop` was called, and no thread polls any more."""

    def abandon(self) -> None:
        """In a forked child, where the threads are not: close descriptors. Takes no lock."""

    def intact(self) -> bool:
        """Whether its descriptors are still open: an application may close them."""


def schedule(
    admission: Admission[Task],
    poll: Callable[[], object],
    serve: Callable[[Task], object],
    give_up: Callable[[Task], object],
    errors: OwnErrors,
) -> Schedule:
    """The one that VARIABLE names, the fast one by default. Raises OSError."""
    if os.environ.get(VARIABLE) == "plain":
        return PlainSchedule(admission, poll, serve, give_up, errors)
    return FastSchedule(admission, poll, serve, give_up, errors)
