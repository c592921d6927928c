"""The entry point for CGI: a process a request, for an Apache without mod_wsgi (RFC 3875)."""

from __future__ import annotations

from typing import IO
from wsgiref.handlers import CGIHandler
from wsgiref.headers import Headers

from lbadaptor.wsgi import application


class _Handler(CGIHandler):
    headers: Headers
    stdin: IO[bytes]

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
