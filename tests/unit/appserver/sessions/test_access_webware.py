"""Webware's own sessions in memory and in files, saved in one store and loaded in another."""

from __future__ import annotations

import io
import pickle
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

from lbadaptor.appserver.sessions.stores import webware as webware_store
from lbadaptor.appserver.sessions.stores.access import Busy, Content, Unloadable, Unsaveable
from lbadaptor.contract.cookies import values

SECONDS = 3600


class Process:
    """An application with its sessions."""

    def __init__(self, application: Any) -> None:
        self.application = application
        self.store = application.sessions()
        (found,) = webware_store.stores(application)
        assert found.access is not None
        self.access = found.access

    def begin(self, **content: Any) -> Any:
        """A session as a first request makes it."""
        session = self.application._sessionClass(SimpleNamespace(application=lambda: self.application))
        self.store[session.identifier()] = session
        self.visit(session.identifier(), **content)
        return session

    def visit(self, ident: str, **content: Any) -> Any:
        """What a request does with its session."""
        session = self.application.session(ident)
        session.awake(None)
        for name, value in content.items():
            session.setValue(name, value)
        session.sleep(None)
        self.store.storeSession(session)
        return session

    def read(self, ident: str) -> Content:
        content = self.access.read(ident)
        assert content is not None
        return content

    def file(self, ident: str) -> Path:
        return Path(self.application._sessionDir, f"{ident}.ses")


@pytest.fixture
def dynamic(webware_application: Callable[..., Any]) -> Process:
    return Process(webware_application("Dynamic"))


@pytest.fixture(params=["Memory", "Dynamic"])
def process(webware_application: Callable[..., Any], request: pytest.FixtureRequest) -> Process:
    return Process(webware_application(request.param))


@pytest.fixture(params=["Memory", "Dynamic"])
def there(webware_application: Callable[..., Any], request: pytest.FixtureRequest) -> Process:
    return Process(webware_application(request.param, "there"))


@pytest.fixture
def files(dynamic: Process) -> tuple[Process, str]:
    """A process, and the id of a session that is in a file."""
    ident: str = dynamic.begin(cart=[1]).identifier()
    dynamic.store.moveToFile(ident)
    assert dynamic.file(ident).exists()
    assert ident not in dynamic.store._memoryStore
    return dynamic, ident


def test_a_session_goes_from_one_process_to_another(process: Process, there: Process) -> None:
    session = process.begin(cart=["book"], user="ann")
    ident = session.identifier()
    content = process.read(ident)
    assert content.ends == session.lastAccessTime() + SECONDS
    there.access.put(ident, content.data, content.ends)
    process.access.drop(ident)
    assert (process.access.has(ident), there.access.has(ident)) == (False, True)
    moved = there.application.session(ident)
    assert moved.values() == {"cart": ["book"], "user": "ann"}
    assert moved.lastAccessTime() == pytest.approx(session.lastAccessTime(), abs=0.001)
    assert moved.numTransactions() == session.numTransactions() == 1
    assert moved.creationTime() == session.creationTime()
    assert not session.isExpired(), "the session was told that it ends"
    assert there.read(ident).mark == content.mark
    assert there.read(ident).ends == pytest.approx(content.ends, abs=0.001)
    assert there.visit(ident).numTransactions() == 2


def test_the_access_has_the_names_that_files_go_by(process: Process) -> None:
    assert (process.access.kind, process.access.secret) == ("webware", "")


def test_two_looks_at_one_store_are_equal(process: Process, there: Process) -> None:
    (again,) = webware_store.stores(process.application)
    assert process.access == again.access != there.access


def test_files_alone_cannot_be_saved(webware_application: Callable[..., Any]) -> None:
    (found,) = webware_store.stores(webware_application("File"))
    assert found.access is None


