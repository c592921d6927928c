"""Reads `Cookie` and `Set-Cookie` (RFC 6265). Pure. Nothing raises: what is malformed is ignored."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timezone
from functools import cached_property, lru_cache
from typing import NamedTuple

_MAX_AGE = re.compile(r"-?[0-9]+").fullmatch
# The delimiters and the parts of a date (RFC 6265 §5.1.1). Of a part, the first characters count.
_DELIMITERS = re.compile(r"[\t\x20-\x2f\x3b-\x40\x5b-\x60\x7b-\x7e]+")
_TIME = re.compile(r"(\d{1,2}):(\d{1,2}):(\d{1,2})(?!\d)", re.ASCII).match
_DAY = re.compile(r"(\d{1,2})(?!\d)", re.ASCII).match
_YEAR = re.compile(r"(\d{2,4})(?!\d)", re.ASCII).match
_MONTHS = ("jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec")
_MAX_DATE = 100


def values(header: str, name: str, only_ascii: bool = True) -> list[str]:
    """All values of one cookie in a `Cookie` header, in the visitor's order. `only_ascii`: leave out all others."""
    found = []
    if name in header:
        for pair in header.split(";"):
            if name in pair:
                key, equals, value = pair.partition("=")
                if equals and key.strip() == name and (value.isascii() or not only_ascii):
                    found.append(unquote(value))
    return found


def finder(name: str) -> Callable[[str], list[str]]:
    """A function that returns what `values` returns for this cookie, and takes a short way for the usual header."""
    usual = re.compile(rf"(?:^|; ?){re.escape(name)}=([!#-:<-~]*)(?:;|$)").search

    def find(header: str) -> list[str]:
        found = usual(header) if header.count(name) == 1 else None
        return [found[1]] if found else values(header, name)

    return find


def unquote(value: str) -> str:
    """A cookie's value without surrounding white space and quotes."""
    value = value.strip()
    return value[1:-1] if value[:1] == '"' == value[-1:] and len(value) > 1 else value


class Scope(NamedTuple):
    """The hosts and paths to which a browser sends a cookie."""

    domain: str
    """in lower case, without a leading dot"""
    path: str

    def sent_to(self, host: str, uri: str) -> bool:
        """Whether a browser sends a cookie of this scope with such a request (RFC 6265 §5.1.3, §5.1.4)."""
        if host != self.domain and not host.endswith(f".{self.domain}"):
            return False
        path = path_of(uri)
        return path == self.path or path.startswith(self.path if self.path.endswith("/") else f"{self.path}/")


def host_of(header: str) -> str:
    """The host that a `Host` header names, in lower case."""
    host = header.strip().lower()
    return host.partition("]")[0] + "]" if host.startswith("[") else host.partition(":")[0]


def path_of(uri: str) -> str:
    """The path of a request target, which may be an absolute URL (RFC 9112 §3.2)."""
    if not uri.startswith("/"):
        uri = "/" + uri.partition("://")[2].partition("/")[2]
    return uri.partition("?")[0].partition("#")[0]


def default_path(uri: str) -> str:
    """The path of a cookie without a Path attribute (RFC 6265 §5.1.4)."""
    return path_of(uri).rpartition("/")[0] or "/"


def date(text: str) -> float | None:
    """The time of `Expires` in unix time; None if it cannot be read (RFC 6265 §5.1.1)."""
    return _date(text[:_MAX_DATE])


@lru_cache(maxsize=64)  # of at most _MAX_DATE characters; one answer is asked several times, and others say the same
def _date(text: str) -> float | None:
    clock: tuple[int, int, int] | None = None
    day = month = year = None
    for token in _DELIMITERS.split(text):
        if clock is None and (found := _TIME(token)):
            clock = int(found[1]), int(found[2]), int(found[3])
        elif day is None and (found := _DAY(token)):
            day = int(found[1])
        elif month is None and token[:3].lower() in _MONTHS:
            month = _MONTHS.index(token[:3].lower()) + 1
        elif year is None and (found := _YEAR(token)):
            year = int(found[1])
    if clock is None or day is None or month is None or year is None:
        return None
    year += 1900 if 70 <= year <= 99 else 2000 if year < 70 else 0
    if year < 1601:
        return None
    try:
        return datetime(year, month, day, *clock, tzinfo=timezone.utc).timestamp()
    except ValueError:
        return None  # no such day or time of day


@dataclass(frozen=True)
class SetCookie:
    """One `Set-Cookie`. `attributes` keep the application's spelling."""

    name: str
    value: str
    attributes: tuple[str, ...]

    @classmethod
    def parse(cls, header: str) -> SetCookie | None:
        """Read the value of a header; None if it sets no cookie."""
        pair, *attributes = header.split(";")
        name, equals, value = pair.partition("=")
        if not equals or not name.strip():
            return None
        return cls(name.strip(), unquote(value), tuple(attribute.strip() for attribute in attributes))

    def attribute(self, name: str) -> str | None:
        """The last value of an attribute (RFC 6265 §5.3); "" if it has none; None if there is no such attribute."""
        values = self._values(name)
        return values[0] if values else None

    def _values(self, name: str) -> list[str]:
        """All values of an attribute, the last one first."""
        found = []
        for attribute in reversed(self.attributes):
            key, _, value = attribute.partition("=")
            if key.strip().lower() == name:
                found.append(value.strip())
        return found

    def scope(self, host: str, uri: str) -> Scope:
        """The scope of the cookie when this host sets it in an answer for this URI (RFC 6265 §5.3).

        Name and scope identify a cookie: one of the same name and scope replaces it.
        """
        # Without a value, Domain is ignored; Path is the default one (§5.2.3, §5.2.4).
        domain = next((value for value in self._values("domain") if value), host)
        path = self.attribute("path") or ""
        return Scope(domain.removeprefix(".").lower(), path if path.startswith("/") else default_path(uri))

    def lifetime(self, now: float) -> float | None:
        """Seconds for which a browser keeps it; None: until the browser ends. `now` is unix time.

        Max-Age takes precedence over Expires (RFC 6265 §4.1.2.2). A value that cannot be read is ignored.
        """
        age, moment = self._end
        return moment - now if age is None and moment is not None else age

    @cached_property
    def _end(self) -> tuple[float | None, float | None]:
        """Max-Age, and the time of Expires, as far as they can be read and the first does not decide."""
        for age in self._values("max-age"):
            if _MAX_AGE(age):
                return float(age), None
        moments = (date(expires) for expires in self._values("expires"))
        return None, next((moment for moment in moments if moment is not None), None)

    def deletes(self, now: float) -> bool:
        """Whether it deletes the cookie: the value is empty, or it has expired."""
        lifetime = self.lifetime(now)
        return self.value == "" or (lifetime is not None and lifetime <= 0)
