"""What all tests share: how they get log lines, which do not come from `logging` (see `lbadaptor.log.loggers`)."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator
from typing import Any

import pytest

from lbadaptor.log import loggers


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The torture first: it lasts longest, and would else be what is left at the end of a parallel run."""
    items.sort(key=lambda item: "torture" not in item.path.parts)  # else in their order


class _Stderr:
    """Whatever `sys.stderr` is at the moment: `capsys` changes it."""

    journal = False

    def write(self, data: bytes, patient: bool = False) -> None:
        with contextlib.suppress(Exception):
            sys.stderr.write(data.decode())

    def flush(self) -> None:
        pass


@pytest.fixture(autouse=True)
def _log_goes_to_stderr(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loggers.program, "output", _Stderr())
    monkeypatch.setattr(loggers, "_threshold", loggers.WARNING)


@pytest.fixture
def caplog(caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch) -> Iterator[pytest.LogCaptureFixture]:
    """pytest's own, which also gets the lines of our loggers; `set_level` and `at_level` apply to them too."""
    set_level, at_level = caplog.set_level, caplog.at_level

    def set_ours(level: int, logger: str | None = None) -> None:
        loggers.set_threshold(level)
        set_level(level, logger)

    @contextlib.contextmanager
    def at_ours(level: int, logger: str | None = None) -> Iterator[None]:
        before = loggers.threshold()
        loggers.set_threshold(level)
        try:
            with at_level(level, logger):
                yield
        finally:
            loggers.set_threshold(before)

    changed: dict[str, Any] = {"set_level": set_ours, "at_level": at_ours}
    for name, function in changed.items():
        monkeypatch.setattr(caplog, name, function)
    loggers.handlers.append(caplog.handler)
    yield caplog
    loggers.handlers.remove(caplog.handler)
