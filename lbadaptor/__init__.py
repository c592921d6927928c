"""Sticky sessions and fail-over for Python WSGI applications behind Apache httpd.

The public face: the middleware that mod_wsgi loads. The AppServer's is `lbadaptor.appserver.main.main`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from lbadaptor.contract.errors import LbadaptorError

if TYPE_CHECKING:
    from lbadaptor.adaptor.middleware import Adaptor

__all__ = ["Adaptor", "LbadaptorError"]


def __getattr__(name: str) -> Any:
    """Load the adaptor when it is asked for: an AppServer, in the same package, has no use for it."""
    if name == "Adaptor":
        from lbadaptor.adaptor.middleware import Adaptor

        return Adaptor
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
