"""Reading `Cookie` and `Set-Cookie` (RFC 6265). Pure, and never an error: what is odd is passed over."""

from __future__ import annotations

import re
from dataclasses import dataclass
from email.utils import parsedate_to_datetime

_MAX_AGE = re.compile(r"-?[0-9]+").fullmatch


def values(header: str, name: str) -> list[str]:
    """All values of one cookie in a `Cookie` header, in the visitor's order; not ASCII: left out."""
    found = []
    if name in header:
        for pair in header.split(";"):
            if name in pair:
                key, equals, value = pair.partition("=")
                if equals and key.strip() == name and value.isascii():
                    found.append(unquote(value))
    return found


def unquote(value: str) -> str:
    """A cookie's value without surrounding white space and quotes."""
    value = value.strip()
    return value[1:-1] if value[:1] == '"' == value[-1:] and len(value) > 1 else value


@dataclass(frozen=True)
class SetCookie:
    """One `Set-Cookie`, as far as its fate matters. `attributes` keeps the application's own spelling."""

    name: str
    value: str
    attributes: tuple[str, ...]

    @classmethod
    def parse(cls, header: str) -> SetCookie | None:
        """Read a header's value; None when it sets no cookie."""
        pair, *attributes = header.split(";")
        name, equals, value = pair.partition("=")
        if not equals or not name.strip():
            return None
        return cls(name.strip(), unquote(value), tuple(attribute.strip() for attribute in attributes))

    def attribute(self, name: str) -> str | None:
        """The last value of an attribute (RFC 6265 §5.3), "" where it has none; None when it is absent."""
        for attribute in reversed(self.attributes):
            key, _, value = attribute.partition("=")
            if key.strip().lower() == name:
                return value.strip()
        return None

    def lifetime(self, now: float) -> float | None:
        """Seconds that the visitor keeps it; None: as long as the browser runs. `now` is unix time.

        Max-Age wins over Expires (RFC 6265 §4.1.2.2); one that cannot be read is ignored.
        """
        age = self.attribute("max-age")
        if age and _MAX_AGE(age):
            return float(age)
        expires = self.attribute("expires")
        if expires:
            try:
                return parsedate_to_datetime(expires).timestamp() - now
            except (ValueError, OverflowError):
                return None
        return None

    def deletes(self, now: float) -> bool:
        """Whether it takes the cookie away: emptied, or expired already."""
        lifetime = self.lifetime(now)
        return self.value == "" or (lifetime is not None and lifetime <= 0)
