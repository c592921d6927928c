"""Webware's own example site as a WSGI application, with its sessions in memory. Importing it starts Webware."""

from __future__ import annotations

import atexit
import contextlib
import io
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

# Webware makes folders in its work folder. With the settings above it never puts anything there, so the
# folder goes at once, and no way of ending the process leaves it behind.
with tempfile.TemporaryDirectory(prefix="webware-") as _work, contextlib.redirect_stdout(io.StringIO()):
    _site = Application(_work, settings=_settings, development=False)


@atexit.register
def _shut_down() -> None:
    with contextlib.redirect_stdout(io.StringIO()):
        _site.shutDown()


def application(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
    """The site. The answer says which AppServer gave it, for people who want to watch."""
    slot = environ.get("lbadaptor.slot")
    if environ.get("lbadaptor.session_lost"):
        print(f"Webware in slot {slot}: a visitor comes whose session was lost with its AppServer", file=sys.stderr)

    def start(status: str, headers: list[tuple[str, str]], *exc_info: Any) -> Any:
        return start_response(status, [*headers, ("X-AppServer", f"slot {slot}")], *exc_info)

    answer: Iterable[bytes] = _site(environ, start)
    return answer
