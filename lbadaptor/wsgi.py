"""The entry point for mod_wsgi: `WSGIScriptAlias / …/lbadaptor.wsgi`.

Apache says with `SetEnv LBADAPTOR_CONFIG /path/lbadaptor.toml` which application is meant: several mounts
may share one Apache process, each with a file of its own. `SetEnv LBADAPTOR_MOUNT /app` says where it is mounted,
for a `WSGIScriptAliasMatch` that takes the whole path for the script's name.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterable

from lbadaptor import pages
from lbadaptor.adaptor import Adaptor
from lbadaptor.errors import SettingsError
from lbadaptor.request import Environ
from lbadaptor.settings import DEFAULT_FILE

log = logging.getLogger("lbadaptor")

_adaptors: dict[str, Adaptor] = {}
_lock = threading.Lock()


def application(environ: Environ, start_response: Callable[..., object]) -> Iterable[bytes]:
    """Hand a request to the adaptor of its mount. A bad lbadaptor.toml is a 503, said in Apache's error log."""
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
            return pages.answer(start_response, 503)
    return adaptor(environ, start_response)
