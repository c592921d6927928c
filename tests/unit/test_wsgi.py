from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import pytest

from lbadaptor import wsgi

TEXT = '[application]\napp = "a:b"\nsession_cookie = "sid"\n[files]\nrun_folder = "."\nkey_file = "keys"\n'


@pytest.fixture(autouse=True)
def _no_adaptor_is_left(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(wsgi, "_adaptors", {})


def ask(config: Path) -> str:
    seen: list[str] = []
    environ: dict[str, Any] = {
        "LBADAPTOR_CONFIG": str(config),
        "REQUEST_METHOD": "GET",
        "SERVER_NAME": "x",
        "wsgi.input": None,
    }
    list(wsgi.application(environ, lambda status, headers: seen.append(status)))
    return seen[0]


def test_each_configuration_has_one_adaptor(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[object] = []
    monkeypatch.setattr("lbadaptor.adaptor.Adaptor.__call__", lambda self, *_: asked.append(self) or [])
    for name in "ab":
        (tmp_path / name).write_text(TEXT)
    for name in "aba":
        list(wsgi.application({"LBADAPTOR_CONFIG": str(tmp_path / name)}, lambda *_: None))
    assert asked[0] is asked[2] is not asked[1]


def test_a_bad_configuration_is_a_503_until_it_is_mended(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    config = tmp_path / "lbadaptor.toml"
    config.write_text("[aplication]\n")
    assert ask(config) == "503 Service Unavailable"
    assert "unknown section [aplication]" in caplog.text
    caplog.set_level(logging.ERROR)
    config.write_text(TEXT + "[adaptor]\nwait = 0\n")
    assert ask(config) == "503 Service Unavailable"  # no address.text: but it is the adaptor who says so now
    assert len(wsgi._adaptors) == 1


@pytest.mark.parametrize(
    ("mount", "script_name", "path_info", "rest"),
    [
        ("", "/a/b", "", "/a/b"),
        ("", "/", "", "/"),
        ("/app", "/app/a/b", "", "/a/b"),
        ("/app", "/app", "", ""),
        ("/app", "/app/a\n", "b", "/a\nb"),
        (None, "/app", "/a", "/a"),
    ],
)
def test_the_scripts_name_ends_where_the_application_is_mounted(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    mount: str | None,
    script_name: str,
    path_info: str,
    rest: str,
) -> None:
    seen: list[dict[str, Any]] = []
    monkeypatch.setattr("lbadaptor.adaptor.Adaptor.__call__", lambda self, environ, _: seen.append(environ) or [])
    (tmp_path / "a").write_text(TEXT)
    environ = {"LBADAPTOR_CONFIG": str(tmp_path / "a"), "SCRIPT_NAME": script_name, "PATH_INFO": path_info}
    wsgi.application(environ | ({} if mount is None else {"LBADAPTOR_MOUNT": mount}), lambda *_: None)
    assert (seen[0]["SCRIPT_NAME"], seen[0]["PATH_INFO"]) == (script_name if mount is None else mount, rest)
