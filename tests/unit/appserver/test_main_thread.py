"""The main thread of an AppServer, in which the application's signal handlers run, and may raise what they like."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from lbadaptor.appserver import main


def test_a_check_in_which_a_signal_handler_raised_does_not_end_the_process(monkeypatch: pytest.MonkeyPatch) -> None:
    ended: list[int] = []
    monkeypatch.setattr("os._exit", ended.append)
    answers = [False, True, False, False, False]
    gateway: Any = SimpleNamespace(intact=lambda: answers.pop(0))
    main._check_the_application(gateway)
    assert ended == []
    main._check_the_application(gateway)
    assert ended == [main.DESCRIPTORS_CLOSED]


def test_an_error_while_another_is_logged_does_not_end_the_loop(monkeypatch: pytest.MonkeyPatch) -> None:
    turns: list[bool | None] = [None, True, None, False]
    looks = [True, False, False, False]

    def turn() -> bool:
        if (found := turns.pop(0)) is None:
            raise ValueError
        return found

    def is_child() -> bool:
        """The guard begins with it when it handles an error."""
        if looks and looks.pop(0):
            raise TimeoutError("of a signal handler")
        return False

    monkeypatch.setattr(main.forks, "is_child", is_child)
    main._run(turn)
    assert turns == []
