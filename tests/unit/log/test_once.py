"""What lasts is logged once."""

from __future__ import annotations

from lbadaptor.log.once import Once


def test_the_same_thing_is_new_once_until_another_comes() -> None:
    once = Once()
    assert [once.first(text) for text in ("a", "a", "b", "b", "a")] == [True, False, True, False, True]


def test_after_the_end_it_is_new_again_and_the_end_is_logged_once() -> None:
    once = Once()
    assert once.over() is False
    assert once.first("a")
    assert (once.over(), once.over()) == (True, False)
    assert once.first("a")


def test_as_many_are_remembered_as_it_says() -> None:
    once = Once(2)
    assert [once.first(number) for number in (1, 2, 1, 3, 2, 1)] == [True, True, False, True, False, True]
