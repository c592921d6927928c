"""The environ that the application gets for a request (PEP 3333). Pure.

The environ is built from the LB- headers, so the application sees the path that Apache authorised. Only the query
string comes from the request line.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any
from urllib.parse import unquote_to_bytes

from lbadaptor.contract import headers
from lbadaptor.contract.headers import Refusal, decode
from lbadaptor.http1 import framing
from lbadaptor.http1.lines import ProtocolError
from lbadaptor.http1.request import (
    CONNECTION,
    CONTENT_LENGTH,
    CONTENT_TYPE,
    TRANSFER_ENCODING,
    RequestFields,
    RequestHead,
)
from lbadaptor.log import logs

Environ = dict[str, Any]

_OWN_NAMES = {
    name.lower(): name for name in (headers.KEY, headers.GENERATION, headers.SESSION, headers.PROBE, headers.LENGTH)
}
"""Fields between the caller and this AppServer; `Request` takes them out."""
_ENCODED = {name.lower(): key for name, key in (headers.MANDATORY | headers.OPTIONAL).items()}
"""Fields that stand for a key of environ, percent-encoded."""
_ENCODED[headers.PATH.lower()] = headers.PATH
_ENCODED[headers.VARIABLES.lower()] = headers.VARIABLES
_PREFIX = headers.PREFIX.lower()
_REQUEST_ID = headers.REQUEST_ID.lower()
REQUEST_ID = "lbadaptor.request_id"
"""The key of environ for the request's id; missing where Apache has none."""
_VARIABLE = headers.VAR.upper()
_NAMES = {"content-type": CONTENT_TYPE, "content-length": CONTENT_LENGTH, "connection": CONNECTION}
# Transfer-Encoding is kept: it tells the application why a body in chunks has no CONTENT_LENGTH.
# Proxy is dropped: HTTP_PROXY in a process' environment names a proxy, and a visitor must not (httpoxy,
# CVE-2016-5385).
_DROPPED = headers.HOP_BY_HOP - {"transfer-encoding", "connection"} | {"proxy"}
_MANDATORY = frozenset(headers.MANDATORY.values())


class Incomplete(Exception):
    """The LB- headers contradict each other."""

    refusal = Refusal.INCOMPLETE


def _read_name(name: str) -> Callable[[str], tuple[str | None, str]]:
    """For a field's value: its key in environ, None if it has none, and the decoded value."""
    lower = name.lower()
    if lower in _ENCODED:
        encoded_key = _ENCODED[lower]
        return lambda value: (encoded_key, decode(value))
    if lower == _REQUEST_ID:
        return lambda value: (REQUEST_ID if headers.request_id(value) else None, value)
    key: str | None
    if lower in _OWN_NAMES:
        key = _OWN_NAMES[lower]
    # As in mod_wsgi: an underscore could be taken for a hyphen, and no variable's name holds other signs.
    elif lower.startswith(_PREFIX) or lower in _DROPPED or not name.replace("-", "").isalnum():
        key = None
    else:
        key = _NAMES.get(lower) or "HTTP_" + name.upper().replace("-", "_")
    return lambda value: (key, value)


class _Fields(RequestFields):
    """The fields of a request, and the variables that Apache set."""

    def combine(self, lines: list[str]) -> dict[str, str]:
        fields = super().combine(lines)
        variables: dict[str, str] = {}
        for line in lines:
            name, _, value = line.partition(":")
            name = name.upper()
            if name.startswith(_VARIABLE):
                if name in variables:
                    raise ProtocolError(f"{name} is said twice")
                variables[name] = decode(value.strip(" \t"))
        named = fields.get(headers.VARIABLES)
        believed = None if named is None else named.upper().split()
        for name, value in variables.items():
            short = name[len(_VARIABLE) :]
            if believed is None or short in believed:
                fields[short.replace("-", "_")] = value
        return fields


fields_of_lines = _Fields(_read_name, 262144)
"""The memo of lines: what each one means."""


def know_key(key: str) -> None:
    """Keep the line with the caller key of this process in the memo. The process holds the key anyway."""
    fields_of_lines.pin(f"{headers.KEY}: {key}")


