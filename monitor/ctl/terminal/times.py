"""Times as people say them."""

from __future__ import annotations

import time

_UNITS = (("days", 86400), ("h", 3600), ("min", 60))


def duration(seconds: float) -> str:
    """`12 s`, `3 min`, `5 h`, `14 days`: two of a unit, at least."""
    for unit, size in _UNITS:
        if seconds >= 2 * size:
            return f"{seconds / size:.0f} {unit}"
    return f"{seconds:.0f} s"


def moment(unix: float) -> str:
    """A local date and time."""
    return time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(unix))
