from __future__ import annotations

import logging
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from lbadaptor.adaptor import wsgi
from lbadaptor.adaptor.walk import ASKED_ONCE

TOP = Path(__file__).parents[3]
TEXT = '[application]\napp = "a:b"\nsession_cookie = "sid"\n[files]\nrun_folder = "."\nkey_file = "keys"\n'


@pytest.fixture(autouse=True)
def _no_adaptor_is_left(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(wsgi, "_adaptors", {})
    monkeypatch.setattr(wsgi, "_first_config", {})
    monkeypatch.setattr(wsgi, "_logged", wsgi.Once(100))


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
    monkeypatch.setattr("lbadaptor.adaptor.middleware.Adaptor.__call__", lambda self, *_: asked.append(self) or [])
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
    monkeypatch.setattr(
        "lbadaptor.adaptor.middleware.Adaptor.__call__", lambda self, environ, _: seen.append(environ) or []
    )
    (tmp_path / "a").write_text(TEXT)
    environ = {"LBADAPTOR_CONFIG": str(tmp_path / "a"), "SCRIPT_NAME": script_name, "PATH_INFO": path_info}
    wsgi.application(environ | ({} if mount is None else {"LBADAPTOR_MOUNT": mount}), lambda *_: None)
    assert (seen[0]["SCRIPT_NAME"], seen[0]["PATH_INFO"]) == (script_name if mount is None else mount, rest)


def come_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, **changes: str) -> tuple[str, dict[str, Any]]:
    """What the adaptor, or a status in its place, makes of a request that the fast lane sends back."""
    seen: list[dict[str, Any]] = []
    statuses: list[str] = []
    monkeypatch.setattr(
        "lbadaptor.adaptor.middleware.Adaptor.__call__", lambda self, environ, _: seen.append(environ) or []
    )
    (tmp_path / "a").write_text(TEXT)
    environ = {
        "LBADAPTOR_CONFIG": str(tmp_path / "a"),
        "LBADAPTOR_MOUNT": "/app",
        "REQUEST_METHOD": "GET",
        "SCRIPT_NAME": "/app/page",
        "PATH_INFO": "",
        "QUERY_STRING": "lbadaptor",
        "REDIRECT_STATUS": "503",
        "REDIRECT_URL": "/app/page",
        "REDIRECT_ERROR_NOTES": "The proxy server could not handle the request",
        "REDIRECT_REQUEST_METHOD": "HEAD",
        "REDIRECT_QUERY_STRING": "a=1",
        "REDIRECT_LBADAPTOR_KEY": "k",
        "REDIRECT_LBADAPTOR_GENERATION": "1",
        "REDIRECT_LBADAPTOR_SESSION": "none",
        "REDIRECT_LBADAPTOR_SLOT": "3",
        "REDIRECT_LBADAPTOR_URI": "/app/page?a=1",
        "REDIRECT_REMOTE_USER": "somebody",
        "REDIRECT_HTTPS": "on",
        "REDIRECT_SSL_CLIENT_VERIFY": "SUCCESS",
        "SSL_TLS_SNI": "as of now",
        "REDIRECT_SSL_TLS_SNI": "as of then",
    } | changes
    list(wsgi.application(environ, lambda status, headers: statuses.append(status)))
    return (statuses or [""])[0], (seen or [{}])[0]


def test_apaches_log_is_told_which_appserver_did_not_answer_the_fast_lane() -> None:
    environ = {
        "QUERY_STRING": "lbadaptor1",
        "REDIRECT_REQUEST_METHOD": "GET",
        "REDIRECT_LBADAPTOR_GENERATION": "1",
        "REDIRECT_LBADAPTOR_SESSION": "held",
        "REDIRECT_LBADAPTOR_SLOT": "3",
    }
    told: list[Any] = []
    for asked in ({}, {"LBADAPTOR_LOG": "1"}):
        list(wsgi.application(environ | asked, lambda *args: told.append(args)))
    assert [status for status, _ in told] == ["504 Gateway Timeout"] * 2
    off, on = ([header for header in headers if header[0].startswith("LB-")] for _, headers in told)
    assert off == []
    assert on == [("LB-Lane", "fast+python"), ("LB-Tries", "1"), ("LB-Slot", "3"), ("LB-Verdict", "held")]