@pytest.mark.parametrize("cookie", ["_SID_=a; _SID_=b", "_SID_=a.B-9_", "_SID_=; _SID_=b", "other=1"])
def test_the_id_is_that_which_webware_takes(process: Process, cookie: str) -> None:
    from HTTPRequest import HTTPRequest  # type: ignore[import-not-found]

    environ = {"HTTP_COOKIE": cookie, "REQUEST_METHOD": "GET", "QUERY_STRING": ""}
    request = {"format": "CGI", "time": time.time(), "environ": environ, "input": io.BytesIO(), "requestID": 1}
    taken = HTTPRequest(request).cookie("_SID_", "")
    assert process.access.ident(values(cookie, "_SID_", only_ascii=False)) == taken


@pytest.mark.parametrize("value", ["../one", "a/b", "a b", "a" * 201, "\xe4", "a\n", "a\0"])
def test_what_cannot_be_part_of_a_files_name_is_no_id(process: Process, value: str) -> None:
    assert process.access.ident([value]) == ""


def test_the_prefix_of_another_process_is_accepted(webware_application: Callable[..., Any], there: Process) -> None:
    source = Process(webware_application("Memory", SessionPrefix="host:8080"))
    ident = source.begin().identifier()
    assert ident.startswith("host:8080-")
    assert there.access.ident([ident]) == ident
    content = source.read(ident)
    there.access.put(ident, content.data, content.ends)
    assert there.access.has(ident)


def test_an_id_of_another_store_is_not_there(process: Process) -> None:
    assert process.access.read("unknown") is None
    assert not process.access.has("unknown")
    process.access.drop("unknown")


ENDED: dict[str, Callable[[Any], None]] = {
    "long ago": lambda session: setattr(session, "_lastAccessTime", time.time() - SECONDS - 1),
    "invalidated": lambda session: session.invalidate(),
    "told to": lambda session: session.expiring(),
}


@pytest.mark.parametrize("how", ENDED)
def test_an_ended_session_is_not_there(process: Process, how: str) -> None:
    session = process.begin()
    ident = session.identifier()
    content = process.read(ident)
    ENDED[how](session)
    assert process.access.read(ident) is None
    assert not process.access.has(ident)
    process.access.put(ident, content.data, content.ends)
    assert process.read(ident).mark == content.mark, "it is no living one that must stay"


def test_what_has_ended_meanwhile_is_not_put(process: Process, there: Process) -> None:
    ident = process.begin().identifier()
    there.access.put(ident, process.read(ident).data, time.time() - 1)
    assert not there.application.hasSession(ident), "Webware would go on with it"


def test_a_session_may_never_end(process: Process, there: Process) -> None:
    session = process.begin()
    session.setTimeout(None)
    content = process.read(session.identifier())
    assert content.ends == 0.0
    there.access.put(session.identifier(), content.data, content.ends)
    assert there.application.session(session.identifier()).lastAccessTime() == session.lastAccessTime()


def test_the_end_counts_with_which_a_session_is_put(process: Process, there: Process) -> None:
    ident = process.begin().identifier()
    content = process.read(ident)
    there.access.put(ident, content.data, content.ends + 100)
    assert there.read(ident).ends == pytest.approx(content.ends + 100, abs=0.001)


def test_a_living_session_is_not_replaced(process: Process) -> None:
    ident = process.begin(user="ann").identifier()
    old = process.read(ident)
    session = process.visit(ident, user="bob")
    process.access.put(ident, old.data, old.ends)
    assert process.application.session(ident) is session


def test_a_visit_changes_the_end_only(process: Process) -> None:
    session = process.begin(user="ann")
    before = process.read(session.identifier())
    process.visit(session.identifier())
    after = process.read(session.identifier())
    assert after.mark == before.mark
    assert after.ends > before.ends
    assert after.data != before.data


def test_a_change_in_place_is_a_change(process: Process) -> None:
    session = process.begin(cart={"lines": [{"pieces": 1}]})
    before = process.read(session.identifier())
    session.value("cart")["lines"][0]["pieces"] = 2
    assert process.read(session.identifier()).mark != before.mark


def test_to_read_is_no_visit(process: Process) -> None:
    session = process.begin(user="ann")
    before = dict(vars(session))
    process.read(session.identifier())
    process.access.has(session.identifier())
    assert vars(session) == before


