"""Regular expressions for the paths that Apache's directives name. Pure."""

from __future__ import annotations

import re

_UNREADABLE = re.compile(r"(?<!\\)((?:\\\\)*)\\?([\udc80-\udcff])")
"""A byte that is not UTF-8 (PEP 383), with the backslash that it may have before it."""
_CLASS = re.compile(r"\[(?:([!^])|(?![!^]))((?:\\[^/]|[^\\/])(?:\\[^/]|[^]\\/])*)\]")
_RANGE = re.compile(r"\\?([\s\S])(?:-\\?([\s\S]))?")


def is_wildcard(path: str) -> bool:
    """Whether <Location> takes a path for a pattern, as apr_fnmatch_test does."""
    return re.search(r"[*?]|\[.*\]", re.sub(r"\\.", "", path)) is not None


def wildcard(pattern: str) -> str:
    """What apr_fnmatch with APR_FNM_PATHNAME matches: no wildcard matches a slash, and nothing may follow."""
    found = []
    while pattern:
        if in_brackets := _CLASS.match(pattern):
            found.append(_one_of(in_brackets[2], negated=bool(in_brackets[1])))
            pattern = pattern[in_brackets.end() :]
            continue
        sign, pattern = pattern[0], pattern[1:]
        if sign == "\\" and pattern:
            sign, pattern = pattern[0], pattern[1:]
            found.append(re.escape(sign))
        else:
            found.append({"*": "[^/]*", "?": "[^/]"}.get(sign) or re.escape(sign))
    return "".join(found) + "$"


def plain(pattern: str) -> str:
    r"""A pattern with bytes that are not UTF-8 as `\xe9`, so that the file which holds it is a text.

    Within `\Q` this is not possible; there the byte stays, and `quoted` refuses it.
    """
    return pattern if r"\Q" in pattern else _UNREADABLE.sub(_in_hex, pattern)


def _in_hex(found: re.Match[str]) -> str:
    return rf"{found[1]}\x{ord(found[2]) - 0xDC00:02x}"


def _one_of(signs: str, negated: bool) -> str:
    """A class. A range that goes backwards has no characters here; in a regular expression it is an error."""
    ranges = [(first, last or first) for first, last in _RANGE.findall(signs)]
    there = "".join(
        re.escape(first) + (f"-{re.escape(last)}" if first < last else "") for first, last in ranges if first <= last
    )
    return f"[^/{there}]" if negated else f"(?!/)[{there}]" if there else "(?!)"
