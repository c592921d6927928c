"""The entry point for CGI: a process a request, for an Apache without mod_wsgi (RFC 3875)."""

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
        # Every byte a latin-1 character (PEP 3333): wsgiref decodes but a few of CGI's variables so.
        self.base_env = {key.decode("latin-1"): value.decode("latin-1") for key, value in os.environb.items()}

    def setup_environ(self) -> None:
        super().setup_environ()
        self.environ.setdefault("PATH_INFO", "")  # CGI leaves it out where it is empty (RFC 3875 §4.1.5)
        self.environ.pop("HTTPS", None)  # wsgi.url_scheme tells it; mod_wsgi takes it away too

    def cleanup_headers(self) -> None:
        """Called before the first byte of the answer."""
        super().cleanup_headers()
        # Apache hands on the whole body before it reads an answer, and reads none of who did not take all of it.
        while self.stdin.read(65536):
            pass
        # Nothing may follow on the connection: where this answer breaks off, it would be taken for the rest.
        self.headers["Connection"] = "close"


def main() -> None:
    """Answer the one request that the environment and standard input hold."""
    _Handler().run(application)
