"""The entry point for mod_wsgi: `WSGIScriptAlias / …/lbadaptor.wsgi`.

Apache says with `SetEnv LBADAPTOR_CONFIG /path/lbadaptor.toml` which application is meant: several mounts
may share one Apache process, each with a file of its own. `SetEnv LBADAPTOR_MOUNT /app` says where it is mounted,
for a `WSGIScriptAliasMatch` that takes the whole path for the script's name.

What Apache's own fast lane could not bring to an answer comes here, too, by an internal redirect (ErrorDocument).
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable

from lbadaptor.adaptor import error_pages
from lbadaptor.adaptor.forward import Environ
from lbadaptor.adaptor.middleware import ASKED_ONCE, Adaptor
from lbadaptor.contract.errors import SettingsError
from lbadaptor.contract.settings import DEFAULT_FILE
from lbadaptor.log import logs

log = logs.logger("lbadaptor")

_FROM_FAST_LANE = "REDIRECT_LBADAPTOR_KEY"
"""A variable of the fast lane's own, after a redirect; no visitor can set one."""
_FAILED, _LATE = "lbadaptor", "lbadaptor1"
"""The queries of the snippet's own ErrorDocuments. Any other is a page of its own: a login's form, perhaps."""
_KEPT_BACK = ("STATUS", "URL", "ERROR_NOTES", "LBADAPTOR_KEY", "LBADAPTOR_GENERATION", "LBADAPTOR_URI", "HTTPS")
"""The redirect's own, the fast lane's own, and what mod_wsgi itself keeps back: wsgi.url_scheme tells it."""

_adaptors: dict[str, Adaptor] = {}
_lock = threading.Lock()
_MOST_HOSTS = 256
_LONGEST_HOST = 255
"""Characters. With _MOST_HOSTS, the bound of what is remembered of host names, which visitors may make up: 100 KB."""
_tickets_of: dict[tuple[str, str], str] = {}
"""which lbadaptor.toml was the first with a ticket cookie on a host name"""
_said: set[str] = set()
"""of which files it was said that they share a ticket cookie: at most one for each adaptor"""


def application(environ: Environ, start_response: Callable[..., object]) -> Iterable[bytes]:
    """Hand a request to the adaptor of its mount. A bad lbadaptor.toml is a 503, said in Apache's error log."""
    if _FROM_FAST_LANE in environ and environ.get("QUERY_STRING") in (_FAILED, _LATE):
        if status := _refusal(environ):
            return error_pages.answer(start_response, status)
        if environ.get("REDIRECT_STATUS") == "502":  # its AppServer was lost, not only unreachable (503)
            environ[ASKED_ONCE] = True
        _uncover(environ)
    mount = environ.get("LBADAPTOR_MOUNT")
    if mount is not None:
        path = environ["SCRIPT_NAME"] + environ["PATH_INFO"]
        environ["SCRIPT_NAME"], environ["PATH_INFO"] = mount, path[len(mount) :]
    config = environ.get("LBADAPTOR_CONFIG", str(DEFAULT_FILE))
    adaptor = _adaptors.get(config)
    if adaptor is None:
        try:
            with _lock:
                adaptor = _adaptors.get(config) or _adaptors.setdefault(config, Adaptor(config))
        except SettingsError as error:
            log.error("lbadaptor: %s", error)
            return error_pages.answer(start_response, 503)
    if len(_adaptors) > 1:
        _look_for_another(environ.get("SERVER_NAME", ""), adaptor.configuration.ticket_cookies[0], config)
    return adaptor(environ, start_response)


def _look_for_another(host: str, ticket_cookie: str, config: str) -> None:
    """Say once where two applications have the same ticket cookie on one host name: each takes the other's tickets
    for forged. A browser knows no ports (RFC 6265 §8.5)."""
    key = host, ticket_cookie
    first = _tickets_of.get(key)
    if first is None:
        if len(_tickets_of) < _MOST_HOSTS and len(host) <= _LONGEST_HOST:
            _tickets_of[key] = config
    elif first != config and config not in _said:
        _said.add(config)
        log.warning(
            "lbadaptor: %s and %s have the same ticket_cookie `%s` on %s: sessions are lost; give each its own",
            first,
            config,
            ticket_cookie,
            host,
        )


def _refusal(environ: Environ) -> int:
    """The status for what must not be asked again; else 0."""
    if environ.get("REDIRECT_REQUEST_METHOD") not in ("GET", "HEAD"):
        return 502
    if environ.get("REDIRECT_STATUS") == "502" and "REDIRECT_ERROR_NOTES" not in environ:
        # mod_proxy has no words of its own for a head that it cannot take: the application was called, and its
        # AppServer lives. Of one that hung up it says so.
        return 502
    return 504 if environ["QUERY_STRING"] == _LATE else 0  # it may still be at work


def _uncover(environ: Environ) -> None:
    """Bring to light what the redirect hid: it made GET of HEAD, took the query, and renamed the variables."""
    environ["QUERY_STRING"] = environ.get("REDIRECT_QUERY_STRING", "")
    environ["REQUEST_METHOD"] = environ["REDIRECT_REQUEST_METHOD"]
    for key in [key for key in environ if key.startswith("REDIRECT_")]:
        name = key.removeprefix("REDIRECT_")
        if name not in _KEPT_BACK:
            environ.setdefault(name, environ[key])
