"""The entry point for mod_wsgi: `WSGIScriptAlias / …/lbadaptor.wsgi`.

`SetEnv LBADAPTOR_CONFIG /path/lbadaptor.toml` in Apache's configuration names the application: several mounts may
share one Apache process, each with a file of its own. `SetEnv LBADAPTOR_MOUNT /app` names the mount, because a
`WSGIScriptAliasMatch` makes the whole path the script's name.

A request that failed in Apache's own fast lane comes here too, by an internal redirect (ErrorDocument).
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable

from lbadaptor.adaptor import error_pages, log_variables
from lbadaptor.adaptor.forward import Environ
from lbadaptor.adaptor.log_variables import FROM_FAST_LANE
from lbadaptor.adaptor.middleware import Adaptor
from lbadaptor.adaptor.walk import ASKED_ONCE
from lbadaptor.contract.errors import SettingsError
from lbadaptor.contract.settings import DEFAULT_FILE
from lbadaptor.log import logs
from lbadaptor.log.once import Once

log = logs.logger("lbadaptor")

_FAILED, _LATE = "lbadaptor", "lbadaptor1"
"""The queries of the snippet's ErrorDocuments. Other queries are of the administrator's own ErrorDocuments."""
# Files of earlier releases leave LBADAPTOR_KEY there, too.
_OF_FAST_LANE = ("LBADAPTOR_KEY", "LBADAPTOR_GENERATION", "LBADAPTOR_SESSION", "LBADAPTOR_SLOT", "LBADAPTOR_URI")
_NOT_RESTORED = ("STATUS", "URL", "ERROR_NOTES", *_OF_FAST_LANE, "HTTPS")
"""Variables of the redirect and of the fast lane; and HTTPS, which mod_wsgi itself removes (see wsgi.url_scheme)."""

_DEFAULT = str(DEFAULT_FILE)

_adaptors: dict[str, Adaptor] = {}
_lock = threading.Lock()
_MAX_HOSTS = 256
_MAX_HOST = 255
"""Characters. Visitors may make up host names. Together with _MAX_HOSTS this bounds their memory to 100 KB."""
_first_config: dict[tuple[str, str], str] = {}
"""by host name and ticket cookie: the lbadaptor.toml that used them first"""
_logged = Once(100)
"""each lbadaptor.toml of which the log says that it shares a ticket cookie"""


def application(environ: Environ, start_response: Callable[..., object]) -> Iterable[bytes]:
    """Pass a request on to the adaptor of its mount. 503, and a line in the log, if lbadaptor.toml is bad."""
    if FROM_FAST_LANE in environ and environ.get("QUERY_STRING") in (_FAILED, _LATE):
        if status := _refusal(environ):
            return error_pages.answer(start_response, status, more=log_variables.of(environ, None))
        if environ.get("REDIRECT_STATUS") == "502":  # the AppServer was lost; 503 would mean unreachable
            environ[ASKED_ONCE] = True
        _restore(environ)
    mount = environ.get("LBADAPTOR_MOUNT")
    if mount is not None:
        path = environ["SCRIPT_NAME"] + environ["PATH_INFO"]
        environ["SCRIPT_NAME"], environ["PATH_INFO"] = mount, path[len(mount) :]
    config = environ.get("LBADAPTOR_CONFIG", _DEFAULT)
    adaptor = _adaptors.get(config)
    if adaptor is None:
        try:
            with _lock:
                adaptor = _adaptors.get(config) or _adaptors.setdefault(config, Adaptor(config))
        except SettingsError as error:
            log.error("lbadaptor: %s", error)
            return error_pages.answer(start_response, 503, more=log_variables.of(environ, None))
    if len(_adaptors) > 1:
        _warn_of_shared_cookie(environ.get("SERVER_NAME", ""), adaptor.configuration.ticket_cookies[0], config)
    return adaptor(environ, start_response)


def _warn_of_shared_cookie(host: str, ticket_cookie: str, config: str) -> None:
    """Log once if two applications use the same ticket cookie on one host name: each takes the other's tickets for
    forged. Cookies do not distinguish ports (RFC 6265 §8.5)."""
    key = host, ticket_cookie
    first = _first_config.get(key)
    if first is None:
        if len(_first_config) < _MAX_HOSTS and len(host) <= _MAX_HOST:
            _first_config[key] = config
    elif first != config and _logged.first(config):
        log.warning(
            "lbadaptor: %s and %s have the same ticket_cookie `%s` on %s: sessions are lost; give each its own",
            first,
            config,
            ticket_cookie,
            host,
        )


def _refusal(environ: Environ) -> int:
    """The status for a request that must not be sent again; 0 if it may be."""
    if environ.get("REDIRECT_REQUEST_METHOD") not in ("GET", "HEAD"):
        return 502
    if environ.get("REDIRECT_STATUS") == "502" and "REDIRECT_ERROR_NOTES" not in environ:
        # mod_proxy sets no note for a malformed head: the application was called, and its AppServer lives. If the
        # AppServer has closed the connection, mod_proxy sets one.
        return 502
    return 504 if environ["QUERY_STRING"] == _LATE else 0  # the application may still be at work


def _restore(environ: Environ) -> None:
    """Undo the redirect: it changed HEAD to GET, replaced the query, and renamed the variables."""
    environ["QUERY_STRING"] = environ.get("REDIRECT_QUERY_STRING", "")
    environ["REQUEST_METHOD"] = environ["REDIRECT_REQUEST_METHOD"]
    for key in [key for key in environ if key.startswith("REDIRECT_")]:
        name = key.removeprefix("REDIRECT_")
        if name not in _NOT_RESTORED:
            environ.setdefault(name, environ[key])
