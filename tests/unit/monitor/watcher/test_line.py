"""A line: what is read of its bytes, and how it is written."""

from __future__ import annotations

import json

import pytest

from monitor.contract.captured import CapturedName, parse
from monitor.watcher.lines.line import Line, as_dated_text, as_json, as_text, read


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (b"it runs", (6, "it runs")),
        (b"", (6, "")),
        (b"<3>it fails", (3, "it fails")),
        (b"<8>no priority", (6, "<8>no priority")),
        (b"<33>no priority", (6, "<33>no priority")),
        (b"its <3> middle", (6, "its <3> middle")),
        (b"a Windows line\r", (6, "a Windows line")),
        (b"10 %\r20 %", (6, "10 %\\r20 %")),
        (b"caf\xc3\xa9 \xff", (6, "café \\xff")),
        (b"\x1b[1;31mred\x1b[0m \x1b]0;title\x07 \x00", (6, "red \\x1b]0;title\\x07 \\x00")),
        (b"\tindented", (6, "        indented")),
        ("turned \u202e, parted \u2028".encode(), (6, "turned \\u202e, parted \\u2028")),
    ],
)
def test_what_a_line_says(data: bytes, expected: tuple[int, str]) -> None:
    assert read(data) == expected


LINE = Line(CapturedName(1764313600123, 2), 1764313700.5, 4, 'says "é"')


def test_a_line_as_text() -> None:
    assert as_text(LINE) == 'AppServer 2: says "é"'
    assert as_dated_text(LINE) == '2025-11-28T07:08:20.500Z warning AppServer 2.1764313600123: says "é"'
    template = LINE._replace(name=CapturedName(17))
    assert as_text(template) == 'AppServer template: says "é"'


def test_a_line_as_json() -> None:
    assert json.loads(as_json(LINE)) == {
        "time": "2025-11-28T07:08:20.500Z",
        "level": "warning",
        "program": "AppServer",
        "slot": 2,
        "generation": 1764313600123,
        "text": 'says "é"',
    }
    assert "slot" not in json.loads(as_json(LINE._replace(name=CapturedName(17))))


@pytest.mark.parametrize("name", [CapturedName(1764313600123, 0), CapturedName(5, 12), CapturedName(3)])
def test_names_of_files(name: CapturedName) -> None:
    assert parse(str(name)) == name


@pytest.mark.parametrize("name", ["forwarded", "1", "1.", ".1", "1.2.3", "x.1", "template", "1.2\n", "٣.1"])
def test_other_files_are_no_such_files(name: str) -> None:
    assert parse(name) is None
