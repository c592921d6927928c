"""Webware's own example site as a WSGI application, with its sessions in memory. Importing it starts Webware."""

from __future__ import annotations

import atexit
import contextlib
import io
import os
import sys
import tempfile
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import webware

webware.addToSearchPath()  # its modules import each other by their bare names

from Application import Application  # type: ignore[import-not-found]  # noqa: E402

_home = Path(webware.__path__[0])

_settings = {
    "ApplicationConfigFilename": str(_home / "Configs/Application.config"),
    "Contexts": {"Examples": str(_home / "Examples"), "default": "Examples"},
    "PlugIns": [],
    "SessionStore": "Memory",
    "RetainSessions": False,  # a process that starts has no session, one that leaves had none
    "AppLogFilename": None,  # our standard output is left alone
    "LogErrors": False,
    "SaveErrorMessages": False,
    "PrintConfigAtStartUp": False,
    "Verbose": False,
    "WSGIWrite": False,
}

_CONTENT = b'<div id="Content">'

# Webware makes folders in its work folder. With the settings above it never puts anything there, so the
# folder goes at once, and no way of ending the process leaves it behind.
with tempfile.TemporaryDirectory(prefix="webware-") as _work, contextlib.redirect_stdout(io.StringIO()):
    _site = Application(_work, settings=_settings, development=False)


@atexit.register
def _shut_down() -> None:
    with contextlib.redirect_stdout(io.StringIO()):
        _site.shutDown()


def application(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
    """The site. Its pages say which AppServer gave them, for people who want to watch."""
    heads: list[tuple[str, list[tuple[str, str]]]] = []
    body = b"".join(_site(environ, lambda status, headers: heads.append((status, headers))))
    ((status, headers),) = heads
    where = f"slot {environ.get('lbadaptor.slot')}, process {os.getpid()}"
    headers = [*headers, ("X-AppServer", where)]
    news = ""
    if environ.get("lbadaptor.session_moved"):
        news = "session has moved here from another process."
    elif environ.get("lbadaptor.session_lost"):
        news = "session is lost: the process that held it has ended."
    if news:
        print(f"Webware in {where}: a visitor's {news}", file=sys.stderr)
    before, content, after = body.partition(_CONTENT)
    if content:
        told = f"This page is from {where}." + (f" Your {news}" if news else "")
        body = before + content + f'<p style="color:#606060">{told}</p>'.encode() + after
        headers = [(name, value) for name, value in headers if name.lower() != "content-length"]
        headers.append(("Content-Length", str(len(body))))
    start_response(status, headers)
    return [body]
