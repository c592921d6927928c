"""CherryPy's own sessions in memory, saved in one store and loaded in another."""

from __future__ import annotations

import datetime
import io
import socket
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from types import ModuleType
from typing import Any
from wsgiref.util import setup_testing_defaults

import cherrypy
import pytest
from cherrypy.lib.sessions import RamSession

from lbadaptor.appserver.sessions.stores import cherrypy as cherrypy_store
from lbadaptor.appserver.sessions.stores.access import Busy, Content, SessionAccess, Unloadable, Unsaveable
from lbadaptor.contract.cookies import values

MINUTES = 60


class Pages:
    def __init__(self) -> None:
        self.begun, self.go_on = threading.Event(), threading.Event()
        self.seen: Any = None

    @cherrypy.expose
    def visit(self) -> str:
        visits: int = cherrypy.session.get("visits", 0) + 1
        cherrypy.session["visits"] = visits
        return str(visits)

    @cherrypy.expose
    def look(self) -> str:
        return str(cherrypy.session.get("visits"))

    @cherrypy.expose
    def put(self) -> str:
        cherrypy.session.setdefault("cart", {"lines": [{"pieces": 0}]})["lines"][0]["pieces"] += 1
        return ""

    @cherrypy.expose
    def brought(self) -> str:
        return f"{cherrypy.session.originalid}"

    @cherrypy.expose
    def slow(self) -> str:
        self.begun.set()
        assert self.go_on.wait(10)
        return ""

    @cherrypy.expose
    def saved_within(self) -> str:
        cherrypy.session["visits"] = 100
        self.seen = self.access.read(cherrypy.session.id)
        return ""

    @cherrypy.expose
    @cherrypy.config(**{"response.stream": True})
    def stream(self) -> Iterator[str]:
        cherrypy.session["visits"] = 1
        return iter(["one", "two"])

    access: SessionAccess


class Site:
    """An application and its store, as in a process of its own."""

    def __init__(self, **config: Any) -> None:
        self.store = type("Ram", (RamSession,), {"cache": {}, "locks": {}, **config.pop("store", {})})
        self.pages = Pages()
        config = {"on": True, "storage_class": self.store, "timeout": MINUTES, "clean_freq": 0, **config}
        section = {f"tools.sessions.{key}": value for key, value in config.items()}
        self.application = cherrypy.Application(self.pages, "", {"/": {**section, "request.show_tracebacks": False}})
        self.application.log.screen = False
        (found,) = cherrypy_store.stores(self.application)
        assert found.access is not None
        self.access = self.pages.access = found.access
        self.ident = ""

    def begin(self, page: str, cookie: str) -> Any:
        environ: dict[str, Any] = {"PATH_INFO": f"/{page}", "HTTP_COOKIE": cookie, "wsgi.errors": io.StringIO()}
        setup_testing_defaults(environ)

        def start_response(status: str, headers: list[tuple[str, str]], exc_info: Any = None) -> None:
            set_cookies = [value for name, value in headers if name.lower() == "set-cookie"]
            self.ident = values(set_cookies[0], "session_id")[0] if set_cookies else ""

        return self.application(environ, start_response)

    def get(self, page: str, ident: str | None = None, cookie: str = "") -> str:
        """The page; afterwards, `ident` is the session that it has set. Without an id: as the same visitor."""
        answer = self.begin(page, cookie or f"session_id={ident or self.ident or 'none'}")
        try:
            return b"".join(answer).decode()
        finally:
            answer.close()

    def read(self) -> Content:
        content = self.access.read(self.ident)
        assert content is not None
        return content

    def end(self) -> None:
        """Let the session end a second ago."""
        data, _ = self.store.cache[self.ident]
        self.store.cache[self.ident] = (data, datetime.datetime.now() - datetime.timedelta(seconds=1))


@pytest.fixture
def site() -> Site:
    site = Site()
    site.get("visit")
    return site


def test_a_session_goes_from_one_process_to_another(site: Site) -> None:
    there = Site()
    content = site.read()
    assert content.ends == pytest.approx(time.time() + 60 * MINUTES, abs=10)
    there.access.put(site.ident, content.data, content.ends)
    site.access.drop(site.ident)
    assert (site.access.has(site.ident), there.access.has(site.ident)) == (False, True)
    assert there.access.read(site.ident) == content, "end included"
    assert there.get("visit", site.ident) == "2"
    assert there.ident == site.ident
    assert site.get("visit") == "1", "it has moved away"


def test_the_access_has_the_names_that_files_go_by(site: Site) -> None:
    assert (site.access.kind, site.access.secret) == ("cherrypy", "")


def test_two_looks_at_one_store_are_equal(site: Site) -> None:
    (again,) = cherrypy_store.stores(site.application)
    (other,) = cherrypy_store.stores(Site().application)
    assert site.access == again.access != other.access


@pytest.mark.parametrize(
    "cookie",
    [
        "session_id=a",
        "session_id=a; session_id=b",
        "session_id=b; other=1; session_id=a",
        'session_id="a"',
        "session_id=a; session_id=",
        "session_id=a; session_id=b c",
        "session_id=a; session_id=\xe4",
        "session_id=\xe4; session_id=a",
        "session_id=../a%20=&",
        "session_id=a,b:c",
        "other=1",
    ],
)
def test_the_id_is_that_which_cherrypy_takes(site: Site, cookie: str) -> None:
    brought = values(cookie, "session_id", only_ascii=False)
    taken = site.get("brought", cookie=cookie)
    assert site.access.ident(brought) == ("" if taken == "None" else taken)


