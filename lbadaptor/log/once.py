"""What lasts is logged once."""

from __future__ import annotations

from collections.abc import Hashable


class Once:
    """Tells whether something was logged already. It remembers the last `most` things, and nothing after `over`.

    Any thread may use it; two that come at the same moment may both be told that they are the first.
    """

    def __init__(self, most: int = 1) -> None:
        self._most = most
        self._logged: tuple[Hashable, ...] = ()

    def first(self, what: Hashable) -> bool:
        """Whether to log it now: it is not among those that were logged last."""
        if what in self._logged:
            return False
        self._logged = (*self._logged, what)[-self._most :]
        return True

    def over(self) -> bool:
        """It is over, so that it is logged when it begins again. Whether anything had been logged."""
        had, self._logged = bool(self._logged), ()
        return had
