"""wsgiref.validate and WebTest's lint around an application; around the one that the variable LINTED names."""

from __future__ import annotations

import importlib
import os
from collections.abc import Callable, Iterable
from typing import Any
from wsgiref.validate import InputWrapper, validator

from webtest.lint import middleware

Application = Callable[..., Iterable[bytes]]


class _Input(InputWrapper):
    """PEP 3333 lets an application read without a size, and Werkzeug does; wsgiref.validate knows nothing of that."""

    def read(self, size: int = -1) -> bytes:
        data: bytes = super().read(size)
        return data


def linted(application: Application) -> Application:
    """Both around it. What either side of them does wrong is an AssertionError."""
    inner: Application = middleware(application)

    def with_sizes(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        environ["wsgi.input"] = _Input(environ["wsgi.input"])
        return inner(environ, start_response)

    checked: Application = validator(with_sizes)
    return checked


def _named(name: str) -> Application:
    module, _, attribute = name.partition(":")
    found: Any = getattr(importlib.import_module(module), attribute)
    return linted(found)


if "LINTED" in os.environ:
    application = _named(os.environ["LINTED"])
