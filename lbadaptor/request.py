"""environ → the request that goes to an AppServer. Pure."""

from __future__ import annotations

import re
from operator import itemgetter
from typing import Any
from urllib.parse import quote_from_bytes

from lbadaptor import headers
from lbadaptor.body import Body
from lbadaptor.errors import LbadaptorError
from lbadaptor.headers import encode, plain
from lbadaptor.ticket import Verdict

Environ = dict[str, Any]

_DROPPED = headers.HOP_BY_HOP | {"content-length", "content-type", "expect", "host"}
_CONSTANT = itemgetter(*headers.MANDATORY.values())
_CONSTANT_LINES = "".join(f"{name}: %s\r\n" for name in headers.MANDATORY)
_METHODS = frozenset(("GET", "HEAD", "POST", "PUT", "DELETE", "OPTIONS", "TRACE", "PATCH"))
_USER = (("REMOTE_USER", "LB-Remote-User: "), ("AUTH_TYPE", "LB-Auth-Type: "))
_VISIBLE = re.compile("[!-~]*").fullmatch
_PATH_SAFE = "/:@!$&'()*+,;=~-._"
_SAFE = re.compile(f"[0-9A-Za-z{re.escape(_PATH_SAFE)}]*").fullmatch
_VAR = headers.VAR
_MOST_NAMES = 512


class BadRequest(LbadaptorError):
    """The visitor's request cannot be handed on as it is; `status` is the answer."""

    status = 400


class LengthRequired(BadRequest):
    """The body may have been lost for want of a Content-Length."""

    status = 411


class Heads:
    """Writes the heads of requests. `patterns` name the variables to hand on, besides HTTPS; `SSL_*` all of them."""

    def __init__(self, patterns: tuple[str, ...]) -> None:
        self._exact = {"HTTPS", *(name for name in patterns if not name.endswith("*"))}
        self._prefixes = tuple(name[:-1] for name in patterns if name.endswith("*"))
        self._names: dict[str, str] = {}

    def common(self, environ: Environ, body: Body) -> str:
        """The part of the head that is the same for every AppServer, without the empty line at its end.

        Raises BadRequest where a header holds what none may hold.
        """
        path = environ.get("SCRIPT_NAME", "") + environ.get("PATH_INFO", "")
        query = environ.get("QUERY_STRING", "")
        method = environ["REQUEST_METHOD"]
        wire_method = method if method in _METHODS else "POST"
        wire_query = query if _VISIBLE(query) else encode(query)
        lines = [
            f"{wire_method} {_quoted(path) or '/'}{'?' if query else ''}{wire_query} HTTP/1.1",
            f"Host: {environ.get('HTTP_HOST', '')}",  # empty where there is none (RFC 9110 §7.2)
            f"{headers.PATH}: {encode(path)}",
        ]
        if wire_method != method:
            lines.append(f"{headers.METHOD}: {encode(method)}")
        if wire_query != query:
            lines.append(f"{headers.QUERY}: {wire_query}")
        for key, name in _USER:
            if environ.get(key):
                lines.append(name + encode(environ[key]))
        names = self._names
        for key, value in environ.items():
            wire = names.get(key)
            if wire is None:
                wire = self._learn(key)
            if wire:
                if not wire.startswith(_VAR):
                    lines.append(wire + value)
                elif isinstance(value, str):
                    lines.append(wire + encode(value))
        if "CONTENT_TYPE" in environ:
            lines.append(f"Content-Type: {environ['CONTENT_TYPE']}")
        if body.length is None:
            lines.append("Transfer-Encoding: chunked")
        elif body.length or environ.get("CONTENT_LENGTH"):
            lines.append(f"Content-Length: {body.length}")
        text = "\r\n".join(lines)
        if text.count("\n") != len(lines) - 1 or text.count("\r") != len(lines) - 1 or "\0" in text:
            raise BadRequest("A line break or NUL stands within a header")
        return f"{text}\r\n{_constant(environ)}"

    def _learn(self, key: str) -> str:
        """How a key of environ is written; empty for what is not handed on. Known from now on."""
        if key.startswith("HTTP_"):
            wire = _wire_name(key)
        elif key in self._exact or (self._prefixes and key.startswith(self._prefixes)):
            wire = f"{_VAR}{key.replace('_', '-')}: "
        else:
            wire = ""
        if len(self._names) < _MOST_NAMES:  # visitors make up names
            self._names[key] = wire
        return wire


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


def refuse_lost(environ: Environ) -> None:
    """For a body without a length that seems to be empty: raise LengthRequired where it may have been lost.

    mod_wsgi's daemon mode hands on none that comes so by HTTP/2 (seen with 4.9 and 6.1).
    """
    if environ.get("mod_wsgi.process_group") and environ.get("SERVER_PROTOCOL", "").startswith("HTTP/2"):
        raise LengthRequired("By HTTP/2 this server takes a body only with its Content-Length")


def _constant(environ: Environ) -> str:
    """The mandatory headers that stand for one key of environ each."""
    try:
        values: tuple[str, ...] = _CONSTANT(environ)
        if plain("".join(values)):
            return _CONSTANT_LINES % values
    except KeyError:
        pass
    keys = headers.MANDATORY.values()
    return _CONSTANT_LINES % tuple(encode(environ.get(key) or _default(key, environ)) for key in keys)


def _quoted(path: str) -> str:
    return path if _SAFE(path) else quote_from_bytes(path.encode("latin-1"), _PATH_SAFE)


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
        return _quoted(path) + (f"?{query}" if query else "")
    return {"REMOTE_PORT": "0", "SERVER_PROTOCOL": "HTTP/1.1", "wsgi.url_scheme": "http"}.get(key, "")
