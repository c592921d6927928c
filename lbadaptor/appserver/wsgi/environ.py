"""A caller's request → what the application sees (PEP 3333, RFC 9112). Pure.

The environ is built from the LB- headers, never re-derived from the request line (but for the query
string): so the application sees the path that Apache authorised.
"""

from __future__ import annotations

from typing import Any, ClassVar
from urllib.parse import unquote_to_bytes

from lbadaptor.contract import headers
from lbadaptor.contract.headers import METHODS, Refusal, decode
from lbadaptor.http1.lines import PLAIN_NAMES, Lines, Memory, NotHttp, is_name, length
from lbadaptor.log import logs

Environ = dict[str, Any]

_OURS = {
    name.lower(): name
    for name in (headers.KEY, headers.GENERATION, headers.SESSION, headers.PROBE, headers.PATH, headers.LENGTH)
}
"""What is between the caller and us, kept by its own name until it is looked at."""
_TOLD = {name.lower(): key for name, key in (headers.MANDATORY | headers.OPTIONAL).items()}
_TOLD[headers.VARIABLES.lower()] = headers.VARIABLES
_PREFIX = headers.PREFIX.lower()
_CONNECTION = "connection"
# A body that comes in chunks has no CONTENT_LENGTH: the application shall see why.
# HTTP_PROXY in a process' environment names a proxy: a visitor's must not pass for it (httpoxy, CVE-2016-5385).
_DROPPED = headers.HOP_BY_HOP - {"transfer-encoding", _CONNECTION} | {"proxy"}
_PLAIN = {"content-type": "CONTENT_TYPE", "content-length": "CONTENT_LENGTH", _CONNECTION: _CONNECTION}
_MANDATORY = frozenset(headers.MANDATORY.values())

_MINOR = {"HTTP/1.1": "1.1", "HTTP/1.0": "1.0"}


class Incomplete(Exception):
    """The LB- headers contradict each other."""

    refusal = Refusal.INCOMPLETE


class Request:
    """A request's head, without the empty line at its end. Raises NotHttp."""

    __slots__ = (
        *("chunked", "fields", "generation", "held", "keep_alive", "key", "length", "lost", "method", "path"),
        *("probe", "target", "version"),
    )

    def __init__(self, head: str) -> None:
        first, *lines = head.split("\r\n")
        self.method, self.target, self.version = _request_line(first)
        meanings = list(map(_meaning, lines))
        fields = dict(meanings)
        if len(fields) < len(lines) or None in fields:
            fields = _joined(lines, meanings)
        self.fields: dict[str, str] = fields  # type: ignore[assignment] # None was taken out
        """the visitor's headers, and what the caller tells of the visitor, by their keys in environ; the application
        may change its environ, but not this"""
        take = fields.pop
        self.key = take(headers.KEY, None)
        self.generation = take(headers.GENERATION, None)
        self.path = take(headers.PATH, None)
        session = take(headers.SESSION, None)
        self.held = session == "held"
        """by the adaptor's word it brought our ticket"""
        self.lost = session == "lost"
        """by the adaptor's word it brought the ticket of an AppServer that is gone"""
        self.probe = take(headers.PROBE) if headers.PROBE in fields else None
        if headers.VARIABLES in fields:
            del fields[headers.VARIABLES]
        self.keep_alive = self.version == "1.1"
        if _CONNECTION in fields and "close" in take(_CONNECTION).lower():
            self.keep_alive = False
        # How the body is framed (RFC 9112 §6.3).
        self.length = length(fields["CONTENT_LENGTH"]) if "CONTENT_LENGTH" in fields else 0
        self.chunked = "HTTP_TRANSFER_ENCODING" in fields
        if self.chunked:
            codings = fields["HTTP_TRANSFER_ENCODING"]
            if codings.lower() != "chunked" or "CONTENT_LENGTH" in fields or self.version == "1.0":
                raise NotHttp(f"Transfer-Encoding {codings[:40]!r}")
        if headers.LENGTH in fields:
            said = str(length(take(headers.LENGTH)))
            if self.chunked or "CONTENT_LENGTH" in fields:  # else there is no body, and it is nobody's word
                fields["CONTENT_LENGTH"] = said
                fields.pop("HTTP_TRANSFER_ENCODING", None)
        if "HTTP_HOST" in fields and not fields["HTTP_HOST"]:
            del fields["HTTP_HOST"]

    def missing(self) -> list[str]:
        """The names of the mandatory LB- headers that are not there."""
        if self.fields.keys() >= _MANDATORY and None not in (self.key, self.generation, self.path):
            return []
        ours = {headers.KEY: self.key, headers.GENERATION: self.generation, headers.PATH: self.path}
        names = [name for name, key in headers.MANDATORY.items() if key not in self.fields]
        return sorted([*names, *(name for name, value in ours.items() if value is None)])


