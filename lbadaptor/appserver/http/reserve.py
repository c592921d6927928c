"""Descriptors that are kept open, so that the process can free some when it has no others."""

from __future__ import annotations

import os
import resource


class Reserve:
    """`size` descriptors of /dev/null. One thread at a time may use it."""

    def __init__(self, size: int) -> None:
        self._size = size
        self._held: list[int] = []
        self.fill()

    @property
    def left(self) -> int:
        return len(self._held)

    def spend(self, limit: float = float("inf")) -> bool:
        """Close one whose number is below the limit. False when there is none."""
        for index in range(len(self._held) - 1, -1, -1):
            if self._held[index] < limit:
                os.close(self._held.pop(index))
                return True
        return False

    def fill(self) -> bool:
        """Open as many as possible. Whether the reserve is full and the process can open `size` more."""
        more: list[int] = []
        try:
            while len(self._held) < self._size:
                self._held.append(_open())
            while len(more) < self._size:
                more.append(_open())
        except OSError:
            return False
        finally:
            for descriptor in more:
                os.close(descriptor)
        return True

    def close(self) -> None:
        while self.spend():
            pass


def _open() -> int:
    return os.open("/dev/null", os.O_RDONLY | os.O_CLOEXEC)


def descriptor_limit() -> float:
    """Every new descriptor has a number below it (getrlimit(2), RLIMIT_NOFILE)."""
    limit = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    return float("inf") if limit == resource.RLIM_INFINITY else limit