class Request(RequestHead):
    """A request's head, without the empty line at its end. Raises ProtocolError.

    `fields`: the visitor's headers, and what the LB- headers say of the visitor, by their keys in environ. The
    application may change its environ, but not this.
    """

    __slots__ = ("fast", "generation", "held", "key", "lost", "nothing_missing", "path", "probe", "since", "timed")

    since: float
    """when its head had come, in monotonic seconds; set only where somebody asks"""

    def __init__(self, text: str) -> None:
        RequestHead.__init__(self, text, fields_of_lines)
        fields = self.fields
        take = fields.pop
        self.nothing_missing = False
        """nothing is `missing`; False where that has to be asked"""
        self.key = take(headers.KEY, None)
        self.generation = take(headers.GENERATION, None)
        self.path = take(headers.PATH, None)
        session = take(headers.SESSION, None)
        self.held = session == "held"
        """the adaptor says that the request brought this AppServer's ticket"""
        self.lost = session == "lost"
        """the adaptor says that the request brought the ticket of an AppServer that is gone"""
        self.probe = take(headers.PROBE) if headers.PROBE in fields else None
        self.fast = headers.VARIABLES in fields
        """it came by the fast lane"""
        self.timed = self.fast and headers.TIME in take(headers.VARIABLES).split()
        """Apache asks how long the answer took"""
        if headers.LENGTH in fields:
            said = str(framing.length(take(headers.LENGTH)))
            if CONTENT_LENGTH in fields or TRANSFER_ENCODING in fields:  # otherwise there is no body
                fields[CONTENT_LENGTH] = said
                fields.pop(TRANSFER_ENCODING, None)
        if "HTTP_HOST" in fields and not fields["HTTP_HOST"]:
            del fields["HTTP_HOST"]

    def missing(self) -> list[str]:
        """The names of the mandatory LB- headers that are not there."""
        if self.fields.keys() >= _MANDATORY and None not in (self.key, self.generation, self.path):
            return []
        ours = {headers.KEY: self.key, headers.GENERATION: self.generation, headers.PATH: self.path}
        names = [name for name, key in headers.MANDATORY.items() if key not in self.fields]
        return sorted([*names, *(name for name, value in ours.items() if value is None)])


def build(request: Request, base: Environ) -> Environ:
    """The environ of a request of which nothing is `missing`. Raises Incomplete."""
    fields, path = request.fields, request.path
    script_name = fields["SCRIPT_NAME"]
    if path is None or not path.startswith(script_name):
        raise Incomplete(f"{headers.PATH} does not begin with {headers.SCRIPT_NAME}")
    return {
        **base,
        "REQUEST_METHOD": request.method,
        "QUERY_STRING": request.target.partition("?")[2],
        **fields,
        "PATH_INFO": path[len(script_name) :],
    }


def build_alone(request: Request, base: Environ, peer: tuple[str, int], server: tuple[str, int]) -> Environ:
    """The environ of a request to an AppServer that runs alone, without Apache."""
    path, _, query = request.target.partition("?")
    fields = {key: value for key, value in request.fields.items() if key.startswith(("HTTP_", "CONTENT_"))}
    return {
        **base,
        "REQUEST_METHOD": request.method,
        "SCRIPT_NAME": "",
        "PATH_INFO": unquote_to_bytes(path.encode("latin-1")).decode("latin-1"),
        "QUERY_STRING": query,
        "REQUEST_URI": request.target,
        "SERVER_NAME": server[0],
        "SERVER_PORT": str(server[1]),
        "SERVER_PROTOCOL": f"HTTP/{request.version}",
        "REMOTE_ADDR": peer[0],
        "REMOTE_PORT": str(peer[1]),
        "wsgi.url_scheme": "http",
        **fields,
    }


def base_environ(slot: int, generation: int, threads: int, file_wrapper: object) -> Environ:
    """What is the same in every environ of an AppServer."""
    return {
        "wsgi.version": (1, 0),
        "wsgi.errors": logs.errors,
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
        "lbadaptor.session_moved": False,
    }
