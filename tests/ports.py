"""Ports for tests: no other test has them at the same time, nor another run on this machine."""

from __future__ import annotations

import atexit
import contextlib
import random
import socket
from collections.abc import Iterator

_BLOCK = 10
_BLOCKS = range(10_000, 32_000, _BLOCK)
"""Below the ports of outgoing connections, and above those that `lbctl install` gives."""
_held: dict[int, contextlib.ExitStack] = {}


@atexit.register
def _give_all_back() -> None:
    while _held:
        _held.popitem()[1].close()


def free_ports(count: int = 1) -> int:
    """The first of so many ports in a row, of 127.0.0.1. They are held until `give_back`, or this process ends."""
    for _ in range(1000):
        first = random.choice(_BLOCKS)
        with contextlib.ExitStack() as locks:
            try:
                for block in range(first, first + count, _BLOCK):
                    # The kernel unlocks it, however this process ends.
                    lock = locks.enter_context(socket.socket(socket.AF_UNIX))
                    lock.bind(f"\0lbadaptor-test-ports-{block}")
                with contextlib.ExitStack() as trials:
                    for port in range(first, first + count):
                        trials.enter_context(socket.socket()).bind(("", port))
            except OSError:
                continue
            _held[first] = locks.pop_all()
            return first
    raise AssertionError(f"no {count} ports in a row are free")


def give_back(first: int) -> None:
    """Nothing listens on these ports any more: others may have them."""
    _held.pop(first).close()


@contextlib.contextmanager
def held_ports(count: int) -> Iterator[int]:
    """The first of so many ports in a row, for a `with`."""
    first = free_ports(count)
    try:
        yield first
    finally:
        give_back(first)
