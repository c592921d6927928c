"""The AppServer: a process that serves the user's WSGI application to the adaptors."""

from lbadaptor.appserver.main import main

__all__ = ["main"]