@pytest.mark.parametrize(
    ("live", "name"),
    [
        (socket.socket, "socket.socket"),
        (threading.Lock, "_thread.lock"),
        (lambda: lambda: None, "builtins.function"),
    ],
)
def test_live_objects_cannot_be_saved(process: Process, live: Any, name: str) -> None:
    thing = live()
    ident = process.begin(cart={"lines": [thing]}).identifier()
    with pytest.raises(Unsaveable, match=f"^{name}$"):
        process.access.read(ident)
    assert process.access.has(ident)
    with suppress(AttributeError):
        thing.close()


class Changing:
    """Adds a value to its session while this is pickled, as another thread would."""

    def __init__(self, session: Any) -> None:
        self.session = session

    def __reduce__(self) -> Any:
        self.session.setValue(str(len(self.session.values())), 1)
        return int, ()


def test_a_session_that_changes_meanwhile_is_busy(process: Process) -> None:
    session = process.begin()
    session.setValue("a", Changing(session))
    session.setValue("b", 1)
    with pytest.raises(Busy):
        process.access.read(session.identifier())


@pytest.fixture
def cart_module(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    module = ModuleType("old_release")
    exec("class Cart: pass", module.__dict__)
    monkeypatch.setitem(sys.modules, "old_release", module)
    return module


def test_a_class_that_is_missing_cannot_be_loaded(process: Process, there: Process, cart_module: ModuleType) -> None:
    ident = process.begin(cart=cart_module.Cart()).identifier()
    content = process.read(ident)
    del cart_module.Cart
    with pytest.raises(Unloadable, match=r"AttributeError: .*Cart"):
        there.access.put(ident, content.data, content.ends)
    assert not there.access.has(ident)


def test_other_data_cannot_be_loaded(process: Process) -> None:
    ident = process.begin().identifier()
    content = process.read(ident)
    for data in (b"", b"garbage", pickle.dumps(1), pickle.dumps(({}, pickle.dumps([]))), content.data[:-10]):
        with pytest.raises(Unloadable):
            process.access.put("other", data, content.ends)
    with pytest.raises(Unloadable, match="another id"):
        process.access.put("other", content.data, content.ends)
    assert not process.access.has("other")


# A session class of the application's own.


def own_class(process: Process, monkeypatch: pytest.MonkeyPatch, body: str) -> None:
    base = process.application._sessionClass
    module = ModuleType("shop_session")
    module.__dict__["Session"] = base
    exec(f"class ShopSession(Session):\n    {body}", module.__dict__)
    monkeypatch.setitem(sys.modules, "shop_session", module)
    process.application._sessionClass = module.ShopSession


def test_a_class_of_the_applications_own_is_kept(
    process: Process, there: Process, monkeypatch: pytest.MonkeyPatch
) -> None:
    own_class(process, monkeypatch, "user = None")
    session = process.begin()
    session.user = "ann"
    content = process.read(session.identifier())
    there.access.put(session.identifier(), content.data, content.ends)
    moved = there.application.session(session.identifier())
    assert (type(moved), moved.user) == (type(session), "ann")


def test_a_class_with_a_state_of_its_own_may_change_at_each_visit(
    process: Process, there: Process, monkeypatch: pytest.MonkeyPatch
) -> None:
    getstate = "__getstate__ = lambda self: [*vars(self).items()]"
    setstate = "__setstate__ = lambda self, state: vars(self).update(state)"
    own_class(process, monkeypatch, f"{getstate}; {setstate}")
    session = process.begin(user="ann")
    content = process.read(session.identifier())
    there.access.put(session.identifier(), content.data, content.ends)
    assert there.application.session(session.identifier()).values() == {"user": "ann"}
    process.visit(session.identifier())
    assert process.read(session.identifier()).mark != content.mark


# Files of SessionDynamicStore.


def test_a_session_in_a_file_is_read_there(files: tuple[Process, str], there: Process) -> None:
    source, ident = files
    written = source.file(ident).read_bytes()
    content = source.read(ident)
    assert source.access.has(ident)
    assert source.file(ident).read_bytes() == written
    assert ident not in source.store._memoryStore, "reading has brought it into memory"
    there.access.put(ident, content.data, content.ends)
    source.access.drop(ident)
    assert not source.access.has(ident)
    assert not source.file(ident).exists()
    assert there.application.session(ident).value("cart") == [1]


def test_moving_to_a_file_and_back_is_no_change(dynamic: Process) -> None:
    ident = dynamic.begin(cart={"lines": [1]}, user="ann").identifier()
    marks = [dynamic.read(ident).mark]
    for move in (dynamic.store.moveToFile, dynamic.store.moveToMemory):
        move(ident)
        marks.append(dynamic.read(ident).mark)
    assert marks == [marks[0]] * 3


def test_a_living_session_in_a_file_is_not_replaced(files: tuple[Process, str]) -> None:
    process, ident = files
    content = process.read(ident)
    process.access.put(ident, content.data, content.ends)
    assert ident not in process.store._memoryStore


def test_an_ended_session_in_a_file_is_replaced(files: tuple[Process, str]) -> None:
    process, ident = files
    content = process.read(ident)
    process.store.moveToMemory(ident)
    process.application.session(ident).setTimeout(1)
    process.application.session(ident)._lastAccessTime -= 2
    process.store.moveToFile(ident)
    assert process.access.read(ident) is None
    process.access.put(ident, content.data, content.ends)
    assert process.read(ident).mark == content.mark


def test_a_damaged_file_is_no_session_and_is_left_to_webware(files: tuple[Process, str]) -> None:
    process, ident = files
    process.file(ident).write_bytes(b"\x80\x05garbage")
    assert process.access.read(ident) is None
    assert process.file(ident).exists()


def test_what_came_from_elsewhere_goes_into_a_file(webware_application: Callable[..., Any], process: Process) -> None:
    there = Process(webware_application("Dynamic", "there", AlwaysSaveSessions=False))
    session = process.begin()
    session.setDirty(False)
    content = process.read(session.identifier())
    there.access.put(session.identifier(), content.data, content.ends)
    there.store.moveToFile(session.identifier())
    assert there.application.session(session.identifier()).value("x", 1) == 1


@contextmanager
def moving(process: Process) -> Iterator[None]:
    """Another thread is moving sessions between memory and files."""
    locked, go_on = threading.Event(), threading.Event()

    def move() -> None:
        with process.store._lock:
            locked.set()
            assert go_on.wait(10)

    thread = threading.Thread(target=move)
    thread.start()
    assert locked.wait(10)
    try:
        yield
    finally:
        go_on.set()
        thread.join()


def test_a_session_that_may_be_moving_is_busy(files: tuple[Process, str]) -> None:
    process, ident = files
    with moving(process):
        with pytest.raises(Busy):
            process.access.read(ident)
        assert process.access.has(ident)
    assert process.access.read(ident) is not None


def test_one_in_a_file_is_seen_without_the_lock(files: tuple[Process, str], monkeypatch: pytest.MonkeyPatch) -> None:
    process, ident = files
    monkeypatch.setattr(process.access, "_lock", None)
    assert process.access.has(ident)


def test_the_lock_is_free_again(files: tuple[Process, str]) -> None:
    process, ident = files
    process.access.read(ident)
    process.access.has("unknown")
    process.access.drop(ident)
    with ThreadPoolExecutor() as other:
        assert other.submit(process.store._lock.acquire, timeout=1).result()


def test_one_in_memory_is_read_meanwhile(dynamic: Process) -> None:
    ident = dynamic.begin().identifier()
    with moving(dynamic):
        assert dynamic.access.read(ident) is not None
        assert dynamic.access.has(ident)


def test_in_doubt_a_session_is_there(dynamic: Process) -> None:
    with moving(dynamic):
        assert dynamic.access.has("unknown")
    assert not dynamic.access.has("unknown")


def test_put_and_drop_do_not_wait_for_ever(dynamic: Process, there: Process) -> None:
    ident = there.begin().identifier()
    content = there.read(ident)
    with moving(dynamic):
        dynamic.access.put(ident, content.data, content.ends)
        assert dynamic.read(ident).mark == content.mark
        dynamic.access.drop(ident)
    assert not dynamic.access.has(ident)
