"""What tests of stores share: Django and Webware themselves, and processes that have an application."""

from __future__ import annotations

import functools
import importlib
import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from store_processes import Make, Process, beaker_process, django_process, flask_process, keys_of_its_own

from lbadaptor.appserver.sessions.stores import webware as webware_store

LOCMEM = "django.core.cache.backends.locmem.LocMemCache"


@pytest.fixture
def django_settings() -> Iterator[Callable[..., Any]]:
    """Overrides Django's settings until the test is over."""
    from django.conf import settings

    if not settings.configured:
        settings.configure(
            MIDDLEWARE=["django.contrib.sessions.middleware.SessionMiddleware"],
            SESSION_ENGINE="django.contrib.sessions.backends.cache",
        )
    importlib.import_module("django.test.signals")  # they make new caches for new settings
    from django.test.utils import override_settings

    overrides: list[Any] = []

    def override(location: str = "", **changes: Any) -> None:
        if location:
            changes["CACHES"] = {"default": {"BACKEND": LOCMEM, "LOCATION": location}}
        overrides.append(override_settings(**changes))
        overrides[-1].enable()

    yield override
    for made in reversed(overrides):
        made.disable()


@pytest.fixture
def webware_application(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Iterator[Callable[..., Any]]:
    """Makes an application with that store. Two of them are as two processes when their `name` differs."""
    webware = pytest.importorskip("webware")
    monkeypatch.setattr(sys, "path", [*webware.__path__, *sys.path])
    from Application import Application  # type: ignore[import-not-found]

    monkeypatch.setattr(Application, "registerShutDownHandler", lambda self: None)

    def application(store: str, name: str = "one", **changes: Any) -> Any:
        settings = {
            "ApplicationConfigFilename": f"{webware.__path__[0]}/Configs/Application.config",
            "Contexts": {"Examples": f"{webware.__path__[0]}/Examples", "default": "Examples"},
            "PlugIns": [],
            "AppLogFilename": None,
            "RetainSessions": False,
            "SessionStore": store,
            "UseSessionSweeper": False,
            "RunTasks": False,
            **changes,
        }
        folder = tmp_path / name
        folder.mkdir(exist_ok=True)
        return Application(str(folder), settings=settings, development=False)

    yield application
    for folder in list(webware_store._locked):
        os.close(webware_store._locked.pop(folder))


@pytest.fixture
def make_django(django_settings: Callable[..., Any]) -> Make:
    return functools.partial(django_process, django_settings)


@pytest.fixture
def make_beaker(monkeypatch: pytest.MonkeyPatch) -> Make:
    return functools.partial(beaker_process, monkeypatch)


KINDS = ("flask", "flask, signed", "flask, no prefix", "django", "django, KEY_FUNCTION", "beaker", "beaker, signed")


@pytest.fixture(params=KINDS)
def make(request: pytest.FixtureRequest, make_django: Make, make_beaker: Make) -> Make:
    """Makes processes that have an application of one kind."""
    made: dict[str, Callable[[], Process]] = {
        "flask": flask_process,
        "flask, signed": lambda: flask_process(signed=True),
        "flask, no prefix": lambda: flask_process(SESSION_KEY_PREFIX=""),
        "django": make_django,
        "django, KEY_FUNCTION": lambda: make_django(CACHE={"KEY_FUNCTION": keys_of_its_own, "VERSION": 7}),
        "beaker": make_beaker,
        "beaker, signed": lambda: make_beaker(secret="secret"),
    }
    return made[request.param]
