"""An application's own store, by its two functions."""

from __future__ import annotations

from typing import Any

import pytest

from lbadaptor.appserver.sessions.stores.access import Busy, SessionAccess, Unloadable, Unsaveable
from lbadaptor.appserver.sessions.stores.own import Functions


class Shop:
    def __init__(self) -> None:
        self.sessions: dict[str, Any] = {}

    def save(self, ident: str) -> bytes | None:
        return self.sessions.get(ident)

    def load(self, ident: str, data: bytes | None) -> None:
        if data is None:
            del self.sessions[ident]
        else:
            self.sessions[ident] = data


def refuse(*arguments: object) -> Any:
    raise ValueError("the shop is closed")


def test_a_session_goes_from_one_process_to_another() -> None:
    here, there = Shop(), Shop()
    here.sessions["a"] = b"basket"
    source: SessionAccess = Functions(here.save, here.load)
    target: SessionAccess = Functions(there.save, there.load)
    content = source.read("a")
    assert content is not None
    assert content == (b"basket", 0.0, b"basket")
    target.put("a", content.data, content.ends)
    source.drop("a")
    assert (source.has("a"), target.has("a")) == (False, True)
    assert there.sessions == {"a": b"basket"}
    assert source.read("a") is None


@pytest.mark.parametrize(("values", "ident"), [([], ""), (["a"], "a"), (["a", "b"], "a"), (["", "b"], "")])
def test_the_first_value_is_the_id(values: list[str], ident: str) -> None:
    shop = Shop()
    assert Functions(shop.save, shop.load).ident(values) == ident


def test_a_living_session_is_not_replaced() -> None:
    shop = Shop()
    shop.sessions["a"] = b"new"
    Functions(shop.save, shop.load).put("a", b"old", 0.0)
    assert shop.sessions == {"a": b"new"}


def test_a_change_is_told_by_the_data() -> None:
    shop = Shop()
    access = Functions(shop.save, shop.load)
    marks = []
    for data in (b"a", b"a", b"b"):
        shop.sessions["a"] = data
        content = access.read("a")
        assert content is not None
        marks.append(content.mark)
    assert marks[0] == marks[1] != marks[2]


def test_save_that_raises_cannot_save_and_has_a_session() -> None:
    shop = Shop()
    access = Functions(refuse, shop.load)
    with pytest.raises(Unsaveable, match=r"^ValueError: the shop is closed$"):
        access.read("a")
    assert access.has("a")
    with pytest.raises(Unloadable, match=r"^ValueError: the shop is closed$"):
        access.put("a", b"old", 0.0)
    assert shop.sessions == {}, "what is there may live"


@pytest.mark.parametrize(("returned", "name"), [("text", "builtins.str"), (bytearray(b"x"), "builtins.bytearray")])
def test_save_returns_bytes_or_none(returned: Any, name: str) -> None:
    with pytest.raises(Unsaveable, match=rf"^{name}, returned in place of bytes$"):
        Functions(lambda ident: returned, refuse).read("a")


def test_load_that_raises_cannot_load() -> None:
    with pytest.raises(Unloadable, match=r"^ValueError: the shop is closed$"):
        Functions(Shop().save, refuse).put("a", b"old", 0.0)


def test_drop_never_raises() -> None:
    shop = Shop()
    Functions(shop.save, shop.load).drop("unknown")
    Functions(shop.save, refuse).drop("a")


def test_one_that_another_thread_changes_just_now_is_busy() -> None:
    basket = {"ball": 1}

    def save(ident: str) -> bytes:
        for _ in basket:
            basket["bat"] = 1  # as another thread might
        return b""

    with pytest.raises(Busy):
        Functions(save, lambda ident, data: None).read("a")
