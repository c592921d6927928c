"""Sessions that Flask and Django keep in a cache, and the cache around them."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from store_processes import Make, Process, flask_process, ident_of

from lbadaptor.appserver.sessions.stores import Busy, locks


def test_flasks_full_cache_keeps_what_lives() -> None:
    one, other = flask_process(), flask_process(threshold=1)
    values = [one.begin(word) for word in ("apple", "pear", "plum", "fig")]
    cache = other.application.session_interface.cache
    cache.set("other", 1)
    for value in values:
        ident = ident_of(one, value)
        content = one.access.read(ident)
        assert content is not None
        other.access.put(ident, content.data, content.ends)
    assert [other.access.has(ident_of(one, value)) for value in values] == [True] * 4
    assert cache.get("other") == 1
    for value in values:
        other.access.drop(ident_of(one, value))
    assert other.entries() == ["other"]


def test_djangos_full_cache_keeps_what_lives(make_django: Make) -> None:
    one, other = make_django(), make_django(most=1)
    values = [one.begin(word) for word in ("apple", "pear", "plum", "fig")]
    other.switch()
    from django.core.cache import cache

    cache.set("other", 1)
    for value in values:
        ident = ident_of(one, value)
        content = one.access.read(ident)
        assert content is not None
        other.access.put(ident, content.data, content.ends)
    assert [other.access.has(ident_of(one, value)) for value in values] == [True] * 4
    other.switch()
    assert cache.get("other") == 1
    for value in values:
        other.access.drop(ident_of(one, value))
    assert len(other.entries()) == 1


def test_what_djangos_cache_drops_first_is_not_what_was_just_loaded(make_django: Make) -> None:
    one, other = make_django(), make_django(most=3)
    value = one.begin("apple")
    ident = ident_of(one, value)
    content = one.access.read(ident)
    assert content is not None
    other.begin("pear")
    other.begin("plum")
    other.access.put(ident, content.data, content.ends)
    other.begin("fig")
    assert other.access.has(ident)


def test_sessions_that_never_end_stay_so(make_django: Make) -> None:
    for process in (flask_process(), make_django()):
        value = process.begin("apple")
        ident = ident_of(process, value)
        content = process.access.read(ident)
        assert content is not None
        process.access.drop(ident)
        process.access.put(ident, content.data, 0.0)
        again = process.access.read(ident)
        assert again is not None
        assert again.ends == 0.0
        assert process.access.has(ident)
        assert process.visit("/look/", value) == "apple"


def lock_of(process: Process) -> Any:
    process.switch()
    if process.framework == "flask":
        return process.application.session_interface.cache._lock
    from django.core.cache import caches

    return caches["default"]._lock


@contextmanager
def held_elsewhere(lock: Any) -> Iterator[None]:
    """The lock is held by another thread."""
    taken, done = threading.Event(), threading.Event()

    def hold() -> None:
        with lock:
            taken.set()
            done.wait()

    thread = threading.Thread(target=hold)
    thread.start()
    taken.wait()
    try:
        yield
    finally:
        done.set()
        thread.join()


@pytest.mark.parametrize("kind", ["flask", "django"])
def test_nothing_waits_for_a_lock_but_loading_which_soon_gives_up(
    kind: str, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = flask_process() if kind == "flask" else request.getfixturevalue("make_django")()
    value = one.begin("apple")
    reached = one.access
    ident = ident_of(one, value)
    content = one.access.read(ident)
    assert content is not None
    monkeypatch.setattr(locks, "PATIENCE", 0.01)
    with held_elsewhere(lock_of(one)):
        assert reached.read(ident) == content
        assert reached.has(ident)
        reached.put(ident, b"not looked at: it lives", content.ends)
        reached.drop(ident)
        assert not reached.has(ident)
        assert reached.read(ident) is None
        with pytest.raises(Busy):
            reached.put(ident, content.data, content.ends)
        assert not reached.has(ident)
    assert one.visit("/look/", value) == ""
    reached.put(ident, content.data, content.ends)
    assert one.visit("/look/", value) == "apple"


def test_a_lock_that_is_soon_free_is_waited_for() -> None:
    lock, asked = threading.Lock(), threading.Event()
    lock.acquire()

    class Watched:
        release = lock.release

        def acquire(self, timeout: float) -> bool:
            asked.set()
            return lock.acquire(timeout=timeout)

    def free() -> None:
        asked.wait()
        lock.release()

    thread = threading.Thread(target=free)
    thread.start()
    with locks.held(Watched()):
        assert lock.locked()
    assert not lock.locked()
    thread.join()


@pytest.mark.parametrize("kind", ["flask", "django"])
def test_a_session_that_a_request_saves_meanwhile_is_not_replaced(kind: str, request: pytest.FixtureRequest) -> None:
    """Between the look and the lock."""
    one = flask_process() if kind == "flask" else request.getfixturevalue("make_django")()
    value = one.begin("apple")
    reached = one.access
    ident = ident_of(one, value)
    content = reached.read(ident)
    assert content is not None
    one.visit("/append/pear", value)
    newer = reached.read(ident)
    assert newer is not None
    reached.drop(ident)
    cache = reached.cache if kind == "flask" else reached.backend

    class Watched:
        """The lock, as it comes after a request that held it."""

        def __init__(self, lock: Any) -> None:
            self.lock, self.release = lock, lock.release

        def acquire(self, timeout: float) -> bool:
            cache._lock = self.lock
            reached.put(ident, newer.data, newer.ends)
            return self.lock.acquire(timeout=timeout)  # type: ignore[no-any-return]

    cache._lock = Watched(cache._lock)
    reached.put(ident, content.data, content.ends)
    assert reached.read(ident) == newer
    assert one.visit("/look/", value) == "apple,pear"


def test_djangos_rule_for_a_sessions_key_holds(make_django: Make) -> None:
    reached = make_django().access
    assert reached.ident(["1234567"]) == ""
    assert reached.ident(["12345678"]) == "12345678"


def test_a_value_that_djangos_key_function_refuses_is_no_session(make_django: Make) -> None:
    def refuse(key: str, prefix: str, version: int) -> str:
        if "~" in key:
            raise ValueError(key)
        return key

    reached = make_django(CACHE={"KEY_FUNCTION": refuse}).access
    assert reached.ident(["1234~5678"]) == ""
    assert reached.ident(["123405678"]) == "123405678"
