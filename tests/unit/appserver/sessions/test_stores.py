"""What frameworks' own stores tell of the sessions in this process, and which of them cannot tell."""

from __future__ import annotations

import datetime
import fcntl
import functools
import os
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from wsgiref.validate import validator

import bottle
import cherrypy
import flask
import flask_session
import pytest
from beaker.middleware import SessionMiddleware
from cachelib import FileSystemCache, SimpleCache
from cherrypy.lib import sessions as cherrypy_sessions

from lbadaptor.appserver.sessions import stores
from lbadaptor.appserver.sessions.stores import Unreadable, known, notice, reader
from lbadaptor.appserver.sessions.stores.known import KNOWN, SMALL_STORE
from lbadaptor.contract.settings import COUNTED


def test_the_settings_name_every_framework_whose_store_can_be_asked() -> None:
    assert set(COUNTED) | {"beaker"} == KNOWN.keys()


@pytest.mark.parametrize("framework", ["flask", "cherrypy"])
def test_an_application_of_another_kind_is_refused(framework: str) -> None:
    with pytest.raises(Unreadable, match=f'session_count = "{framework}": the application has no sessions of that'):
        reader(framework, lambda environ, start_response: [], "sid")


def test_a_framework_that_is_not_there_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "flask", None)
    with pytest.raises(Unreadable, match=r'session_count = "flask": ModuleNotFoundError: import of flask halted'):
        reader("flask", object(), "session")


def test_a_framework_with_another_store_fails_only_if_its_sessions_are_to_be_counted() -> None:
    application = flask_application(SimpleCache())
    del application.session_interface.cache._cache  # type: ignore[attr-defined]
    with pytest.raises(Unreadable, match='session_count = "flask": AttributeError: '):
        reader("flask", application, "session")
    assert notice(application, "session").startswith("what flask keeps its sessions in is not to be seen: Attribute")


# Flask.


def flask_application(cache: Any, **config: Any) -> flask.Flask:
    application = flask.Flask("shop")
    application.config.update(SESSION_TYPE="cachelib", SESSION_CACHELIB=cache, **config)
    flask_session.Session(application)
    application.add_url_rule("/", "visit", view_func=lambda: str(flask.session.setdefault("visits", 1)))
    application.add_url_rule("/out", "out", view_func=lambda: str(flask.session.clear()))
    return application


def middleware(application: Any) -> Any:
    def within(environ: dict[str, Any], start_response: Any) -> Any:
        return application(environ, start_response)

    return within


class Wrapper:
    def __init__(self, application: Any) -> None:
        self.parts = {"application": [application]}

    def __call__(self, environ: dict[str, Any], start_response: Any) -> Any:
        return self.parts["application"][0](environ, start_response)

    def method(self, environ: dict[str, Any], start_response: Any) -> Any:
        return self(environ, start_response)


WRAPPED: dict[str, Callable[[Any], Any]] = {
    "itself": lambda application: application,
    "closure": middleware,
    "object": Wrapper,
    "method": lambda application: Wrapper(application).method,
    "partial": lambda application: functools.partial(middleware(application)),
    "examiner": validator,
}


@pytest.mark.parametrize("wrapped", WRAPPED)
def test_flask_counts_what_has_not_ended(wrapped: str) -> None:
    cache = SimpleCache()
    application = flask_application(cache)
    count, _ = reader("flask", WRAPPED[wrapped](application), "session")
    assert count() == 0
    one, other = application.test_client(), application.test_client()
    one.get("/")
    other.get("/")
    assert count() == 2
    cache.set("other", 1)
    cache.set(f"{application.session_interface.key_prefix}ended", {}, timeout=1)  # type: ignore[attr-defined]
    key = next(key for key in cache._cache if key.endswith("ended"))
    cache._cache[key] = (time.time() - 1, b"")
    assert count() == 2
    one.get("/out")
    assert count() == 1


def test_flasks_wsgi_app_may_be_wrapped_and_hold_another_application() -> None:
    inner, outer = flask_application(SimpleCache()), flask_application(SimpleCache())
    count, _ = reader("flask", outer, "session")
    for application in (inner, outer):
        application.test_client().get("/")
    assert count() == 1
    outer.wsgi_app = Wrapper([outer.wsgi_app, inner])  # type: ignore[method-assign]
    count, _ = reader("flask", outer, "session")
    assert count() == 2


