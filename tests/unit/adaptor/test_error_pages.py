from __future__ import annotations

import logging
from pathlib import Path
from typing import Any
from wsgiref.validate import validator

import pytest

from lbadaptor.adaptor import error_pages


def answered(status: int, text: str = "") -> tuple[str, dict[str, str], bytes]:
    seen: list[Any] = []
    body = error_pages.answer(lambda *args: seen.extend(args), status, text)
    return seen[0], dict(seen[1]), b"".join(body)


@pytest.mark.parametrize("status", error_pages.MEANING)
def test_a_page_says_what_happened_and_is_never_stored(status: int) -> None:
    line, headers, page = answered(status)
    assert line.startswith(f"{status} ")
    assert headers["Content-Length"] == str(len(page))
    assert headers["Cache-Control"] == "no-store"
    assert error_pages.MEANING[status] in page.decode()


def test_only_a_503_says_when_to_come_again() -> None:
    assert [status for status in error_pages.MEANING if "Retry-After" in answered(status)[1]] == [503]


def test_nothing_in_the_text_becomes_markup() -> None:
    page = answered(400, "<script>&amp;")[2]
    assert b"<p>&lt;script>&amp;amp;</p>" in page


def test_no_page_sets_a_cookie() -> None:
    assert all("Set-Cookie" not in answered(status)[1] for status in error_pages.MEANING)


def test_the_validator_has_nothing_to_object() -> None:
    from wsgiref.util import setup_testing_defaults

    environ: dict[str, Any] = {"QUERY_STRING": ""}
    setup_testing_defaults(environ)
    application = validator(lambda _, start_response: error_pages.answer(start_response, 503))
    blocks = application(environ, lambda *_: lambda _: None)
    assert b"503" in b"".join(blocks)
    blocks.close()


def test_the_administrators_page_takes_the_place_of_ours_and_of_nothing_else() -> None:
    seen: list[Any] = []
    assert error_pages.answer(lambda *args: seen.extend(args), 503, page=b"<p>sorry") == [b"<p>sorry"]
    assert seen[0] == "503 Service Unavailable"
    ours = answered(503)[1]
    assert dict(seen[1]) == {**ours, "Content-Length": "8"}


def test_the_administrators_page_is_read_when_it_changed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "sorry.html"
    path.write_bytes(b"one")
    sorry = error_pages.ErrorPage(path)
    assert sorry.read() == b"one"
    with monkeypatch.context() as patch:
        patch.setattr("builtins.open", lambda *_: pytest.fail("it is read again"))
        assert sorry.read() == b"one"
    path.write_bytes(b"another")
    assert sorry.read() == b"another"


def test_where_the_administrators_page_cannot_be_read_it_is_said_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "sorry.html"
    sorry = error_pages.ErrorPage(path)
    for _ in range(3):
        assert sorry.read() is None
    path.write_bytes(b"there")
    assert sorry.read() == b"there"
    path.unlink()
    path.mkdir()
    assert sorry.read() is None
    said = [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING]
    assert said == [
        f"lbadaptor: sorry_page {path}: {why}; visitors get the built-in page"
        for why in ("No such file or directory", "Is a directory")
    ]


def test_a_page_that_is_too_large_is_none_and_said(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = tmp_path / "sorry.html"
    path.write_bytes(b"x" * (error_pages.MAX_BYTES + 1))
    page = error_pages.ErrorPage(path)
    assert page.read() is None
    assert f"more than {error_pages.MAX_BYTES} bytes" in caplog.text
    path.write_bytes(b"x" * error_pages.MAX_BYTES)
    assert page.read() == b"x" * error_pages.MAX_BYTES
