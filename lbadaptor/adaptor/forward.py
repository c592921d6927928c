"""Makes the request that goes to an AppServer from environ. Pure."""

from __future__ import annotations

import re
import threading
from collections.abc import Callable, Iterable
from operator import itemgetter
from typing import Any
from urllib.parse import quote_from_bytes

from lbadaptor.adaptor.spool import Body
from lbadaptor.contract import headers
from lbadaptor.contract.errors import LbadaptorError
from lbadaptor.contract.headers import METHODS, encode, plain
from lbadaptor.contract.ticket import Verdict

Environ = dict[str, Any]

UNIQUE_ID = "UNIQUE_ID"
"""Apache's variable for the id of a request, of mod_unique_id or of the visitor's X-Request-Id."""
_BEFORE_ID = 1 + list(headers.MANDATORY).index("LB-Remote-Port")
_DROPPED = headers.HOP_BY_HOP | {"content-length", "content-type", "expect", "host"}
_USER = (("REMOTE_USER", "LB-Remote-User"), ("AUTH_TYPE", "LB-Auth-Type"))
_VISIBLE = re.compile("[!-~]*").fullmatch
_PATH_SAFE = "/:@!$&'()*+,;=~-._"
_SAFE = re.compile(f"[0-9A-Za-z{re.escape(_PATH_SAFE)}]*").fullmatch
_MAX_SHAPES = 4 * 1024 * 1024
"""Bytes, about, of all shapes that are kept. When they take more, all are dropped."""
_MAX_SHAPE = 65536
"""Bytes, about. A larger shape is not kept."""
_SHAPE_BYTES, _KEY_BYTES = 2048, 256
"""Bytes, about, that a shape and each of its keys take besides their characters."""
_MAX_URL = 500
"""Characters of a URL in the log."""


class BadRequest(LbadaptorError):
    """The visitor's request cannot be passed on. `status` is the answer."""

    status = 400


class LengthRequired(BadRequest):
    """The body may have been lost because there is no Content-Length."""

    status = 411


class UnknownCoding(BadRequest):
    """The body has a transfer coding that is not removed (RFC 9112 §6.1)."""

    status = 501


class _Shape:
    """How to write requests whose environ has the same keys: a template, and the keys of the values that fill it."""

    def __init__(self, keys: tuple[str, ...], passed_on: Callable[[str], bool]) -> None:
        fields = {"HTTP_HOST": "Host"} if "HTTP_HOST" in keys else {}
        fields |= {key: name for key in keys if (name := _field(key))}
        variables = [(key, name) for name, key in headers.MANDATORY.items()]
        if UNIQUE_ID in keys:  # after LB-Remote-Port, where the AppServer reads it at least cost
            variables.insert(_BEFORE_ID, (UNIQUE_ID, headers.REQUEST_ID))
        variables += [(key, f"{headers.VAR}{key.replace('_', '-')}") for key in keys if passed_on(key)]
        self.users = [(key, name) for key, name in _USER if key in keys]
        """The user, if Apache has authenticated one. If the value is empty, the header is not sent."""
        self._variables = variables
        self._incomplete = not {key for key, _ in variables} <= set(keys)
        """not every WSGI server sets all mandatory variables"""
        self._fields = ("" if "HTTP_HOST" in keys else "Host: \r\n") + _template(fields.values())
        self._text = f"{self._fields}%s{_template(name for _, name in variables)}"
        self._breaks = self._text.count("\n")
        self._field_values = _getter(list(fields))
        self._values = _getter([*fields, *(key for key, _ in variables)])
        self._number = len(fields)

    def lines(self, environ: Environ, between: str) -> str:
        """The visitor's headers, lines between, and Apache's variables.

        Raises BadRequest if a header holds a line break or NUL.
        """
        if self._incomplete:
            return self._one_by_one(environ, between)
        values = self._values(environ)
        try:
            text = "".join(values[self._number :])
        except TypeError:  # a variable is no text
            return self._one_by_one(environ, between)
        if not plain(text):
            return self._one_by_one(environ, between)
        text = self._text % (*values[: self._number], between, *values[self._number :])
        return _checked(text, self._breaks + between.count("\n"))

    def _one_by_one(self, environ: Environ, between: str) -> str:
        text = self._fields % self._field_values(environ)
        lines = [_checked(text, self._fields.count("\n")), between]
        for key, name in self._variables:
            value = environ.get(key) or _default(key, environ)
            if isinstance(value, str):
                lines.append(f"{name}: {encode(value)}\r\n")
        return "".join(lines)


