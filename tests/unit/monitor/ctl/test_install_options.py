"""What `lbctl install` and `lbctl uninstall` take and ask. What they do: tests/unit/monitor/install."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click
import pytest

from monitor.ctl import main
from monitor.ctl.commands import base, install
from monitor.install.wanted import Wanted

GIVEN: dict[str, Any] = dict.fromkeys(("name", "app", "folder", "session_cookie", "host", "path", "servers", "user"))


def test_options_are_enough() -> None:
    given = {**GIVEN, "name": "shop", "app": "a:b", "folder": "/srv/x/", "session_cookie": "s", "path": "board/"}
    assert install._wanted(given, {}, ask=False) == Wanted("shop", "a:b", "/srv/x", "s", path="/board")


def test_what_is_installed_is_known() -> None:
    known = {"name": "shop", "app": "a:b", "folder": "/srv/x", "session_cookie": "s", "path": "/p", "user": "u"}
    assert install._wanted({**GIVEN, "name": "shop", "servers": 2}, known, ask=False) == Wanted(
        "shop", "a:b", "/srv/x", "s", path="/p", servers=2, user="u"
    )


def test_what_is_missing_is_named_where_nobody_can_be_asked() -> None:
    with pytest.raises(click.UsageError, match=r"missing: --app, --session-cookie$"):
        install._wanted({**GIVEN, "name": "shop", "folder": "/srv/x"}, {}, ask=False)


def test_questions_on_a_terminal(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "shop.py").write_text("from flask import Flask\n")
    asked: list[tuple[str, Any]] = []
    answers = iter(("shop", "shop:app", str(tmp_path), None, "www.example.com", None))

    def prompt(text: str, default: Any = None) -> Any:
        asked.append((text, default))
        answer = next(answers)
        return default if answer is None else answer

    monkeypatch.setattr(click, "prompt", prompt)
    found = install._wanted(GIVEN, {}, ask=True)
    assert found == Wanted("shop", "shop:app", str(tmp_path), "session", host="www.example.com")
    assert asked[3] == ("Its session cookie; it imports flask", "session")

    (tmp_path / "shop.py").write_text("")
    answers = iter(("sid", "", "/"))
    asked.clear()
    given = {**GIVEN, "name": "shop", "app": "shop:app", "folder": str(tmp_path)}
    assert install._wanted(given, {}, ask=True).session_cookie == "sid"
    assert asked[0][0].startswith("Its session cookie; usual: session (flask), sessionid (django)")
    assert asked[0][1] is None


@pytest.mark.parametrize(
    "words",
    [
        ["install", "shop", "--yes"],
        ["--config", "/x.toml", "install", "shop"],
        ["--config", "/x.toml", "uninstall", "shop"],
        ["uninstall"],
    ],
)
def test_wrong_options(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main.main(words)
    assert ended.value.code == 2
    assert "Error:" in capsys.readouterr().err


def test_nothing_to_take_back(capsys: pytest.CaptureFixture[str]) -> None:
    assert main.main(["uninstall", "no-such-application"]) == 1
    assert "no-such-application is not installed" in capsys.readouterr().err


def test_who_says_no_is_told_that_nothing_was_changed(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.stdin.isatty", lambda: True)
    monkeypatch.setattr("click.confirm", lambda question: question == "yes?")
    assert base.confirm("yes?")
    assert capsys.readouterr().err == ""
    assert not base.confirm("no?")
    assert capsys.readouterr().err == "lbctl: nothing was changed\n"
