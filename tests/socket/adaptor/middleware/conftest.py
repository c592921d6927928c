"""What holds for all tests of the middleware."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator

import pytest


def descriptors() -> set[tuple[str, str]]:
    """Their numbers, and what they lead to."""
    found = set()
    for name in os.listdir("/proc/self/fd"):
        with contextlib.suppress(FileNotFoundError):  # that of the listing itself
            found.add((name, os.readlink(f"/proc/self/fd/{name}")))
    return found


@pytest.fixture(autouse=True)
def _no_descriptor_is_left() -> Iterator[None]:
    """One that another test has left may be closed meanwhile."""
    before = descriptors()
    yield
    assert descriptors() <= before
