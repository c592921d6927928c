"""A caller's request → what the application sees (PEP 3333). Pure.

The environ is built from the LB- headers, never re-derived from the request line (but for the query
string): so the application sees the path that Apache authorised.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable
from enum import Enum
from typing import Any
from urllib.parse import unquote_to_bytes

from lbadaptor import headers
from lbadaptor.headers import Refusal, decode

Environ = dict[str, Any]

_OURS = {
    name.lower(): name for name in (headers.KEY, headers.GENERATION, headers.SESSION, headers.PROBE, headers.PATH)
}
_TOLD = {name.lower(): key for name, key in (headers.MANDATORY | headers.OPTIONAL).items()}
_VAR = headers.VAR.lower()
_PREFIX = headers.PREFIX.lower()
# A body that comes in chunks has no CONTENT_LENGTH: the application shall see why.
_DROPPED = headers.HOP_BY_HOP - {"transfer-encoding"}
_PLAIN = {"content-type": "CONTENT_TYPE", "content-length": "CONTENT_LENGTH"}
_ONCE = frozenset(_PLAIN.values())

_MANDATORY_TOLD = frozenset(headers.MANDATORY.values())
_MANDATORY_OURS = frozenset((headers.KEY, headers.GENERATION, headers.PATH))


class _Kind(Enum):
    FIELD = "the visitor's"
    TOLD = "the caller's word on the visitor"
    OURS = "between the caller and us"
    NOBODYS = "dropped"


_FIELD, _CALLERS = _Kind.FIELD, _Kind.TOLD  # an enum's own look-up takes longer


class Incomplete(Exception):
    """The LB- headers contradict each other."""

    refusal = Refusal.INCOMPLETE


class Request:
    """A request's head. Its headers are read in one pass into what they become in environ."""

    __slots__ = ("fields", "method", "own", "target", "told", "version")

    def __init__(self, method: str, target: bytes, version: str, lines: Iterable[tuple[bytes, bytes]] = ()) -> None:
        self.method = method
        self.target = target
        self.version = version
        self.fields: dict[str, str] = {}
        """the visitor's headers, by their keys in environ"""
        self.told: dict[str, str] = {}
        """what the caller tells of the visitor, by its keys in environ"""
        self.own: dict[str, bytes] = {}
        """what is between the caller and us: LB-Key, LB-Generation, LB-Session, LB-Probe; and LB-Path"""
        fields, told, own = self.fields, self.told, self.own
        for name, value in lines:
            kind, key = _places.get(name) or _place(name)
            value = value.rstrip(b" \t")  # white space is no part of it (RFC 9110 §5.5)
            if kind is _FIELD:
                text = value.decode("latin-1")
                if key in fields and key not in _ONCE:
                    text = f"{fields[key]}{'; ' if key == 'HTTP_COOKIE' else ', '}{text}"
                fields[key] = text
            elif kind is _CALLERS:
                told[key] = decode(value)
            elif kind is _Kind.OURS:
                own[key] = value
        if not fields.get("HTTP_HOST", "x"):
            del fields["HTTP_HOST"]

    @property
    def held(self) -> bool:
        """By the adaptor's word it brought our ticket."""
        return self.own.get(headers.SESSION) == b"held"

    @property
    def lost(self) -> bool:
        """By the adaptor's word it brought the ticket of an AppServer that is gone."""
        return self.own.get(headers.SESSION) == b"lost"

    @property
    def mount(self) -> str:
        """SCRIPT_NAME, which the application may change in its environ."""
        return self.told.get("SCRIPT_NAME", "")

    @property
    def https(self) -> bool:
        return self.told.get("wsgi.url_scheme") == "https"

    def missing(self) -> list[str]:
        """The names of the mandatory LB- headers that are not there."""
        if self.told.keys() >= _MANDATORY_TOLD and self.own.keys() >= _MANDATORY_OURS:
            return []
        names = [name for name, key in headers.MANDATORY.items() if key not in self.told]
        return sorted([*names, *(_MANDATORY_OURS - self.own.keys())])

    def has_body(self) -> bool:
        """Whether its head announces one (RFC 9112 §6)."""
        return "HTTP_TRANSFER_ENCODING" in self.fields or bool(self.fields.get("CONTENT_LENGTH", "").strip("0"))


_places: dict[bytes, tuple[_Kind, str]] = {}
_MOST_PLACES = 512
"""Visitors make up names."""


def _place(name: bytes) -> tuple[_Kind, str]:
    """Where a header belongs, and its key there. Known from now on."""
    place = _found(name.decode("latin-1"))
    if len(_places) < _MOST_PLACES:
        _places[name] = place
    return place


def _found(name: str) -> tuple[_Kind, str]:
    lower = name.lower()
    if lower in _OURS:
        return _Kind.OURS, _OURS[lower]
    if lower in _TOLD:
        return _Kind.TOLD, _TOLD[lower]
    if lower.startswith(_VAR):
        return _Kind.TOLD, name[len(_VAR) :].upper().replace("-", "_")
    if lower.startswith(_PREFIX) or "_" in name or lower in _DROPPED:  # an underscore could pass for a hyphen
        return _Kind.NOBODYS, ""
    return _Kind.FIELD, _PLAIN.get(lower) or "HTTP_" + name.upper().replace("-", "_")


def build(request: Request, base: Environ) -> Environ:
    """The environ of a request of which nothing is `missing`. Raises Incomplete."""
    told = request.told
    path = decode(request.own[headers.PATH])
    script_name = told["SCRIPT_NAME"]
    if not path.startswith(script_name):
        raise Incomplete(f"{headers.PATH} does not begin with {headers.SCRIPT_NAME}")
    return {
        **base,
        "REQUEST_METHOD": request.method,
        "QUERY_STRING": request.target.partition(b"?")[2].decode("latin-1"),
        **request.fields,
        **told,
        "PATH_INFO": path[len(script_name) :],
    }


def build_alone(request: Request, base: Environ, peer: tuple[str, int], server: tuple[str, int]) -> Environ:
    """The environ of a request that a person sent to an AppServer that runs alone, without Apache."""
    path, _, query = request.target.partition(b"?")
    return {
        **base,
        "REQUEST_METHOD": request.method,
        "SCRIPT_NAME": "",
        "PATH_INFO": unquote_to_bytes(path).decode("latin-1"),
        "QUERY_STRING": query.decode("latin-1"),
        "REQUEST_URI": request.target.decode("latin-1"),
        "SERVER_NAME": server[0],
        "SERVER_PORT": str(server[1]),
        "SERVER_PROTOCOL": f"HTTP/{request.version}",
        "REMOTE_ADDR": peer[0],
        "REMOTE_PORT": str(peer[1]),
        "wsgi.url_scheme": "http",
        **request.fields,
    }


def base_environ(slot: int, generation: int, threads: int, file_wrapper: object) -> Environ:
    """What is the same in every environ of an AppServer."""
    return {
        "wsgi.version": (1, 0),
        "wsgi.errors": sys.stderr,
        "wsgi.multithread": threads > 1,
        "wsgi.multiprocess": True,
        "wsgi.run_once": False,
        "wsgi.file_wrapper": file_wrapper,
        "wsgi.input_terminated": True,
        "SERVER_SOFTWARE": "lbadaptor",
        "GATEWAY_INTERFACE": "CGI/1.1",
        "lbadaptor.slot": slot,
        "lbadaptor.generation": generation,
        "lbadaptor.session_lost": False,
    }