def _request_line(line: str) -> tuple[str, str, str]:
    # The target is visible: without a space, for there it ends.
    try:
        method, target, version = line.split(" ")
        minor = _MINOR[version]
    except (ValueError, KeyError):
        raise NotHttp(f"{line[:40]!r} begins no request") from None
    if not (target and line.isascii() and line.isprintable() and (method in METHODS or is_name(method))):
        raise NotHttp(f"{line[:40]!r} begins no request")
    return method, target, minor


def _place(name: str) -> tuple[str | None, bool, bool]:
    """Of a header's name: its key, None if it is nobody's, or a variable's; whether the value is percent-encoded; and
    whether its lines may be kept.
    """
    if not is_name(name):
        raise NotHttp(f"{name[:40]!r} is no header's name")
    lower = name.lower()
    kept = lower in PLAIN_NAMES
    if lower in _OURS:
        return _OURS[lower], lower == headers.PATH.lower(), kept
    if lower in _TOLD:
        return _TOLD[lower], True, kept
    # As in mod_wsgi: an underscore could pass for a hyphen, and other signs stand in no variable's name.
    if lower.startswith(_PREFIX) or lower in _DROPPED or not name.replace("-", "").isalnum():
        return None, False, kept
    return _PLAIN.get(lower) or "HTTP_" + name.upper().replace("-", "_"), False, kept


_places = Memory(_place, 131072)


def _mean(name: str, value: str) -> tuple[str | None, str]:
    key, encoded, _ = _places[name]
    return key, decode(value) if encoded else value


class _Lines(Lines[tuple[str | None, str]]):
    """What lines mean. Those that may not be kept are of few names, mostly: these are read in one step."""

    own: ClassVar[dict[str, tuple[str | None, str]]] = {}
    """what is always kept"""

    def clear(self) -> None:
        super().clear()
        self.update(self.own)

    def __missing__(self, line: str) -> tuple[str | None, str]:
        if not (line.isascii() and line.isprintable()):
            return self.read(line)
        name, _, value = line.partition(": ")
        place = _places.get(name)
        if place is None:
            return self.read(line)
        key, encoded, kept = place
        value = value.strip(" ")
        if encoded and "%" in value:
            value = decode(value)
        if kept:
            self.keep(line, (key, value))
        return key, value


_lines = _Lines(_mean, 262144)
_meaning = _lines.__getitem__


def know_key(key: str) -> None:
    """Keep the line with the key that the callers of this very process show: it holds the key anyway."""
    line = f"{headers.KEY}: {key}"
    _lines.own[line] = _lines[line] = (headers.KEY, key)


def _joined(lines: list[str], meanings: list[tuple[str | None, str]]) -> dict[str | None, str]:
    """What lines mean of which some are nobody's, variables, or of the same name (RFC 9110 §5.3, RFC 9113 §8.2.3)."""
    fields: dict[str | None, str] = {}
    variables: dict[str, str] = {}
    for line, (key, value) in zip(lines, meanings, strict=True):
        if key is None:
            name = line.partition(":")[0].upper()
            if name.startswith(headers.VAR.upper()):
                if name in variables:
                    raise NotHttp(f"{name} is said twice")
                variables[name] = decode(value)
            continue
        if key in fields and key != "CONTENT_TYPE":
            if not (key.startswith("HTTP_") or key == _CONNECTION):
                raise NotHttp(f"{key} is said twice")
            value = f"{fields[key]}{'; ' if key == 'HTTP_COOKIE' else ', '}{value}"
        fields[key] = value
    told = fields.get(headers.VARIABLES)
    known = None if told is None else told.upper().split()
    for name, value in variables.items():
        short = name[len(headers.VAR) :]
        if known is None or short in known:
            fields[short.replace("-", "_")] = value
    return fields


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
    """The environ of a request that a person sent to an AppServer that runs alone, without Apache."""
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
    }
