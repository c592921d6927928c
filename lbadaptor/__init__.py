"""Sticky sessions and fail-over for Python WSGI applications behind Apache httpd.

`Adaptor` is the WSGI application that mod_wsgi loads. An AppServer is started by `lbadaptor.appserver.main.main`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from lbadaptor.contract.errors import LbadaptorError

if TYPE_CHECKING:
    from lbadaptor.adaptor.middleware import Adaptor

__all__ = ["Adaptor", "LbadaptorError"]


def __getattr__(name: str) -> Any:
    """Load the adaptor on first use: an AppServer, which is in the same package, does not need it."""
    if name == "Adaptor":
        from lbadaptor.adaptor.middleware import Adaptor

        return Adaptor
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
