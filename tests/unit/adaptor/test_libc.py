from __future__ import annotations

import sys

import pytest

from lbadaptor.adaptor import libc


def test_a_function_of_the_c_library_can_be_called() -> None:
    absolute = libc.function("abs")
    assert absolute is not None
    assert absolute(-3) == 3


def test_there_is_none_of_another_name() -> None:
    assert libc.function("no_such_function") is None


def test_there_is_none_in_a_python_without_ctypes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ctypes", None)
    assert libc.function("abs") is None
