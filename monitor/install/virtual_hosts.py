"""The virtual hosts of an Apache configuration, and the line in them that includes an application. Pure.

mod_rewrite's rules of the server do not hold in virtual hosts, so the fast lane has to stand in each one.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Iterator
from pathlib import Path

from monitor.apacheconfig import apache_check
from monitor.apacheconfig.directives import Directive, directives
from monitor.install.wanted import APACHE

DEBIANS_SITES = ("000-default.conf", "default-ssl.conf")
"""The default site of Debian's Apache: who comes with a host's name that no other site has, gets this one."""
_BEGIN = re.compile(r"\s*<VirtualHost\b", re.IGNORECASE).match
_END = re.compile(r"\s*</VirtualHost\s*>", re.IGNORECASE).match
_APPLICATION = re.compile(rf"\s*Include {APACHE}/lbadaptor-[\w-]+\.conf\s*").fullmatch
_NAMES = re.compile(r"\s*(?:ServerName|ServerAlias)\s+(.*)", re.IGNORECASE).match


def port(dump: str) -> int:
    """The first one that Apache listens on without TLS."""
    for one in directives(dump):
        if one.name == "listen" and one.words[1:2] != ["https"]:
            last = one.words[0].rpartition(":")[2]
            if last.isdigit() and last != "443":
                return int(last)
    return 80


def files(dump: str, host: str) -> list[str]:
    """The files with the virtual hosts of a host; without one, of Debian's default site."""
    return list({one.place.file: None for one in directives(dump) if one.host and _is_of(one, host)})


def numbers(dump: str, host: str) -> set[int]:
    """Which virtual hosts are those of `files` (`Directive.host`)."""
    return {one.host for one in directives(dump) if one.host and _is_of(one, host)}


def has_adaptor(dump: str, host: str, mount: str) -> bool:
    """Whether an adaptor has a mount in one of the virtual hosts of `files`."""
    return not numbers(dump, host).isdisjoint(apache_check.hosts_of_adaptor(dump, mount))


def any_is_there(dump: str) -> bool:
    return any(one.host for one in directives(dump))


def includes(file: str) -> str:
    """The directive that includes a file."""
    return f"Include {file}"


def application_lines(text: str) -> list[str]:
    """The lines of a file that include applications."""
    return [line.strip() for line in text.splitlines() if _APPLICATION(line)]


def without_applications(text: str) -> str:
    """A file without those lines."""
    return "".join(line for line in text.splitlines(keepends=True) if not _APPLICATION(line))


def made(host: str, port: int, lines: Iterable[str]) -> str:
    """A virtual host with these lines."""
    head = f"# The applications of lbadaptor on {host}; written by `lbctl install`."
    rows = (f"    {line}\n" for line in (f"ServerName {host}", *lines))
    return f"{head}\n<VirtualHost *:{port}>\n{''.join(rows)}</VirtualHost>\n"


def with_include(text: str, host: str, line: str, before: Collection[str] = ()) -> str:
    """A file in which all virtual hosts of `files` have a line, which stands as late as it can.

    `before`: lines that it has to stand before. The text is the same if there is no such virtual host.
    """
    lines = text.splitlines(keepends=True)
    for begin, end in reversed(list(_sections(lines))):
        section = [one.strip() for one in lines[begin:end]]
        if (host and not _has_name(section, host)) or line in section:
            continue
        place = next((number for number, one in enumerate(section, begin) if one in before), end)
        other = next((one for one in lines[begin + 1 : end] if one.strip()), "    ")
        indent = other[: len(other) - len(other.lstrip(" \t"))]
        lines.insert(place, f"{indent}{line}\n")
    return "".join(lines)


def without_include(text: str, line: str) -> str:
    """A file without this line."""
    return "".join(one for one in text.splitlines(keepends=True) if one.strip() != line)


def _sections(lines: list[str]) -> Iterator[tuple[int, int]]:
    """The places of the first and the last line of each virtual host."""
    begin = -1
    for number, line in enumerate(lines):
        if _BEGIN(line):
            begin = number
        elif _END(line) and begin >= 0:
            yield begin, number
            begin = -1


def _has_name(section: list[str], host: str) -> bool:
    return any(host.lower() in map(_name, found[1].split()) for one in section if (found := _NAMES(one)))


def _is_of(one: Directive, host: str) -> bool:
    if host:
        return one.name in ("servername", "serveralias") and host.lower() in map(_name, one.words)
    return Path(one.place.file).name in DEBIANS_SITES


def _name(word: str) -> str:
    """A host's name without scheme and port."""
    return word.strip("\"'").lower().rpartition("://")[2].partition(":")[0]
