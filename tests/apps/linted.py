"""wsgiref.validate and WebTest's lint around an application; around the one that the variable LINTED names."""

from __future__ import annotations

import importlib
import os
from collections.abc import Callable, Iterable
from typing import Any
from wsgiref.validate import validator

from webtest.lint import middleware

Application = Callable[..., Iterable[bytes]]


def linted(application: Application) -> Application:
    """Both around it. What either side of them does wrong is an AssertionError."""
    checked: Application = validator(middleware(application))
    return checked


def _named(name: str) -> Application:
    module, _, attribute = name.partition(":")
    found: Any = getattr(importlib.import_module(module), attribute)
    return linted(found)


if "LINTED" in os.environ:
    application = _named(os.environ["LINTED"])
