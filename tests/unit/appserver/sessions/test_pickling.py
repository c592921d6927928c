"""Pickles of live objects: the type that stands against it is named, however deep it is."""

from __future__ import annotations

import functools
import pickle
import socket
import sys
import threading
from collections.abc import Callable, Iterator
from types import ModuleType
from typing import Any

import pytest

from lbadaptor.appserver.sessions.stores.access import Busy, Unloadable, Unsaveable
from lbadaptor.appserver.sessions.stores.pickling import dumps, loads, mark_of


class Cart:
    def __init__(self, **parts: Any) -> None:
        self.__dict__.update(parts)


class Stubborn:
    def __getstate__(self) -> Any:
        raise ValueError("not me")


def local() -> object:
    class Inner:
        pass

    return Inner()


def generator() -> Iterator[int]:
    yield 1


def endless() -> list[Any]:
    inner: list[Any] = []
    for _ in range(100_000):
        inner = [inner]
    return inner


HERE = __name__

LIVE: dict[str, Callable[[], Any]] = {
    "socket.socket": lambda: socket.socket(),
    "_thread.lock": threading.Lock,
    "builtins.function": lambda: lambda: None,
    "_io.TextIOWrapper": lambda: open(__file__, encoding="utf-8"),  # noqa: SIM115
    "builtins.generator": generator,
    f"{HERE}.Stubborn": Stubborn,
    f"{HERE}.local.<locals>.Inner": local,
}

AROUND: dict[str, Callable[[Any], Any]] = {
    "itself": lambda live: live,
    "value": lambda live: {"a": 1, "live": live, "z": Cart()},
    "deep": lambda live: {"cart": Cart(lines=[Cart(), (1, {"x": Cart(live=live)})], last=Cart())},
    "partial": lambda live: functools.partial(print, Cart(), live),
}


@pytest.mark.parametrize("around", AROUND)
@pytest.mark.parametrize("name", LIVE)
def test_the_type_that_cannot_be_pickled_is_named(name: str, around: str) -> None:
    live = LIVE[name]()
    with pytest.raises(Unsaveable) as refused:
        dumps(AROUND[around](live))
    assert str(refused.value) == name
    if hasattr(live, "close"):
        live.close()


@pytest.mark.parametrize("around", AROUND)
def test_what_is_nested_too_deeply_is_no_types_fault(around: str) -> None:
    with pytest.raises(Unsaveable, match=r"^objects nested too deeply$"):
        dumps(AROUND[around](endless()))


class Changing:
    """Adds to a dictionary while this is pickled, as another thread would."""

    def __init__(self, around: dict[Any, Any]) -> None:
        self.around = around

    def __reduce__(self) -> Any:
        self.around[len(self.around)] = 1
        return Cart, ()


def test_what_changes_meanwhile_is_busy() -> None:
    session: dict[Any, Any] = {}
    session.update(a=Changing(session), b=1)
    with pytest.raises(Busy):
        dumps(session)


def test_what_can_be_pickled_after_all_is_busy() -> None:
    class Once:
        tries = 0

        def __reduce__(self) -> Any:
            Once.tries += 1
            if Once.tries == 1:
                raise ValueError
            return Cart, ()

    with pytest.raises(Busy):
        dumps([Once()])


def test_what_was_pickled_is_loaded() -> None:
    cart = loads(dumps({"cart": Cart(lines=[1])}))["cart"]
    assert cart.lines == [1]


def test_a_class_that_is_missing_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    module = ModuleType("old_release")
    exec("class Cart: pass", module.__dict__)
    monkeypatch.setitem(sys.modules, "old_release", module)
    data = dumps(module.Cart())
    del module.Cart
    with pytest.raises(Unloadable, match=r"AttributeError: .*Cart"):
        loads(data)
    monkeypatch.delitem(sys.modules, "old_release")
    with pytest.raises(Unloadable, match="ModuleNotFoundError: No module named 'old_release'"):
        loads(data)


@pytest.mark.parametrize("data", [b"", b"\x00garbage", pickle.dumps([1])[:-1]])
def test_what_is_no_pickle_cannot_be_loaded(data: bytes) -> None:
    with pytest.raises(Unloadable):
        loads(data)


def test_a_mark_is_short_and_tells_contents_apart() -> None:
    assert len(mark_of(b"x" * 100_000)) == 16
    assert mark_of(b"a") == mark_of(b"a") != mark_of(b"b")
