"""The headers between adaptor and AppServer, and how text travels in them. Pure.

Every name begins with `LB-`. What a visitor or an application sends under such a name is dropped. Text
travels percent-encoded (RFC 3986 §2.1), so that no byte of a visitor's can end a header.
"""

from __future__ import annotations

import re
from enum import Enum
from urllib.parse import quote_from_bytes, unquote_to_bytes

PREFIX = "LB-"

KEY = "LB-Key"
GENERATION = "LB-Generation"
SESSION = "LB-Session"
PROBE = "LB-Probe"
PROBE_PATH = "/__lb__/status"

SCRIPT_NAME = "LB-Script-Name"
PATH = "LB-Path"
VAR = "LB-Var-"
VARIABLES = "LB-Variables"
"""In the fast lane: the names, after LB-Var-, of the variables that Apache told. Apache itself cannot drop what a
visitor sends under any other name: so whoever reads them does."""

MANDATORY = {
    "LB-Remote-Addr": "REMOTE_ADDR",
    "LB-Remote-Port": "REMOTE_PORT",
    "LB-Scheme": "wsgi.url_scheme",
    "LB-Script-Name": "SCRIPT_NAME",
    "LB-Request-Uri": "REQUEST_URI",
    "LB-Server-Name": "SERVER_NAME",
    "LB-Server-Port": "SERVER_PORT",
    "LB-Server-Protocol": "SERVER_PROTOCOL",
}
"""Headers that stand for one key of environ each, every one of them in every request; PATH is mandatory
too, and is script name and path info in one."""

METHOD = "LB-Method"
QUERY = "LB-Query"
OPTIONAL = {
    "LB-Remote-User": "REMOTE_USER",
    "LB-Auth-Type": "AUTH_TYPE",
    METHOD: "REQUEST_METHOD",
    QUERY: "QUERY_STRING",
}
"""LB-Method and LB-Query only where the request line cannot carry them: HTTP parsers know the registered
methods and ASCII, Apache lets others through."""

LENGTH = "LB-Content-Length"
"""The Content-Length that the visitor's request says, where it is not that of the body: Apache's input filters
(mod_deflate) change a body, and not what is said of it. The application sees it as CONTENT_LENGTH, as in mod_wsgi."""

STATUS = "LB-Status"
LOAD = "LB-Load"
REFUSED = "LB-Refused"
KEY_REFUSED = "KEY"
"""LB-Refused along with 403: the caller's key is wrong."""
REFUSED_STATUS = 421
"""It may be repeated whatever the method (RFC 9110 §15.5.20), and is not the application's own 503."""

METHODS = frozenset(("GET", "HEAD", "POST", "PUT", "DELETE", "OPTIONS", "TRACE", "PATCH"))
"""Those that every HTTP parser knows (RFC 9110 §9, RFC 5789)."""

HOP_BY_HOP = frozenset(
    (
        *("connection", "keep-alive", "proxy-connection", "te", "trailer", "transfer-encoding", "upgrade"),
        *("proxy-authenticate", "proxy-authorization"),
    )
)
"""Headers that concern one connection only, in lower case (RFC 9110 §7.6.1), or are between a client and its proxy
(§11.7). Neither lane carries them, in either direction."""


class Refusal(Enum):
    """Why an AppServer refused a request before the application saw anything."""

    STALE = "STALE"
    """another generation was meant"""
    DYING = "DYING"
    """it takes no visitors whose session it does not know"""
    BUSY = "BUSY"
    """its queue is full"""
    INCOMPLETE = "INCOMPLETE"
    """a mandatory LB- header is missing"""


def is_ours(name: str) -> bool:
    """Whether a header's name, in lower case, is one that only adaptor and AppServer use, or passes for one.

    Where names become variables (CGI, WSGI), an underscore and a hyphen are one.
    """
    return name.startswith(("lb-", "lb_"))


plain = re.compile(r"[!-$&-~]*").fullmatch
"""Whether a text is visible ASCII without the percent sign, and so stands for itself."""
_KEEP = "".join(chr(code) for code in range(0x21, 0x7F) if chr(code) != "%")


def encode(text: str) -> str:
    """A value of environ (latin-1 text, PEP 3333) as a header's value."""
    return text if plain(text) else quote_from_bytes(text.encode("latin-1"), _KEEP)


def decode(value: str) -> str:
    """The text that `encode` made a header's value of."""
    return unquote_to_bytes(value.encode("latin-1")).decode("latin-1") if "%" in value else value
