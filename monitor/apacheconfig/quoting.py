"""How a text stands in Apache's configuration. Pure."""

from __future__ import annotations

import re

from lbadaptor.contract.errors import SettingsError

is_plain = re.compile(r"[\w/.+@~-]+", re.ASCII).fullmatch
"""Of a path without signs that mod_rewrite or a URL interprets."""


def quoted(text: str, before: str = "") -> str:
    """A word of Apache's configuration: within quotes, a backslash before a quote or another backslash counts.

    `before` begins the word. Raises SettingsError for what no quotes help against.
    """
    if "${" in text or not text.isprintable():
        raise SettingsError(f"{text!r} cannot stand in Apache's configuration: it has control characters or ${{")
    return f'"{before}' + re.sub(r'\\(?=[\\"])|\\$|"', r"\\\g<0>", text) + '"'


def comment(text: str) -> list[str]:
    """Lines of a comment. A backslash at the end of a line would take the next one into the comment."""
    printable = ("".join(sign if sign.isprintable() else " " for sign in line) for line in text.splitlines())
    return [f"# {line}".rstrip("\\ ") for line in printable]