@pytest.mark.parametrize("brought", [[], [""], ['"'], ["\x00"], ['a"b'], ["a\\"]])
def test_what_cherrypy_cannot_read_is_no_id(site: Site, brought: list[str]) -> None:
    assert site.access.ident(brought) == ""


def test_an_id_of_another_store_is_not_there(site: Site) -> None:
    other = Site()
    other.get("visit")
    assert site.access.read(other.ident) is None
    assert not site.access.has(other.ident)
    site.access.drop(other.ident)
    assert site.store.locks.keys() == {site.ident}, "a stranger's id leaves nothing behind"


def test_an_ended_session_is_not_there(site: Site) -> None:
    content = site.read()
    site.end()
    assert site.access.read(site.ident) is None
    assert not site.access.has(site.ident)
    site.access.put(site.ident, content.data, content.ends)
    assert site.access.read(site.ident) == content, "and is no living one that must stay"


def test_what_has_ended_meanwhile_is_not_put(site: Site) -> None:
    there = Site()
    there.access.put(site.ident, site.read().data, time.time() - 1)
    assert there.store.cache == {}


def test_a_living_session_is_not_replaced(site: Site) -> None:
    old = site.read()
    site.get("visit")
    site.access.put(site.ident, old.data, old.ends)
    assert site.get("look") == "2"


def test_a_visit_changes_the_end_only(site: Site) -> None:
    before = site.read()
    assert site.get("look") == "1"
    after = site.read()
    assert after.mark == before.mark
    assert after.ends > before.ends


def test_a_change_in_place_is_a_change(site: Site) -> None:
    site.get("put")
    before = site.read()
    site.get("put")
    assert site.read().mark != before.mark


def test_to_read_is_no_visit(site: Site) -> None:
    entry = site.store.cache[site.ident]
    site.read()
    site.access.has(site.ident)
    assert site.store.cache[site.ident] is entry


@pytest.mark.parametrize(
    ("live", "name"),
    [
        (socket.socket, "socket.socket"),
        (threading.Lock, "_thread.lock"),
        (lambda: lambda: None, "builtins.function"),
    ],
)
def test_live_objects_cannot_be_saved(site: Site, live: Any, name: str) -> None:
    thing = live()
    site.store.cache[site.ident][0]["cart"] = {"lines": [thing]}
    with pytest.raises(Unsaveable, match=f"^{name}$"):
        site.access.read(site.ident)
    assert site.access.has(site.ident)
    with suppress(AttributeError):
        thing.close()


@pytest.mark.parametrize("live", [1, threading.Lock()])
def test_the_lock_is_free_again(site: Site, live: Any) -> None:
    site.store.cache[site.ident][0]["live"] = live
    with suppress(Unsaveable):
        site.access.read(site.ident)
    with ThreadPoolExecutor() as other:
        assert other.submit(site.store.locks[site.ident].acquire, timeout=1).result()


def test_a_session_at_work_is_busy(site: Site) -> None:
    ident = site.ident
    request = threading.Thread(target=site.get, args=("slow", ident))
    request.start()
    assert site.pages.begun.wait(10)
    with pytest.raises(Busy):
        site.access.read(ident)
    assert site.access.has(ident)
    site.pages.go_on.set()
    request.join()
    assert site.access.read(ident) is not None


def test_the_thread_that_has_the_lock_may_read(site: Site) -> None:
    before = site.read()
    site.get("saved_within")
    assert site.pages.seen is not None
    assert site.pages.seen.mark != before.mark


def test_a_stream_saves_a_new_session_when_it_is_closed() -> None:
    site = Site()
    answer = site.begin("stream", "")
    assert b"".join(answer) == b"onetwo"
    assert site.access.read(site.ident) is None
    answer.close()
    assert site.access.read(site.ident) is not None


@pytest.mark.parametrize("missing", ["class", "module"])
def test_a_class_that_is_missing_cannot_be_loaded(site: Site, monkeypatch: pytest.MonkeyPatch, missing: str) -> None:
    module = ModuleType("old_release")
    exec("class Cart: pass", module.__dict__)
    monkeypatch.setitem(sys.modules, "old_release", module)
    site.store.cache[site.ident][0]["cart"] = module.Cart()
    content = site.read()
    if missing == "class":
        del module.Cart
    else:
        monkeypatch.delitem(sys.modules, "old_release")
    there = Site()
    with pytest.raises(Unloadable, match=r"Cart|old_release"):
        there.access.put(site.ident, content.data, content.ends)
    assert not there.access.has(site.ident)


@pytest.mark.parametrize("data", [b"", b"garbage", b"\x80\x04]\x94."])
def test_other_data_cannot_be_loaded(site: Site, data: bytes) -> None:
    with pytest.raises(Unloadable):
        site.access.put("a", data, time.time() + 60)
    assert not site.access.has("a")


def test_locks_are_left_to_cherrypys_clean_up(site: Site) -> None:
    site.store.locks.clear()
    site.read()
    site.access.drop(site.ident)
    site.store("none").clean_up()
    assert site.store.locks == {}


def test_a_class_may_have_times_with_a_zone() -> None:
    zone = datetime.timezone(datetime.timedelta(hours=5))
    there = Site(store={"now": lambda self: datetime.datetime.now(zone)})
    there.get("visit")
    content = there.read()
    assert content.ends == pytest.approx(time.time() + 60 * MINUTES, abs=10)
    there.access.drop(there.ident)
    there.access.put(there.ident, content.data, content.ends)
    assert there.access.read(there.ident) == content
    assert there.get("visit") == "2"