class Heads:
    """Writes the heads of requests. `patterns` name the variables to pass on besides HTTPS, such as `SSL_*`."""

    def __init__(self, patterns: tuple[str, ...]) -> None:
        self._exact = {"HTTPS", *(name for name in patterns if not name.endswith("*"))}
        self._prefixes = tuple(name[:-1] for name in patterns if name.endswith("*"))
        self._shapes: dict[tuple[str, ...], _Shape] = {}
        self._size = 0
        """bytes, about, of all shapes"""
        self._lock = threading.Lock()

    def common(self, environ: Environ, body: Body) -> bytes:
        """The part of the head that is the same for every AppServer: all but `head_end`.

        Raises BadRequest if a header holds a line break or NUL.
        """
        keys = tuple(environ)
        shape = self._shapes.get(keys) or self._new_shape(keys)
        path = environ.get("SCRIPT_NAME", "") + environ.get("PATH_INFO", "")
        query = environ.get("QUERY_STRING", "")
        method = environ["REQUEST_METHOD"]
        if _SAFE(path):
            target = wire_path = path
        else:
            target, wire_path = quote_from_bytes(path.encode("latin-1"), _PATH_SAFE), encode(path)
        more = ""
        if query:
            wire_query = query if _VISIBLE(query) else encode(query)
            target = f"{target or '/'}?{wire_query}"
            if wire_query != query:
                more = f"{headers.QUERY}: {wire_query}\r\n"
        wire_method = method
        if method not in METHODS:
            wire_method = "POST"
            more += f"{headers.METHOD}: {encode(method)}\r\n"
        for key, name in shape.users:
            if environ[key]:
                more += f"{name}: {encode(environ[key])}\r\n"
        stated = environ.get("CONTENT_LENGTH")
        if body.length is None:
            more += "Transfer-Encoding: chunked\r\n"
            if stated:
                more += f"{headers.LENGTH}: {int(stated)}\r\n"
        elif stated or body.length:
            more += f"Content-Length: {body.length}\r\n"
            if stated and stated != str(body.length) and int(stated) != body.length:
                more += f"{headers.LENGTH}: {int(stated)}\r\n"
        more += f"{headers.PATH}: {wire_path}\r\n"
        return f"{wire_method} {target or '/'} HTTP/1.1\r\n{shape.lines(environ, more)}".encode("latin-1")

    def _new_shape(self, keys: tuple[str, ...]) -> _Shape:
        """Browsers send few sets of headers, so shapes are kept. Made-up sets only displace other shapes."""
        shape = _Shape(keys, self._passed_on)
        size = _SHAPE_BYTES + _KEY_BYTES * len(keys) + 8 * sum(map(len, keys))  # each name stands in it several times
        if size <= _MAX_SHAPE:
            with self._lock:
                self._size += size
                if self._size > _MAX_SHAPES:
                    self._shapes.clear()
                    self._size = size
                self._shapes[keys] = shape
        return shape

    def _passed_on(self, key: str) -> bool:
        if key.startswith(("HTTP_", "CONTENT_")):
            return False  # they are sent as headers of their own
        return key in self._exact or bool(self._prefixes and key.startswith(self._prefixes))


def _getter(keys: list[str]) -> Callable[[Environ], tuple[str, ...]]:
    """A function that returns the values of some keys, always as a tuple."""
    if len(keys) > 1:
        return itemgetter(*keys)
    return lambda environ: tuple(environ[key] for key in keys)


def _template(names: Iterable[str]) -> str:
    """Lines with `%s` for their values."""
    return "".join(f"{name.replace('%', '%%')}: %s\r\n" for name in names)


