"""Texts that others have written are made fit for a log and for a pipe."""

from __future__ import annotations

import json

import pytest

from lbadaptor.log import texts


@pytest.mark.parametrize(("number", "text"), [(0, "0 sessions"), (1, "1 session"), (2, "2 sessions")])
def test_a_count_has_its_noun_in_the_right_number(number: int, text: str) -> None:
    assert texts.count(number, "session") == text


@pytest.mark.parametrize(
    ("text", "clean"),
    [
        ("plain – text", "plain – text"),
        ("two\nlines\r\n", "two\\nlines\\r\\n"),
        ("\x1b[31mred\x07", "\\x1b[31mred\\x07"),
        ("half \ud83d of it", "half \\ud83d of it"),
        ("\u202eesrever", "\\u202eesrever"),
        ("a\x00b\x85c\u2028d", "a\\x00b\\x85c\\u2028d"),
        ("", ""),
    ],
)
def test_a_text_becomes_one_line_that_can_be_encoded(text: str, clean: str) -> None:
    assert texts.clean(text) == clean
    clean.encode()


@pytest.mark.parametrize("text", ["x" * 600_000, "\n" * 600_000, "\ud800" * 600_000])
def test_a_long_text_is_cut_off(text: str) -> None:
    assert len(texts.clean(text)) == texts.LONGEST + 2
    assert texts.clean(text).endswith(" …")


class Unspeakable(Exception):
    def __str__(self) -> str:
        raise SystemExit("no text")


class Empty(BaseException):
    pass


@pytest.mark.parametrize(
    ("error", "told"),
    [
        (ValueError("seven"), "ValueError: seven"),
        (KeyError("seven"), "KeyError: 'seven'"),
        (Empty(), "Empty"),
        (GeneratorExit(), "GeneratorExit"),
        (Unspeakable(), "Unspeakable: (its text cannot be shown)"),
        (ValueError("a\nb\ud800"), "ValueError: a\\nb\\ud800"),
    ],
)
def test_an_exception_is_its_class_and_its_text(error: BaseException, told: str) -> None:
    assert texts.of(error) == told
    json.dumps(texts.of(error)).encode()


@pytest.mark.parametrize(
    ("error", "told"),
    [
        (OSError(2, "No such file or directory", "/etc/x"), "/etc/x: No such file or directory"),
        (OSError(2, "No such file or directory", b"/etc/x\xff"), "/etc/x\\xff: No such file or directory"),
        (OSError(18, "Invalid cross-device link", "/a", None, "/b"), "/b: Invalid cross-device link"),
        (OSError(24, "Too many open files"), "Too many open files"),
        (OSError("timed out"), "timed out"),
        (TimeoutError(), "TimeoutError"),
    ],
)
def test_an_error_of_the_system_names_what_it_can(error: OSError, told: str) -> None:
    assert texts.of_os_error(error) == told


def raised(source: str, file: str = "/srv/x.py") -> BaseException:
    try:
        exec(compile(source, file, "exec"), {})
    except BaseException as error:
        traceback = error.__traceback__
        return error.with_traceback(traceback and traceback.tb_next)  # not this file's frame
    raise AssertionError("nothing was raised")


def test_a_traceback_is_the_applications_own() -> None:
    error = raised("import importlib\nimportlib.import_module('there_is_none')")
    told = texts.trace(error)
    assert not [line for line in told if "importlib" in line and "File" in line]
    assert [line for line in told if "/srv/x.py" in line]
    assert told[-1] == "ModuleNotFoundError: No module named 'there_is_none'"


def test_leading_frames_of_this_package_are_left_out_unless_they_are_all_there_is() -> None:
    ours = f"{texts._PACKAGE}/appserver/main.py"
    assert not [line for line in texts.trace(raised("1/0", ours), always=False) if "File" in line]
    assert [line for line in texts.trace(raised("1/0", ours)) if ours in line]


def test_what_an_exception_was_raised_from_is_shown_too() -> None:
    error = raised("try:\n    1/0\nexcept ArithmeticError as e:\n    raise KeyError(7) from e")
    told = texts.trace(error)
    assert "ZeroDivisionError: division by zero" in told
    assert told[-1] == "KeyError: 7"


@pytest.mark.parametrize(
    "source",
    [
        "raise ValueError('x' * 600_000)",
        "raise ValueError('x\\n' * 600_000)",
        "def f(n):\n    g(n - 1) if n else 1/0\ndef g(n):\n    f(n)\nf(400)",
        "raise ValueError('\\ud800\\x1b')",
    ],
)
def test_a_traceback_is_bounded_and_can_be_encoded(source: str) -> None:
    told = texts.trace(raised(source))
    assert len("\n".join(told).encode()) < 64_000
    assert len(told) <= texts.TRACE_LINES + 1
    assert not any(char < " " for line in told for char in line)


def test_a_traceback_of_what_cannot_be_shown() -> None:
    assert "Unspeakable" in texts.trace(Unspeakable())[-1]
