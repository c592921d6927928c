"""The entry point for CGI: one process for each request, for an Apache without mod_wsgi (RFC 3875)."""

from __future__ import annotations

import os
from typing import IO, Any
from wsgiref.handlers import CGIHandler
from wsgiref.headers import Headers

from lbadaptor.adaptor.wsgi import application


class _Handler(CGIHandler):
    headers: Headers
    stdin: IO[bytes]
    environ: dict[str, Any]

    def __init__(self) -> None:
        super().__init__()
        # Every byte is one latin-1 character (PEP 3333). wsgiref decodes only some of the variables that way.
        self.base_env = {key.decode("latin-1"): value.decode("latin-1") for key, value in os.environb.items()}

    def setup_environ(self) -> None:
        super().setup_environ()
        self.environ.setdefault("PATH_INFO", "")  # CGI omits it if it is empty (RFC 3875 §4.1.5)
        self.environ.pop("HTTPS", None)  # mod_wsgi removes it too, in favour of wsgi.url_scheme

    def cleanup_headers(self) -> None:
        """Called before the first byte of the answer."""
        super().cleanup_headers()
        # Apache passes on the whole body before it reads the answer. If a part of the body is not read, Apache does
        # not read the answer.
        while self.stdin.read(65536):
            pass
        # If this answer breaks off, whatever follows on the connection would be taken for its rest.
        self.headers["Connection"] = "close"


def main() -> None:
    """Answer the one request that the environment and standard input hold."""
    _Handler().run(application)