def _checked(text: str, lines: int) -> str:
    """The text itself. Raises BadRequest if it has more than so many lines: then a value holds a line break."""
    if text.count("\n") != lines or text.count("\r") != lines or "\0" in text:
        raise BadRequest("A line break or NUL stands within a header")
    return text


def head_end(caller_key: str, generation: int, verdict: Verdict) -> bytes:
    """The end of a head: the part for one AppServer alone."""
    session = "none" if verdict is Verdict.FORGED else verdict.value
    return (
        f"{headers.KEY}: {caller_key}\r\n{headers.GENERATION}: {generation}\r\n{headers.SESSION}: {session}\r\n\r\n"
    ).encode("ascii")


def url(environ: Environ) -> str:
    """Method, path and id of a request for the log, shortened. Without the query, which may hold secrets."""
    path = environ.get("SCRIPT_NAME", "") + environ.get("PATH_INFO", "")
    text = f"{encode(environ['REQUEST_METHOD'])} {quote_from_bytes(path.encode('latin-1'), _PATH_SAFE)}"
    shortened = text if len(text) <= _MAX_URL else f"{text[:_MAX_URL]}..."
    given = environ.get(UNIQUE_ID, "")
    return f"{shortened} ({given})" if headers.request_id(given) else shortened


def body_length(environ: Environ) -> int | None:
    """The length of the body in bytes; None if it ends where the input ends. Raises BadRequest.

    Apache removes the chunks of any body whose last coding is `chunked`, but no other coding. mod_wsgi refuses such a
    body with 501; mod_cgi does not.
    """
    length = environ.get("CONTENT_LENGTH", "")
    if length:
        if not (length.isascii() and length.isdigit() and len(length) < 19):
            raise BadRequest("Content-Length is no number of bytes")
        return int(length)
    codings = environ.get("HTTP_TRANSFER_ENCODING", "").lower()
    if codings not in ("", "chunked"):
        raise UnknownCoding("The body has a Transfer-Encoding other than chunked")
    return None if codings else 0


def may_be_short(environ: Environ) -> bool:
    """Whether a body that is shorter than its Content-Length may be whole, because one of Apache's filters
    shortened it.

    Within Apache's own processes a broken connection raises an error. mod_wsgi's daemon mode and CGI see an end like
    any other (seen with mod_wsgi 4.9 and 6.1, mod_cgid 2.4). There it may be whole only if there is a
    Content-Encoding, which mod_deflate removes.
    """
    return environ.get("mod_wsgi.process_group") == "" or bool(environ.get("HTTP_CONTENT_ENCODING"))


def refuse_lost(environ: Environ) -> None:
    """For a body without a length that seems to be empty: raise LengthRequired if it may have been lost.

    mod_wsgi's daemon mode loses such a body of an HTTP/2 request (seen with 4.9 and 6.1).
    """
    if environ.get("mod_wsgi.process_group") and environ.get("SERVER_PROTOCOL", "").startswith("HTTP/2"):
        raise LengthRequired("By HTTP/2 this server takes a body only with its Content-Length")


def _field(key: str) -> str:
    """`HTTP_X_FOO` → `X-Foo`; empty if the header is not passed on. A visitor's own LB- headers are not."""
    if key == "CONTENT_TYPE":
        return "Content-Type"
    if not key.startswith("HTTP_"):
        return ""
    name = key[5:].replace("_", "-").lower()
    return "" if name in _DROPPED or name.startswith("lb-") else name.title()


def _default(key: str, environ: Environ) -> str:
    """For the few variables that not every WSGI server sets (RFC 3875 §4.1 knows no REQUEST_URI)."""
    if key == "REQUEST_URI":
        path = environ.get("SCRIPT_NAME", "") + environ.get("PATH_INFO", "")
        query = environ.get("QUERY_STRING", "")
        return quote_from_bytes(path.encode("latin-1"), _PATH_SAFE) + (f"?{query}" if query else "")
    return {"REMOTE_PORT": "0", "SERVER_PROTOCOL": "HTTP/1.1", "wsgi.url_scheme": "http"}.get(key, "")
