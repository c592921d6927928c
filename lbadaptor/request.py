"""environ → the request that goes to an AppServer. Pure."""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import lru_cache
from typing import Any
from urllib.parse import quote_from_bytes

from lbadaptor import headers
from lbadaptor.body import Body
from lbadaptor.errors import LbadaptorError
from lbadaptor.headers import encode
from lbadaptor.ticket import Verdict

Environ = dict[str, Any]

_DROPPED = headers.HOP_BY_HOP | {"content-length", "content-type", "expect", "host"}
_CONSTANT = tuple((f"{name}: ", key) for name, key in headers.MANDATORY.items())
_METHODS = frozenset(("GET", "HEAD", "POST", "PUT", "DELETE", "OPTIONS", "TRACE", "PATCH"))
_USER = (("REMOTE_USER", "LB-Remote-User: "), ("AUTH_TYPE", "LB-Auth-Type: "))
_VISIBLE = re.compile("[!-~]*").fullmatch
_PATH_SAFE = "/:@!$&'()*+,;=~-._"


class BadRequest(LbadaptorError):
    """The visitor's request cannot be handed on as it is."""


def variables(patterns: tuple[str, ...]) -> Callable[[Environ], str]:
    """A function that writes the `LB-Var-` headers of an environ: HTTPS, and the names that match."""
    exact = {"HTTPS", *(name for name in patterns if not name.endswith("*"))}
    prefixes = tuple(name[:-1] for name in patterns if name.endswith("*"))

    def lines(environ: Environ) -> str:
        found = [key for key in environ if key in exact or (prefixes and key.startswith(prefixes))]
        return "".join(
            f"{headers.VAR}{key.replace('_', '-')}: {encode(environ[key])}\r\n"
            for key in found
            if isinstance(environ[key], str)
        )

    return lines


def common_head(environ: Environ, body: Body, variable_lines: str) -> str:
    """The part of the head that is the same for every AppServer, without the empty line at its end.

    Raises BadRequest where a header holds what none may hold.
    """
    path = environ.get("SCRIPT_NAME", "") + environ.get("PATH_INFO", "")
    query = environ.get("QUERY_STRING", "")
    target = quote_from_bytes(path.encode("latin-1"), _PATH_SAFE) or "/"
    method = environ["REQUEST_METHOD"]
    wire_query = query if _VISIBLE(query) else encode(query)
    lines = [
        f"{method if method in _METHODS else 'POST'} {target}{'?' if query else ''}{wire_query} HTTP/1.1",
        f"Host: {environ.get('HTTP_HOST') or environ['SERVER_NAME']}",
        f"{headers.PATH}: {encode(path)}",
    ]
    for name, key in _CONSTANT:
        lines.append(name + encode(environ.get(key) or _default(key, environ)))
    if method not in _METHODS:
        lines.append(f"{headers.METHOD}: {encode(method)}")
    if wire_query != query:
        lines.append(f"{headers.QUERY}: {wire_query}")
    for key, name in _USER:
        if environ.get(key):
            lines.append(name + encode(environ[key]))
    for key, value in environ.items():
        if key.startswith("HTTP_") and (wire := _wire_name(key)):
            lines.append(wire + value)
    if environ.get("CONTENT_TYPE"):
        lines.append(f"Content-Type: {environ['CONTENT_TYPE']}")
    if body.length is None:
        lines.append("Transfer-Encoding: chunked")
    elif body.length or environ.get("CONTENT_LENGTH"):
        lines.append(f"Content-Length: {body.length}")
    text = "\r\n".join(lines)
    if text.count("\n") != len(lines) - 1 or text.count("\r") != len(lines) - 1 or "\0" in text:
        raise BadRequest("A line break or NUL stands within a header")
    return f"{text}\r\n{variable_lines}"


def head(common: str, caller_key: str, generation: int, verdict: Verdict) -> bytes:
    """The whole head for one AppServer."""
    session = "none" if verdict is Verdict.FORGED else verdict.value
    return (
        f"{common}{headers.KEY}: {caller_key}\r\n{headers.GENERATION}: {generation}\r\n"
        f"{headers.SESSION}: {session}\r\n\r\n"
    ).encode("latin-1")


def body_length(environ: Environ) -> int | None:
    """The length of the body in bytes; None when it ends where the input ends. Raises BadRequest."""
    length = environ.get("CONTENT_LENGTH", "")
    if length:
        if not (length.isascii() and length.isdigit() and len(length) < 19):
            raise BadRequest("Content-Length is no number of bytes")
        return int(length)
    return None if environ.get("HTTP_TRANSFER_ENCODING", "").lower() == "chunked" else 0


@lru_cache(maxsize=512)
def _wire_name(key: str) -> str:
    """`HTTP_X_FOO` → `X-Foo: `; empty for what is not handed on, a visitor's own LB- headers first of all."""
    name = key[5:].replace("_", "-").lower()
    if name in _DROPPED or name.startswith("lb-") or not name:
        return ""
    return f"{name.title()}: "


def _default(key: str, environ: Environ) -> str:
    """For the few variables that not every gateway sets (CGI has no REQUEST_URI of its own: RFC 3875 §4.1)."""
    if key == "REQUEST_URI":
        path = environ.get("SCRIPT_NAME", "") + environ.get("PATH_INFO", "")
        query = environ.get("QUERY_STRING", "")
        return quote_from_bytes(path.encode("latin-1"), _PATH_SAFE) + (f"?{query}" if query else "")
    return {"REMOTE_PORT": "0", "SERVER_PROTOCOL": "HTTP/1.1", "wsgi.url_scheme": "http"}.get(key, "")
