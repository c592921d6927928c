"""A caller's request → what the application sees (PEP 3333). Pure.

The environ is built from the LB- headers, never re-derived from the request line (but for the query
string): so the application sees the path that Apache authorised.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import unquote_to_bytes

from lbadaptor import headers
from lbadaptor.headers import Refusal, decode

Environ = dict[str, Any]

_MANDATORY = {name.lower().encode(): key for name, key in headers.MANDATORY.items()}
_OPTIONAL = {name.lower().encode(): key for name, key in headers.OPTIONAL.items()}
_VAR = headers.VAR.lower().encode()
_PATH = headers.PATH.lower().encode()
_PREFIX = headers.PREFIX.lower().encode()
_DROPPED = frozenset(name.encode() for name in headers.HOP_BY_HOP)

KEY = headers.KEY.lower().encode()
GENERATION = headers.GENERATION.lower().encode()
SESSION = headers.SESSION.lower().encode()
PROBE = headers.PROBE.lower().encode()

MANDATORY = frozenset((*_MANDATORY, _PATH, KEY, GENERATION))
"""What every caller sends."""


class Incomplete(Exception):
    """The LB- headers contradict each other."""

    refusal = Refusal.INCOMPLETE


@dataclass
class Request:
    """A request's head, as it was parsed."""

    method: str
    target: bytes
    version: str
    lb: dict[bytes, bytes] = field(default_factory=dict)
    """LB- headers, names in lower case"""
    fields: list[tuple[bytes, bytes]] = field(default_factory=list)
    """the visitor's headers, names in lower case"""

    def add(self, name: bytes, value: bytes) -> None:
        """Take a header. Names with an underscore are dropped: in environ they could pass for others."""
        name = name.lower()
        value = value.rstrip(b" \t")  # no part of it (RFC 9110 §5.5)
        if name.startswith(_PREFIX):
            self.lb[name] = value
        elif b"_" not in name:
            self.fields.append((name, value))

    def has_body(self) -> bool:
        """Whether its head announces one (RFC 9112 §6)."""
        return any(
            name == b"transfer-encoding" or (name == b"content-length" and value.strip(b"0"))
            for name, value in self.fields
        )


def build(request: Request, base: Environ) -> Environ:
    """The environ of a request that an adaptor sent, with all that is MANDATORY. Raises Incomplete."""
    environ = dict(base)
    lb = request.lb
    for name, key in _MANDATORY.items():
        environ[key] = decode(lb[name])
    path = decode(lb[_PATH])
    script_name = environ["SCRIPT_NAME"]
    if not path.startswith(script_name):
        raise Incomplete(f"{headers.PATH} does not begin with {headers.SCRIPT_NAME}")
    environ["PATH_INFO"] = path[len(script_name) :]
    environ["REQUEST_METHOD"] = request.method
    environ["QUERY_STRING"] = request.target.partition(b"?")[2].decode("latin-1")
    for name, key in _OPTIONAL.items():
        if name in lb:
            environ[key] = decode(lb[name])
    for name, value in lb.items():
        if name.startswith(_VAR):
            environ[name[len(_VAR) :].upper().replace(b"-", b"_").decode("latin-1")] = decode(value)
    _add_fields(environ, request.fields)
    return environ


def build_alone(request: Request, base: Environ, peer: tuple[str, int], server: tuple[str, int]) -> Environ:
    """The environ of a request that a person sent to an AppServer that runs alone, without Apache."""
    environ = dict(base)
    path, _, query = request.target.partition(b"?")
    environ.update(
        {
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
        }
    )
    _add_fields(environ, request.fields)
    return environ


def _add_fields(environ: Environ, fields: Iterable[tuple[bytes, bytes]]) -> None:
    for name, value in fields:
        if name == b"content-type":
            environ["CONTENT_TYPE"] = value.decode("latin-1")
        elif name == b"content-length":
            environ["CONTENT_LENGTH"] = value.decode("latin-1")
        elif name not in _DROPPED:
            key = _key(name)
            text = value.decode("latin-1")
            if key in environ:
                text = f"{environ[key]}{'; ' if key == 'HTTP_COOKIE' else ', '}{text}"
            environ[key] = text


_KEYS: dict[bytes, str] = {}
_MAX_KEYS = 512


def _key(name: bytes) -> str:
    key = _KEYS.get(name)
    if key is None:
        key = "HTTP_" + name.decode("latin-1").upper().replace("-", "_")
        if len(_KEYS) < _MAX_KEYS:
            _KEYS[name] = key
    return key


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