def test_what_the_redirect_hid_comes_to_light(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _, seen = come_back(tmp_path, monkeypatch)
    assert (seen["REQUEST_METHOD"], seen["QUERY_STRING"]) == ("HEAD", "a=1")
    assert (seen["SCRIPT_NAME"], seen["PATH_INFO"], seen["REMOTE_USER"]) == ("/app", "/page", "somebody")
    assert (seen["SSL_CLIENT_VERIFY"], seen["SSL_TLS_SNI"]) == ("SUCCESS", "as of now")
    assert not {"STATUS", "URL", "ERROR_NOTES", "HTTPS"} & seen.keys()
    assert not [
        name for name in seen if name.startswith("LBADAPTOR_") and name not in ("LBADAPTOR_CONFIG", "LBADAPTOR_MOUNT")
    ]


@pytest.mark.parametrize(
    ("changes", "status"),
    [
        ({"QUERY_STRING": "lbadaptor1"}, "504 Gateway Timeout"),
        ({"REDIRECT_REQUEST_METHOD": "POST"}, "502 Bad Gateway"),
        ({"REDIRECT_REQUEST_METHOD": "POST", "QUERY_STRING": "lbadaptor1"}, "502 Bad Gateway"),
        ({"REDIRECT_REQUEST_METHOD": ""}, "502 Bad Gateway"),
    ],
)
def test_what_may_be_at_work_or_must_not_be_repeated_is_not_asked_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, changes: dict[str, str], status: str
) -> None:
    assert come_back(tmp_path, monkeypatch, **changes) == (status, {})


@pytest.mark.parametrize(("status", "asked"), [("502", True), ("503", False), ("421", False)])
def test_what_the_fast_lane_lost_its_appserver_with_has_been_asked_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, status: str, asked: bool
) -> None:
    _, seen = come_back(tmp_path, monkeypatch, REDIRECT_STATUS=status)
    assert bool(seen.get(ASKED_ONCE)) is asked


def test_a_head_that_mod_proxy_could_not_take_is_not_asked_for_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("lbadaptor.adaptor.middleware.Adaptor.__call__", lambda *_: pytest.fail("it is asked again"))
    environ = {
        "QUERY_STRING": "lbadaptor",
        "REDIRECT_STATUS": "502",
        "REDIRECT_REQUEST_METHOD": "GET",
        "REDIRECT_LBADAPTOR_GENERATION": "1",
        "LBADAPTOR_CONFIG": str(tmp_path / "a"),
    }
    statuses: list[str] = []
    list(wsgi.application(environ, lambda status, headers: statuses.append(status)))
    assert statuses == ["502 Bad Gateway"]


@pytest.mark.parametrize("query", ["", "lbadaptor2", "lbadaptor=", "a=1&lbadaptor"])
def test_another_page_of_apaches_choice_is_what_it_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, query: str
) -> None:
    _, seen = come_back(tmp_path, monkeypatch, QUERY_STRING=query, SCRIPT_NAME="/app/login", REDIRECT_STATUS="401")
    assert (seen["PATH_INFO"], seen["QUERY_STRING"], seen["REQUEST_METHOD"]) == ("/login", query, "GET")
    assert "REMOTE_USER" not in seen


def test_each_apache_process_loads_only_what_it_needs() -> None:
    loaded = subprocess.run(
        [sys.executable, "-c", "import lbadaptor.adaptor.wsgi, sys; print(*sys.modules)"],
        cwd=TOP,
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    ).stdout.split()
    seldom_needed = {"calendar", "ctypes", "difflib", "email", "locale", "logging.handlers", "subprocess"}
    of_others = {"lbadaptor.appserver", "lbadaptor.http1.request", "lbadaptor.contract.settings.reference", "monitor"}
    assert {"lbadaptor.adaptor.middleware"} <= {*loaded}
    assert not {*loaded} & (seldom_needed | of_others)