def test_a_global_that_an_application_calls_is_found() -> None:
    scope: dict[str, Any] = {"site": flask_application(SimpleCache())}
    exec("def application(environ, start_response):\n    return site(environ, start_response)", scope)
    scope["site"].test_client().get("/")
    assert reader("flask", scope["application"], "session")[0]() == 1


def test_a_cache_that_drops_living_sessions_is_said() -> None:
    _, warning = reader("flask", flask_application(SimpleCache(threshold=7)), "session")
    assert warning == (
        "cachelib.simple.SimpleCache holds 7 entries and then drops living sessions: raise threshold of SimpleCache"
    )

    assert reader("flask", flask_application(SimpleCache(threshold=SMALL_STORE)), "session")[1] == ""


def test_another_cookie_than_the_settings_is_refused() -> None:
    application = flask_application(SimpleCache(), SESSION_COOKIE_NAME="shop")
    with pytest.raises(Unreadable, match=r'its cookie is shop, not session_cookie = "session"'):
        reader("flask", application, "session")


def test_flasks_cookies_and_shared_stores_cannot_tell(tmp_path: Path) -> None:
    for application, store in (
        (flask.Flask("shop"), "flask.sessions.SecureCookieSessionInterface"),
        (flask_application(FileSystemCache(str(tmp_path))), "cachelib.file.FileSystemCache"),
    ):
        with pytest.raises(Unreadable, match=f'session_count = "flask": {store} cannot tell'):
            reader("flask", application, "session")
        assert notice(application, "session").startswith(f"the sessions are in {store}, not in this process alone")
        assert notice(application, "sid") == "", "the sessions are not Flask's"


# Django.

LOCMEM = "django.core.cache.backends.locmem.LocMemCache"


def django_session(**values: Any) -> Any:
    from django.contrib.sessions.backends.cache import SessionStore

    session = SessionStore()
    session.update(values)
    session.create()
    return session


def test_django_counts_what_has_not_ended(django_settings: Callable[..., Any]) -> None:
    django_settings("counts")
    from django.core.cache import cache

    count, _ = reader("django", object(), "sessionid")
    assert count() == 0
    one, other = django_session(visits=1), django_session(visits=1)
    cache.set("other", 1)
    assert count() == 2
    ending = django_session()
    assert count() == 3
    key = next(key for key in cache._expire_info if key.endswith(ending.session_key))
    cache._expire_info[key] = time.time() - 1
    assert count() == 2
    cache._expire_info[key] = None
    assert count() == 3, "it never ends"
    ending.flush()
    one.flush()
    other.cycle_key()
    assert count() == 1


def test_django_says_that_locmem_drops_living_sessions(django_settings: Callable[..., Any]) -> None:
    django_settings("drops")
    _, warning = reader("django", object(), "sessionid")
    assert warning == (
        f"{LOCMEM} holds 300 entries and then drops living sessions: raise MAX_ENTRIES in the OPTIONS of CACHES"
    )


@pytest.mark.parametrize(
    ("changes", "store"),
    [
        ({"SESSION_ENGINE": "django.contrib.sessions.backends.file"}, "django.contrib.sessions.backends.file"),
        ({"SESSION_ENGINE": "django.contrib.sessions.backends.db"}, "django.contrib.sessions.backends.db"),
        (
            {"SESSION_ENGINE": "django.contrib.sessions.backends.cached_db"},
            "django.contrib.sessions.backends.cached_db",
        ),
        (
            {"SESSION_ENGINE": "django.contrib.sessions.backends.signed_cookies"},
            "django.contrib.sessions.backends.signed_cookies",
        ),
        (
            {
                "CACHES": {
                    "default": {"BACKEND": "django.core.cache.backends.redis.RedisCache", "LOCATION": "redis://"}
                }
            },
            "django.core.cache.backends.redis.RedisCache",
        ),
        (
            {
                "CACHES": {
                    "default": {"BACKEND": LOCMEM},
                    "files": {"BACKEND": "django.core.cache.backends.filebased.FileBasedCache"},
                },
                "SESSION_CACHE_ALIAS": "files",
            },
            "django.core.cache.backends.filebased.FileBasedCache",
        ),
    ],
)
def test_djangos_shared_stores_cannot_tell(
    django_settings: Callable[..., Any], changes: dict[str, Any], store: str, tmp_path: Path
) -> None:
    if files := changes.get("CACHES", {}).get("files"):
        files["LOCATION"] = str(tmp_path)  # Django makes this folder
    django_settings(**changes)
    with pytest.raises(Unreadable, match=f'session_count = "django": {store} cannot tell'):
        reader("django", object(), "sessionid")
    assert f"the sessions are in {store}" in notice(object(), "sessionid")
    assert "sessionid" in stores.other_cookies(object(), "sid")
    assert stores.other_cookies(object(), "sessionid") == []


