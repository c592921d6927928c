"""A key file's lines: three ages of a key, and the keys of another machine."""

from __future__ import annotations

import pytest

from lbadaptor.contract.errors import KeyFileError
from monitor.contract import key_lines
from monitor.contract.key_lines import LONGEST_KEY, MOST_KEYS, KeyLines, parse, parse_strictly

A, B, C, D, X = (letter * 64 for letter in "abcdx")
"""the key of the start, the one after it, the next, and two of somebody else's"""


def of(*keys: str, believed: str = "") -> KeyLines:
    return KeyLines(keys, believed)


def test_a_believed_key_stands_first_under_its_comment_and_the_last_one_signs() -> None:
    text = of(A, B, believed=C).text()
    comment, *keys = text.splitlines()
    assert comment.startswith("# believed: ")
    assert keys == [C, A, B]
    assert parse(text) == of(A, B, believed=C)
    assert parse(of(A).text()) == of(A)


def test_comments_stay() -> None:
    lines = parse(f"# ours\n# believed: x\n{C}\n{A}\n\n# more\n{B}\n")
    assert (lines.keys, lines.believed, lines.comments) == ((A, B), C, ("# ours", "# more"))
    assert parse(lines.text()) == lines


def test_what_stands_alone_signs_whatever_the_comment_says() -> None:
    assert parse(f"# believed: x\n{A}\n") == of(A)
    assert parse(f"# believed: x\n{A}\n{B}\n{A}\n") == of(B, A)


def test_the_last_line_signs_also_where_it_stands_twice() -> None:
    assert parse(f"{A}\n{B}\n{A}\n") == of(B, A)


def test_the_three_steps() -> None:
    lines = of(A).believe(B)
    assert (lines.signing, lines.believed) == (A, B)
    lines = lines.sign()
    assert (lines.keys, lines.believed) == ((A, B), "")
    assert lines.without_older() == of(B)


def test_a_key_that_is_believed_stays_when_old_ones_go() -> None:
    assert of(A, B, believed=C).without_older() == of(B, believed=C)


@pytest.mark.parametrize(
    ("step", "why"),
    [
        (lambda: of(A, believed=B).believe(C), "a key is believed already"),
        (lambda: of(A).sign(), "no key is believed"),
        (lambda: of(*(f"{n}" * 64 for n in range(MOST_KEYS))).believe(A), "there would be 9 keys"),
        (lambda: of(*(f"{n}" * 64 for n in range(MOST_KEYS))).with_those_of(of(A)), "there would be 9 keys"),
        (lambda: of(A, believed=B).with_those_of(of(A, believed=C)), "two changes are under way"),
    ],
)
def test_what_cannot_be_is_refused_without_a_key_in_it(step: object, why: str) -> None:
    assert callable(step)
    with pytest.raises(KeyFileError, match=why) as refused:
        step()
    assert not any(letter * 5 in str(refused.value) for letter in "abc01234567")


@pytest.mark.parametrize(
    ("ours", "theirs", "after"),
    [
        # set up: this machine has a key of its own
        (of(A), of(B), of(A, B)),
        (of(X, A), of(B), of(X, A, B)),
        (of(A), of(C, B), of(A, C, B)),
        # the first step there
        (of(A), of(A, believed=B), of(A, believed=B)),
        (of(X, A), of(A, believed=B), of(X, A, believed=B)),
        (of(X), of(A, believed=B), of(X, A, believed=B)),
        # the first step passed over here: it signs there already
        (of(A), of(A, B), of(A, B)),
        # believed here, signs there
        (of(A, believed=B), of(A, B), of(A, B)),
        (of(X, A, believed=B), of(A, B), of(X, A, B)),
        # signs here, only believed there; then what was exported before that
        (of(A, B), of(A, believed=B), of(A, B)),
        (of(B), of(A, believed=B), of(A, B)),
        (of(A, B), of(A), of(A, B)),
        (of(X, A, B), of(A), of(X, A, B)),
        # it is behind with the first step
        (of(A, believed=B), of(A), of(A, believed=B)),
        # it has ended a change, and goes on to the next
        (of(A, B), of(B), of(A, B)),
        (of(A, B), of(B, believed=C), of(A, B, believed=C)),
        (of(A, believed=B), of(B, believed=C), of(A, B, believed=C)),
        # each has the other's as an older one: what was imported last counts
        (of(A, B), of(B, A), of(B, A)),
        # the same
        (of(A), of(A), of(A)),
        (of(A, believed=B), of(A, believed=B), of(A, believed=B)),
    ],
)
def test_the_keys_of_another_machine(ours: KeyLines, theirs: KeyLines, after: KeyLines) -> None:
    assert ours.with_those_of(theirs) == after
    assert after.with_those_of(theirs) == after, "the same again changes nothing"
    assert ours.all | theirs.all == after.all, "no key is lost"


@pytest.mark.parametrize(
    ("data", "why"),
    [
        (b"", "there is no key in it"),
        (b"# ours\n\n", "there is no key in it"),
        (f"{A}\n{'s' * 31}\n".encode(), "line 2 is no key"),
        (f"{'s' * (LONGEST_KEY + 1)}\n".encode(), "line 1 is no key"),
        (f"# ours\n{A} {A}\n".encode(), "line 2 is no key"),
        (f"{A}\r\n".encode(), "line 1 is no key"),
        (f"{A}\n{B}".encode(), "line 2 has no end"),
        (f"{A}\n{B}\xe4\n".encode(), "line 2: not plain ASCII"),
        (f"{A}\n{B[:40]}\0{B[:40]}\n".encode(), "line 2 is no key"),
        (f"{A}\n# theirs\r{'s' * 31}\n".encode(), "line 2 has a control character"),
        (f"# theirs\x1c{B}\n{A}\n".encode(), "line 1 has a control character"),
        (b"usage: ssh [-46AaCfGg] [-B bind_interface] [-b bind_address]\n", "line 1 is no key"),
        ("".join(f"{n:064}\n" for n in range(MOST_KEYS + 1)).encode(), "there are 9 keys in it"),
    ],
)
def test_what_is_no_export_is_refused_with_its_line_and_never_shown(data: bytes, why: str) -> None:
    with pytest.raises(KeyFileError, match=why) as refused:
        parse_strictly(data)
    assert not any(letter * 5 in str(refused.value) for letter in "abs0")


def test_what_is_exported_can_be_imported_and_tells_where_it_comes_from() -> None:
    lines = KeyLines((A, B), C, ("# ours",))
    there = parse_strictly(key_lines.exported(lines, "web1.example.com", 3).encode())
    assert (there.keys, there.believed) == (lines.keys, lines.believed)
    assert key_lines.exporter(there.comments) == ("web1.example.com", 3)
    alone = parse_strictly(key_lines.exported(lines, "web1", -1).encode())
    assert key_lines.exporter(alone.comments) is None
