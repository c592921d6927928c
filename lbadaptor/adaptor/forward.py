"""environ → the request that goes to an AppServer. Pure."""

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

_DROPPED = headers.HOP_BY_HOP | {"content-length", "content-type", "expect", "host"}
_USER = (("REMOTE_USER", "LB-Remote-User"), ("AUTH_TYPE", "LB-Auth-Type"))
_VISIBLE = re.compile("[!-~]*").fullmatch
_PATH_SAFE = "/:@!$&'()*+,;=~-._"
_SAFE = re.compile(f"[0-9A-Za-z{re.escape(_PATH_SAFE)}]*").fullmatch
_SHAPES = 4 * 1024 * 1024
"""Bytes, about, of all that is remembered of sets of headers; what goes beyond it makes it forget all."""
_LARGEST_SHAPE = 65536
"""Bytes, about; what takes more is not remembered."""
_SHAPE, _FOR_EACH_KEY = 2048, 256
"""Bytes, about, that one takes beside its characters."""
_LONGEST_URL = 500
"""Characters of a URL in the log."""


class BadRequest(LbadaptorError):
    """The visitor's request cannot be handed on as it is; `status` is the answer."""

    status = 400


class LengthRequired(BadRequest):
    """The body may have been lost for want of a Content-Length."""

    status = 411


class _Shape:
    """How requests whose environ has the same keys are written: a text with gaps, and the keys of what fills them."""

    def __init__(self, keys: tuple[str, ...], handed_on: Callable[[str], bool]) -> None:
        fields = {"HTTP_HOST": "Host"} if "HTTP_HOST" in keys else {}
        fields |= {key: name for key in keys if (name := _field(key))}
        told = {key: name for name, key in headers.MANDATORY.items()}
        told |= {key: f"{headers.VAR}{key.replace('_', '-')}" for key in keys if handed_on(key)}
        self.users = [(key, name) for key, name in _USER if key in keys]
        """who the visitor is, by Apache's word: may be empty, and then goes unsaid"""
        self._told = told
        self._lacks = not told.keys() <= set(keys)
        """not every gateway sets all that is mandatory"""
        self._fields = ("" if "HTTP_HOST" in keys else "Host: \r\n") + _gaps(fields.values())
        self._text = self._fields + _gaps(told.values())
        self._breaks = self._text.count("\n")
        self._field_values = _getter(list(fields))
        self._values = _getter([*fields, *told])
        self._number = len(fields)

    def lines(self, environ: Environ) -> str:
        """The visitor's own headers, and what Apache says. Raises BadRequest where one holds what none may hold."""
        if self._lacks:
            return self._one_by_one(environ)
        values = self._values(environ)
        try:
            told = "".join(values[self._number :])
        except TypeError:  # not every variable is a text
            return self._one_by_one(environ)
        if not plain(told):
            return self._one_by_one(environ)
        return _checked(self._text % values, self._breaks)

    def _one_by_one(self, environ: Environ) -> str:
        text = self._fields % self._field_values(environ)
        lines = [_checked(text, self._fields.count("\n"))]
        for key, name in self._told.items():
            value = environ.get(key) or _default(key, environ)
            if isinstance(value, str):
                lines.append(f"{name}: {encode(value)}\r\n")
        return "".join(lines)


class Heads:
    """Writes the heads of requests. `patterns` name the variables to hand on, besides HTTPS; `SSL_*` all of them."""

    def __init__(self, patterns: tuple[str, ...]) -> None:
        self._exact = {"HTTPS", *(name for name in patterns if not name.endswith("*"))}
        self._prefixes = tuple(name[:-1] for name in patterns if name.endswith("*"))
        self._shapes: dict[tuple[str, ...], _Shape] = {}
        self._size = 0
        """bytes, about, that they take"""
        self._lock = threading.Lock()

    def common(self, environ: Environ, body: Body) -> bytes:
        """The part of the head that is the same for every AppServer, all but its `end`.

        Raises BadRequest where a header holds what none may hold.
        """
        keys = tuple(environ)
        shape = self._shapes.get(keys) or self._learn(keys)
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
        said = environ.get("CONTENT_LENGTH")
        if body.length is None:
            more += "Transfer-Encoding: chunked\r\n"
            if said:
                more += f"{headers.LENGTH}: {int(said)}\r\n"
        elif said or body.length:
            more += f"Content-Length: {body.length}\r\n"
            if said and said != str(body.length) and int(said) != body.length:
                more += f"{headers.LENGTH}: {int(said)}\r\n"
        return (
            f"{wire_method} {target or '/'} HTTP/1.1\r\n{shape.lines(environ)}{more}{headers.PATH}: {wire_path}\r\n"
        ).encode("latin-1")

    def _learn(self, keys: tuple[str, ...]) -> _Shape:
        """Browsers send the same few sets of headers. Who makes some up only displaces others."""
        shape = _Shape(keys, self._handed_on)
        size = _SHAPE + _FOR_EACH_KEY * len(keys) + 8 * sum(map(len, keys))  # a name stands in it some times
        if size <= _LARGEST_SHAPE:
            with self._lock:
                self._size += size
                if self._size > _SHAPES:
                    self._shapes.clear()
                    self._size = size
                self._shapes[keys] = shape
        return shape

    def _handed_on(self, key: str) -> bool:
        if key.startswith(("HTTP_", "CONTENT_")):
            return False  # they go as what they are
        return key in self._exact or bool(self._prefixes and key.startswith(self._prefixes))