def test_djangos_keys_may_not_tell_what_is_a_session(django_settings: Callable[..., Any]) -> None:
    cache = {"BACKEND": LOCMEM, "KEY_FUNCTION": lambda key, prefix, version: str(hash(key))}
    django_settings(CACHES={"default": cache})
    with pytest.raises(Unreadable, match="cannot tell"):
        reader("django", object(), "sessionid")
    assert notice(object(), "sessionid") == ""


def test_django_without_sessions_has_none_to_count(django_settings: Callable[..., Any]) -> None:
    django_settings(MIDDLEWARE=[])
    with pytest.raises(Unreadable, match="has no sessions of that kind"):
        reader("django", object(), "sessionid")


# CherryPy.


def cherrypy_application(**config: Any) -> Any:
    return cherrypy.Application(
        object(), "", {"/": {f"tools.sessions.{key}": value for key, value in config.items()}}
    )


@pytest.fixture
def ram() -> Iterator[dict[str, Any]]:
    cherrypy_sessions.RamSession.cache.clear()
    yield cherrypy_sessions.RamSession.cache
    cherrypy_sessions.RamSession.cache.clear()


def test_cherrypy_counts_what_has_not_ended(ram: dict[str, Any]) -> None:
    count, _ = reader("cherrypy", middleware(cherrypy_application(on=True)), "session_id")
    assert count() == 0
    now = datetime.datetime.now()
    for key, minutes in (("a", 60), ("b", 1), ("ended", -1)):
        ram[key] = ({}, now + datetime.timedelta(minutes=minutes))
    assert count() == 2


@pytest.mark.parametrize("config", [{"storage_class": cherrypy_sessions.FileSession}, {"storage_type": "file"}])
def test_cherrypys_files_cannot_tell(config: dict[str, Any]) -> None:
    application = cherrypy_application(on=True, name="shop", **config)
    with pytest.raises(Unreadable, match=r"cherrypy\.lib\.sessions\.FileSession cannot tell"):
        reader("cherrypy", application, "shop")
    assert "cherrypy.lib.sessions.FileSession" in notice(application, "shop")
    assert "shop" in stores.other_cookies(application, "sid")
    assert stores.other_cookies(application, "shop") == []


def test_cherrypys_sessions_may_be_switched_on_by_a_decorator(ram: dict[str, Any]) -> None:
    class Shop:
        @cherrypy.expose
        @cherrypy.tools.sessions(name="shop")
        def index(self) -> str:
            return ""

    ram["a"] = ({}, datetime.datetime.now() + datetime.timedelta(minutes=1))
    assert reader("cherrypy", cherrypy.Application(Shop(), ""), "shop")[0]() == 1


# Beaker.


@pytest.mark.parametrize(
    ("options", "shared"),
    [
        ({}, ""),
        ({"session.type": "memory"}, ""),
        ({"session.type": "cookie", "session.validate_key": "x"}, "Beaker's cookie store"),
        ({"session.data_dir": "/nowhere"}, "Beaker's file store"),
        ({"session.type": "ext:memcached"}, "Beaker's ext:memcached store"),
    ],
)
def test_beakers_shared_stores_are_said(options: dict[str, Any], shared: str) -> None:
    application = SessionMiddleware(bottle.Bottle(), {"session.key": "shop", **options})
    assert notice(middleware(application), "shop")[: len(shared) + 20] == (
        f"the sessions are in {shared}" if shared else ""
    )


# Webware.


