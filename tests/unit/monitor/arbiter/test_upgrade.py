"""An upgrade of the monitor in place: what has to be done before."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from monitor.arbiter import loop
from monitor.arbiter.loop import SHORT_PAUSE, Arbiter


def test_an_order_that_is_read_at_the_last_moment_gets_its_reply_first(monkeypatch: pytest.MonkeyPatch) -> None:
    checker, orders = SimpleNamespace(busy=False), SimpleNamespace(upgrade_at=0.0)
    arbiter: Any = SimpleNamespace(_checker=checker, _pool=SimpleNamespace(stopping=False), _orders=orders)
    arbiter._read_all = lambda timeout: setattr(checker, "busy", True)  # `lbctl restart`, for example
    monkeypatch.setattr(loop.time, "monotonic", lambda: 100.0)
    Arbiter._become_new(arbiter)
    assert orders.upgrade_at == 100.0 + SHORT_PAUSE, "it tries again when the settings have been checked"


def test_an_order_to_stop_that_is_read_at_the_last_moment_wins() -> None:
    pool, orders = SimpleNamespace(stopping=False), SimpleNamespace(upgrade_at=0.0)
    arbiter: Any = SimpleNamespace(_checker=SimpleNamespace(busy=False), _pool=pool, _orders=orders)
    arbiter._read_all = lambda timeout: setattr(pool, "stopping", True)
    Arbiter._become_new(arbiter)
    assert orders.upgrade_at == float("inf")