def _getter(keys: list[str]) -> Callable[[Environ], tuple[str, ...]]:
    """A function that gives the values of some keys, always as a tuple."""
    if len(keys) > 1:
        return itemgetter(*keys)
    return lambda environ: tuple(environ[key] for key in keys)


def _gaps(names: Iterable[str]) -> str:
    """Lines whose values are still to be filled in."""
    return "".join(f"{name.replace('%', '%%')}: %s\r\n" for name in names)


def _checked(text: str, lines: int) -> str:
    """A text of so many lines, none of which the visitor has broken."""
    if text.count("\n") != lines or text.count("\r") != lines or "\0" in text:
        raise BadRequest("A line break or NUL stands within a header")
    return text


def end(caller_key: str, generation: int, verdict: Verdict) -> bytes:
    """The end of a head: what is for one AppServer alone."""
    session = "none" if verdict is Verdict.FORGED else verdict.value
    return (
        f"{headers.KEY}: {caller_key}\r\n{headers.GENERATION}: {generation}\r\n{headers.SESSION}: {session}\r\n\r\n"
    ).encode("ascii")


def url(environ: Environ) -> str:
    """Method and path of a request for the log: without the query, which may hold secrets, and not without end."""
    path = environ.get("SCRIPT_NAME", "") + environ.get("PATH_INFO", "")
    text = f"{encode(environ['REQUEST_METHOD'])} {quote_from_bytes(path.encode('latin-1'), _PATH_SAFE)}"
    return text if len(text) <= _LONGEST_URL else f"{text[:_LONGEST_URL]}..."


def body_length(environ: Environ) -> int | None:
    """The length of the body in bytes; None when it ends where the input ends. Raises BadRequest."""
    length = environ.get("CONTENT_LENGTH", "")
    if length:
        if not (length.isascii() and length.isdigit() and len(length) < 19):
            raise BadRequest("Content-Length is no number of bytes")
        return int(length)
    return None if environ.get("HTTP_TRANSFER_ENCODING", "").lower() == "chunked" else 0


def may_be_short(environ: Environ) -> bool:
    """Whether a body that is shorter than its Content-Length may be whole, a filter of Apache's having shortened it.

    Where the adaptor runs within Apache's own processes, a connection that broke is an error of reading. mod_wsgi's
    daemon mode and CGI see an end like any other (seen with mod_wsgi 4.9 and 6.1, mod_cgid 2.4): there, only a coding
    that mod_deflate takes away tells that it may be so.
    """
    return environ.get("mod_wsgi.process_group") == "" or bool(environ.get("HTTP_CONTENT_ENCODING"))


def refuse_lost(environ: Environ) -> None:
    """For a body without a length that seems to be empty: raise LengthRequired where it may have been lost.

    mod_wsgi's daemon mode hands on none that comes so by HTTP/2 (seen with 4.9 and 6.1).
    """
    if environ.get("mod_wsgi.process_group") and environ.get("SERVER_PROTOCOL", "").startswith("HTTP/2"):
        raise LengthRequired("By HTTP/2 this server takes a body only with its Content-Length")


def _field(key: str) -> str:
    """`HTTP_X_FOO` → `X-Foo`; empty for what is not handed on, a visitor's own LB- headers first of all."""
    if key == "CONTENT_TYPE":
        return "Content-Type"
    if not key.startswith("HTTP_"):
        return ""
    name = key[5:].replace("_", "-").lower()
    return "" if name in _DROPPED or name.startswith("lb-") else name.title()


def _default(key: str, environ: Environ) -> str:
    """For the few variables that not every gateway sets (CGI has no REQUEST_URI of its own: RFC 3875 §4.1)."""
    if key == "REQUEST_URI":
        path = environ.get("SCRIPT_NAME", "") + environ.get("PATH_INFO", "")
        query = environ.get("QUERY_STRING", "")
        return quote_from_bytes(path.encode("latin-1"), _PATH_SAFE) + (f"?{query}" if query else "")
    return {"REMOTE_PORT": "0", "SERVER_PROTOCOL": "HTTP/1.1", "wsgi.url_scheme": "http"}.get(key, "")