class Session:
    """As a store of Webware's sees one."""

    def __init__(self, timeout: float | None, used: float = 0.0) -> None:
        self._timeout = timeout
        self._used = time.time() - used

    def timeout(self) -> float | None:
        return self._timeout

    def lastAccessTime(self) -> float:
        return self._used

    def isDirty(self) -> bool:
        return True

    def setDirty(self, dirty: bool = True) -> None:
        pass


@pytest.mark.parametrize("store", ["Memory", "Dynamic"])
def test_webware_counts_what_has_not_ended(webware_application: Callable[..., Any], store: str) -> None:
    application = webware_application(store)
    count, _ = reader("webware", middleware(application), "_SID_")
    assert count() == 0
    for key, session in (
        ("a", Session(60.0)),
        ("never", Session(None)),
        ("ended", Session(60.0, used=61.0)),
        ("invalid", Session(0)),
    ):
        application.sessions()[key] = session
    assert count() == 2


@pytest.mark.parametrize("store", ["File", "Dynamic"])
def test_webwares_files_count_as_long_as_a_session_may_live(
    webware_application: Callable[..., Any], store: str
) -> None:
    application = webware_application(store)
    count, _ = reader("webware", application, "_SID_")
    folder = Path(application._sessionDir)
    for name, age in (("a.ses", 0.0), ("b.ses", 3590.0), ("ended.ses", 3610.0), ("other", 0.0)):
        (folder / name).touch()
        os.utime(folder / name, (time.time() - age,) * 2)
    assert count() == 2
    if store == "Dynamic":
        application.sessions()["c"] = Session(60.0)
        assert count() == 3


@pytest.mark.parametrize("store", ["File", "Dynamic"])
def test_webwares_folder_is_one_processs(webware_application: Callable[..., Any], store: str) -> None:
    application = webware_application(store)
    other = os.open(application._sessionDir, os.O_RDONLY)
    fcntl.flock(other, fcntl.LOCK_EX)
    with pytest.raises(Unreadable, match=r"SessionStoreDir .* is another AppServer's too"):
        reader("webware", application, "_SID_")
    with pytest.raises(Unreadable, match=r"SessionStoreDir .* is another AppServer's too"):
        notice(application, "_SID_")
    os.close(other)
    assert reader("webware", application, "_SID_")[0]() == 0
    assert notice(application, "_SID_") == ""
    assert "_SID_" in stores.other_cookies(application, "sid")
    assert stores.other_cookies(application, "_SID_") == []


def test_webwares_shared_stores_cannot_tell(webware_application: Callable[..., Any]) -> None:
    application = webware_application("Memory")
    application._sessions = type("SessionRedisStore", (), {})()
    with pytest.raises(Unreadable, match="SessionRedisStore cannot tell"):
        reader("webware", application, "_SID_")
    assert "SessionRedisStore" in notice(application, "_SID_")


# A name that is not the framework's.


@pytest.fixture
def only_flask(monkeypatch: pytest.MonkeyPatch) -> None:
    """Others were configured for the whole process, by the tests above."""
    monkeypatch.setattr(known, "KNOWN", {"flask": known.KNOWN["flask"]})


def test_the_frameworks_own_cookie_name_is_reported_if_it_differs(only_flask: None) -> None:
    application = flask_application(SimpleCache())
    for wrapped in (application, middleware(application)):
        assert stores.other_cookies(wrapped, "sid") == ["session"]
        assert stores.other_cookies(wrapped, "session") == []


@pytest.mark.parametrize(("key", "names"), [("", []), ("secret", ["session"])])
def test_flasks_own_interface_is_asked_only_if_it_can_have_sessions(
    only_flask: None, key: str, names: list[str]
) -> None:
    application = flask.Flask("shop")
    application.secret_key = key
    assert stores.other_cookies(application, "sid") == names


def test_beakers_cookie_name_is_reported() -> None:
    application = SessionMiddleware(lambda environ, start_response: [], {"session.type": "memory"})
    assert "beaker.session.id" in stores.other_cookies(application, "sid")


def test_what_a_framework_does_not_tell_is_no_other_name(only_flask: None) -> None:
    application = flask_application(SimpleCache())
    del application.session_interface.cache._cache  # type: ignore[attr-defined]
    assert stores.other_cookies(application, "sid") == []
