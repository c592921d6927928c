"""What all tests share: how they get log lines, which do not come from `logging` (see `lbadaptor.log.loggers`)."""

from __future__ import annotations

import contextlib
import signal
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from lbadaptor.log import loggers

TESTS = Path(__file__).parent


FIRST = (
    "torture/test_torture.py",
    "machines/test_machine_failures.py",
    "machines/test_front_and_leaving.py",
    "bench/test_survival.py",
    "apache/test_same_environ.py",
    "apache/test_frameworks.py",
    "process/test_monitor_log.py",
)
"""They last long, though they are short to read."""


def pytest_configure() -> None:
    """Programs that tests start heed SIGINT and SIGQUIT, also in a job that a shell without job control has put into
    the background.

    Ignored signals are inherited (execve(2)).
    """
    for number, usual in ((signal.SIGINT, signal.default_int_handler), (signal.SIGQUIT, signal.SIG_DFL)):
        if signal.getsignal(number) == signal.SIG_IGN:
            signal.signal(number, usual)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The order in which a parallel run hands out the files; tests within a file stay in theirs.

    Those that last longest come first. Then come the files with real processes, the largest first, those of
    tests/apache and of tests/process in turn: the ones keep the processors busy while the others wait. What is left
    at the end is small.
    """
    first = {TESTS / name: turn for turn, name in enumerate(FIRST)}
    turns = {
        path: turn
        for folder in ("apache", "process")
        for turn, path in enumerate(sorted((TESTS / folder).glob("test_*.py"), key=lambda path: -path.stat().st_size))
    }

    def order(item: pytest.Item) -> tuple[int, int]:
        if item.path in first:
            return 0, first[item.path]
        return (1, turns[item.path]) if item.path in turns else (2, 0)

    items.sort(key=order)


class _Stderr:
    """Whatever `sys.stderr` is at the moment: `capsys` changes it."""

    journal = False
    backlog = False

    def write(self, data: bytes) -> None:
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
