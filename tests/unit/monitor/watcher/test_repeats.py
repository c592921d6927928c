"""What repeats is said once and counted; no line is lost, and their order stays."""

from __future__ import annotations

import random

import pytest

from monitor.watcher.lines.line import Said
from monitor.watcher.lines.repeats import INTERVAL, LONGEST, Repeats


def said(lines: str, repeats: Repeats | None = None, now: float = 1.0) -> str:
    """What is said of lines of one character each. A number stands for what repeats."""
    told = Repeats() if repeats is None else repeats
    found = [one for line in lines for one in told.take(Said(6, line), now)]
    return shown([*found, *(told.end() if repeats is None else [])])


def shown(found: list[Said]) -> str:
    return " ".join(one.text for one in found)


@pytest.mark.parametrize(
    ("lines", "expected"),
    [
        ("", ""),
        ("abc", "a b c"),
        ("aa", "a a"),
        ("aaa", "a (the last line came 2 times more)"),
        ("aaab", "a (the last line came 2 times more) b"),
        ("abab", "a b (the last 2 lines came once more)"),
        ("abababc", "a b (the last 2 lines came 2 times more) c"),
        ("ababac", "a b (the last 2 lines came once more) a c"),
        ("abcabd", "a b c a b d"),
        ("abacabacabac", "a b a c a (the last 4 lines came once more) b a c"),
        ("abba", "a b b a"),
    ],
)
def test_what_repeats_is_counted(lines: str, expected: str) -> None:
    assert said(lines) == expected


def test_a_repetition_is_as_important_as_the_most_important_line_of_it() -> None:
    repeats = Repeats()
    for _ in range(3):
        assert len(repeats.take(Said(6, "a"), 1.0)) + len(repeats.take(Said(3, "b"), 1.0)) in (0, 2)
    assert repeats.end() == [Said(3, "(the last 2 lines came 2 times more)")]


def test_what_still_repeats_is_said_again_after_a_while() -> None:
    repeats = Repeats()
    assert said("xxxx", repeats) == "x"
    assert said("x", repeats, 1.1 + INTERVAL) == "(the last line came 3 times more) x"
    assert said("x", repeats, 1.2 + INTERVAL) == ""


def test_a_line_that_comes_now_and_then_is_said_each_time() -> None:
    repeats = Repeats()
    assert [said("x", repeats, hour * 3600.0) for hour in range(1, 4)] == ["x", "x", "x"]


def test_what_is_held_back_is_said_when_nothing_follows() -> None:
    repeats = Repeats()
    assert said("abca", repeats) == "a b c"
    assert shown(repeats.quiet(1.2)) == "a"
    assert said("aa", repeats) == "a"
    assert shown(repeats.quiet(1.2)) == ""
    assert shown(repeats.quiet(1.1 + INTERVAL)) == "a"


def test_no_line_is_lost_and_their_order_stays() -> None:
    """What is said, with what was counted put back, is what came."""
    dice = random.Random(7)
    for _ in range(300):
        lines = "".join(dice.choice("abc" if dice.random() < 0.8 else "abcdefgh") for _ in range(dice.randrange(60)))
        repeats, found = Repeats(), ""
        for one in [one for line in lines for one in repeats.take(Said(6, line), 1.0)] + repeats.end():
            if len(one.text) == 1:
                found += one.text
                continue
            words = one.text.split()
            length = 1 if words[2] == "line" else int(words[2])
            count = 1 if "once" in words else int(words[words.index("times") - 1])
            found += found[-length:] * count
        assert found == lines


def test_it_remembers_no_more_than_it_must() -> None:
    repeats = Repeats()
    for number in range(10 * LONGEST):
        repeats.take(Said(6, str(number)), 1.0)
    assert len(repeats._last) <= 4 * LONGEST + 1
    cycle = [Said(6, f"line {number}") for number in range(LONGEST)]
    assert [len([one for line in cycle for one in repeats.take(line, 1.0)]) for _ in range(3)] == [LONGEST, 0, 0]
