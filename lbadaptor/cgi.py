"""The entry point for CGI: a process a request, for an Apache without mod_wsgi (RFC 3875)."""

from __future__ import annotations

from wsgiref.handlers import CGIHandler

from lbadaptor.wsgi import application


def main() -> None:
    """Answer the one request that the environment and standard input hold."""
    CGIHandler().run(application)
