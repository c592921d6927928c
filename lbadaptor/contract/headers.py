"""The headers between adaptor and AppServer, and the encoding of text in them. Pure.

Every name begins with `LB-`. Such headers of a visitor or an application are dropped. Text is percent-encoded (RFC
3986 §2.1), so that no byte that a visitor sends can end a header.
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
HEALTH_PATH = "/__lb__/health"
"""Below the mount; only of one of several machines: whether it takes new visitors."""
HOLDERS_PATH = f"{HEALTH_PATH}/holders"
"""Whether those who have a session here reach it."""

SCRIPT_NAME = "LB-Script-Name"
PATH = "LB-Path"
VAR = "LB-Var-"
VARIABLES = "LB-Variables"
"""Only in the fast lane: the names, after LB-Var-, of the variables that Apache sends. Apache cannot drop LB-Var-
headers of other names that a visitor sends. So the AppServer drops them."""

MANDATORY = {
    "LB-Request-Uri": "REQUEST_URI",
    "LB-Remote-Addr": "REMOTE_ADDR",
    "LB-Remote-Port": "REMOTE_PORT",
    "LB-Scheme": "wsgi.url_scheme",
    "LB-Script-Name": "SCRIPT_NAME",
    "LB-Server-Name": "SERVER_NAME",
    "LB-Server-Port": "SERVER_PORT",
    "LB-Server-Protocol": "SERVER_PROTOCOL",
}
"""Headers that every request has; each stands for one key of environ. PATH is mandatory too: it is script name and
path info together."""

METHOD = "LB-Method"
QUERY = "LB-Query"
OPTIONAL = {
    "LB-Remote-User": "REMOTE_USER",
    "LB-Auth-Type": "AUTH_TYPE",
    METHOD: "REQUEST_METHOD",
    QUERY: "QUERY_STRING",
}
"""LB-Method and LB-Query are sent only if the request line cannot carry them: HTTP parsers know the registered
methods and ASCII, but Apache accepts others."""

LENGTH = "LB-Content-Length"
"""The Content-Length of the visitor's request, if the body has another length: Apache's input filters (mod_deflate)
change the body but not the header. The application sees it as CONTENT_LENGTH, as with mod_wsgi."""

STATUS = "LB-Status"
LOAD = "LB-Load"
REFUSED = "LB-Refused"
KEY_REFUSED = "KEY"
"""LB-Refused along with 403: the caller's key is wrong."""
MOVED_TO = "LB-Moved-To"
"""Along with LB-Refused: MOVED: `slot.generation` of the AppServer that has the session, if one has it."""
REFUSED_STATUS = 421
"""After a 421 any method may be repeated (RFC 9110 §15.5.20). It cannot be mistaken for the application's 503."""

REQUEST_ID = "LB-Request-Id"
"""Apache's id of the request. What is no `request_id` is dropped."""
TIME = "LB-Time"
"""Microseconds from a request's head to the answer's. An AppServer's answer has it only where Apache wants to log it,
and so has named it in the fast lane's VARIABLES."""
SLOT, LANE, VERDICT, TRIES = "LB-Slot", "LB-Lane", "LB-Verdict", "LB-Tries"
"""From adaptor to Apache, along with TIME: for Apache's log (adaptor/log_variables.py)."""

LONGEST_LINE = 16383
"""Bytes of a header's line in an answer, without its CRLF, that mod_proxy takes in the fast lane: one less than the
responsefieldsize of `lbctl apache-config`. Of the status line it takes one byte less."""

METHODS = frozenset(("GET", "HEAD", "POST", "PUT", "DELETE", "OPTIONS", "TRACE", "PATCH"))
"""The methods that every HTTP parser knows (RFC 9110 §9, RFC 5789)."""

HOP_BY_HOP = frozenset(
    (
        *("connection", "keep-alive", "proxy-connection", "te", "trailer", "transfer-encoding", "upgrade"),
        *("proxy-authenticate", "proxy-authorization"),
    )
)
"""In lower case: headers of one connection (RFC 9110 §7.6.1), and those between a client and its proxy (§11.7).
Neither lane passes them on, in either direction."""


class Refusal(Enum):
    """Why an AppServer refused a request before the application saw anything."""

    STALE = "STALE"
    """the request is for another generation"""
    DYING = "DYING"
    """it is DYING and does not know the visitor's session"""
    BUSY = "BUSY"
    """its queue is full"""
    INCOMPLETE = "INCOMPLETE"
    """a mandatory LB- header is missing"""
    MOVED = "MOVED"
    """the visitor's session has left it, or is at another AppServer (LB-Moved-To)"""


def is_ours(name: str) -> bool:
    """Whether a header's name, in lower case, is reserved for adaptor and AppServer, or can be taken for such a name.

    CGI and WSGI make names into variables, in which an underscore and a hyphen are the same.
    """
    return name.startswith(("lb-", "lb_"))


REQUEST_ID_PATTERN = "[A-Za-z0-9._~+/=@:-]{1,128}"
request_id = re.compile(REQUEST_ID_PATTERN).fullmatch
"""Matches what may be a request's id. None of these signs means something in a log, a header or a shell."""
plain = re.compile(r"[!-$&-~]*").fullmatch
"""Matches a text of visible ASCII without the percent sign, which needs no encoding."""
_KEEP = "".join(chr(code) for code in range(0x21, 0x7F) if chr(code) != "%")


def encode(text: str) -> str:
    """The value of a header for a value of environ (latin-1 text, PEP 3333)."""
    return text if plain(text) else quote_from_bytes(text.encode("latin-1"), _KEEP)


def decode(value: str) -> str:
    """The inverse of `encode`."""
    return unquote_to_bytes(value.encode("latin-1")).decode("latin-1") if "%" in value else value
