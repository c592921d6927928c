"""Which store sessions are read from and loaded into, and why there is none."""

from __future__ import annotations

import re
import sys
from typing import Any

import flask
import pytest
from beaker.middleware import SessionMiddleware
from store_processes import flask_process

from lbadaptor.appserver.sessions.stores import Unreadable, session_access


@pytest.mark.parametrize("options", [{"use_cookies": False}, {"id": "one"}, {"session_class": object}])
def test_beakers_sessions_that_the_application_names_itself_cannot_be_saved(options: dict[str, Any]) -> None:
    application = SessionMiddleware(lambda environ, start_response: [], {})
    application.options.update(options)
    assert session_access("beaker", application, "beaker.session.id", "", "") == (
        None,
        "sessions cannot be saved: Beaker's memory store does not hand them out one by one",
    )


def test_a_framework_in_use_is_found_by_the_cookie() -> None:
    one = flask_process()
    found, text = session_access("", one.application, "session", "", "")
    assert found is not None
    assert found.kind == "flask"
    assert text == "the sessions in cachelib.simple.SimpleCache can be saved"
    assert session_access("module:function", one.application, "session", "", "")[0] == found


@pytest.mark.parametrize(
    ("framework", "application", "cookie", "text"),
    [
        (
            "flask",
            flask.Flask("shop"),
            "session",
            "no known store has the cookie session",
        ),
        (
            "flask",
            flask_process().application,
            "sid",
            "no known store has the cookie sid; the frameworks' own: session",
        ),
        ("flask", flask_process().application, "", "session_cookie is not set; the frameworks' own: session"),
        (
            "beaker",
            SessionMiddleware(object(), {"session.data_dir": "/nowhere"}),
            "beaker.session.id",
            "Beaker's file store has them, not this process alone",
        ),
        ("flask", object(), "session", "no known store has the cookie session"),
    ],
)
def test_why_sessions_cannot_be_saved_is_said(framework: str, application: Any, cookie: str, text: str) -> None:
    assert session_access(framework, application, cookie, "", "") == (None, f"sessions cannot be saved: {text}")


def test_a_framework_that_is_not_to_be_seen_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "flask", None)
    found, text = session_access("flask", object(), "session", "", "")
    assert found is None
    assert "what flask keeps its sessions in is not to be seen: ModuleNotFoundError" in text


def test_two_stores_with_one_cookie_are_too_many_unless_they_are_the_same() -> None:
    one, other = flask_process(), flask_process()
    both = [one.application, other.application]
    found, text = session_access("flask", both, "session", "", "")
    assert found is None
    assert text == "several stores in this process have the cookie session: sessions cannot be saved"
    other.application.session_interface.cache = one.application.session_interface.cache
    assert session_access("flask", both, "session", "", "")[0] == one.access


SOMETHING = 1


def save(ident: str) -> bytes:
    return ident.encode()


def test_the_applications_own_functions_go_first(monkeypatch: pytest.MonkeyPatch) -> None:
    class Own:
        @staticmethod
        def Functions(save: Any, load: Any) -> tuple[Any, Any]:
            return save, load

    monkeypatch.setitem(sys.modules, "lbadaptor.appserver.sessions.stores.own", Own)  # type: ignore[arg-type]
    application, name = flask_process().application, f"{__name__}:save"
    assert session_access("flask", application, "session", name, name) == (
        (save, save),
        f"the application's own {name} and {name} save and load sessions",
    )


@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("nowhere:save", "ModuleNotFoundError: No module named 'nowhere'"),
        (f"{__name__}:nothing", "AttributeError: .*nothing"),
        (f"{__name__}:SOMETHING", "is not callable"),
    ],
)
def test_a_function_that_is_not_there_is_refused(name: str, why: str) -> None:
    with pytest.raises(Unreadable, match=rf'\[sessions\] load = "{re.escape(name)}":? {why}'):
        session_access("flask", object(), "session", f"{__name__}:save", name)
