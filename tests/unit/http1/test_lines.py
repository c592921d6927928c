"""The lines of a head, and memos of them."""

from __future__ import annotations

import contextlib
import re
import tracemalloc
from collections.abc import Callable

import pytest

from lbadaptor.http1.lines import MAX_MEMO_TEXT, TEXT, LineMemo, Memo, ProtocolError, illegal, is_name

BOUND = 65536


def read_name(name: str) -> Callable[[str], tuple[str, str]]:
    def read_value(value: str) -> tuple[str, str]:
        read.append(name)
        return name.lower(), value

    return read_value


read: list[str] = []


def test_what_comes_again_is_read_but_once() -> None:
    read: list[str] = []
    memo = Memo(lambda text: read.append(text) or text.upper(), BOUND)  # type: ignore[func-returns-value]
    assert [memo[text] for text in ("a", "b", "a")] == ["A", "B", "A"]
    assert read == ["a", "b"]


def test_an_error_is_not_remembered() -> None:
    memo = Memo(int, BOUND)
    for _ in range(2):
        with pytest.raises(ValueError, match="invalid"):
            memo["x"]
    assert not memo


@pytest.fixture
def lines() -> LineMemo[tuple[str, str]]:
    read.clear()
    return LineMemo(read_name, BOUND)


@pytest.mark.parametrize(
    ("line", "meaning"),
    [
        ("Host: a", ("host", "a")),
        ("Host:a", ("host", "a")),
        ("Host: \t a b\t ", ("host", "a b")),
        ("Host:", ("host", "")),
        ("Host: a: b", ("host", "a: b")),
        ("Host: \xe4\x80\t\xff", ("host", "\xe4\x80\t\xff")),
    ],
)
def test_a_line_is_a_name_and_a_value(lines: LineMemo[tuple[str, str]], line: str, meaning: tuple[str, str]) -> None:
    assert lines[line] == meaning


@pytest.mark.parametrize("line", ["", "Host", " folded", "A: b\rc", "A: b\nc", "A: b\0c", "A: b\x01c", "A: \x7f"])
def test_what_is_no_line_is_refused_every_time(lines: LineMemo[tuple[str, str]], line: str) -> None:
    for _ in range(2):
        with pytest.raises(ProtocolError):
            lines[line]


def test_a_line_that_comes_again_is_read_but_once(lines: LineMemo[tuple[str, str]]) -> None:
    assert lines["Host: a"] is lines["Host: a"]
    assert read == ["Host"]


SECRETS = [
    *(
        "Cookie",
        "set-cookie",
        "AUTHORIZATION",
        "Proxy-Authorization",
        "X-Api-Key",
        "LB-Key",
        "LB-Path",
        "LB-Request-Uri",
    ),
    *(
        "LB-Query",
        "LB-Remote-User",
        "LB-Var-SSL-CLIENT-CERT",
        "Location",
        "ETag",
        "Referer",
        "X-Made-Up",
    ),
]


@pytest.mark.parametrize("name", SECRETS)
def test_what_may_be_a_secret_is_not_kept(lines: LineMemo[tuple[str, str]], name: str) -> None:
    assert [lines[f"{name}: a"] for _ in range(2)] == [(name.lower(), "a")] * 2
    assert read == [name, name]
    assert not lines


def test_a_long_one_is_not_remembered(lines: LineMemo[tuple[str, str]]) -> None:
    assert lines["Host: " + "a" * MAX_MEMO_TEXT][1] == "a" * MAX_MEMO_TEXT
    assert not lines


@pytest.mark.parametrize("length", [1, 200])
def test_what_is_made_up_takes_no_memory_without_bound(length: int) -> None:
    for kept in (LineMemo(read_name, BOUND), Memo(str.upper, BOUND)):
        tracemalloc.start()
        for number in range(2000):
            text = f"Host: {number}{'a' * length}"
            assert kept[text] == (("host", text[6:]) if isinstance(kept, LineMemo) else text.upper())
        taken, _ = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        assert 0 < len(kept) < 200
        assert taken < BOUND + 20_000


@pytest.mark.parametrize("code", range(0x120))
def test_what_a_header_may_hold_is_one_definition(lines: LineMemo[tuple[str, str]], code: int) -> None:
    """RFC 9110 §5.5: a tab, what is visible, and bytes of other character sets."""
    legal = code == 9 or 0x20 <= code <= 0x7E or 0x80 <= code <= 0xFF
    text = f"a{chr(code)}b"
    assert (illegal(text) is None) is legal
    assert (re.fullmatch(TEXT, text) is not None) is legal
    with contextlib.nullcontext() if legal else pytest.raises(ProtocolError):
        assert lines[f"X: {text}"] == ("x", text)


@pytest.mark.parametrize(
    ("text", "verdict"), [("X-Foo", True), ("a!#$%&'*+.^_`|~-", True), ("", False), ("a b", False), ("\xe4", False)]
)
def test_names_are_tokens(text: str, verdict: bool) -> None:
    assert is_name(text) is verdict
