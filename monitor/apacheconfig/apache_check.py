"""Checks Apache's configuration for what does not work with the fast lane. Pure.

Above all that is authorisation by folder or file, which mod_proxy does not apply. The configuration comes from httpd
itself (`-t -D DUMP_CONFIG`, mod_info): one directive a line, includes and definitions resolved, with file and line in
comments before it.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase

_FILE = re.compile(r"# In file: (.*)").fullmatch
_LINE = re.compile(r"#\s*(\d+):").fullmatch
_WORD = re.compile(r'"((?:[^"\\]|\\.)*)"|(\S+)')
_BY_FOLDER = ("directory", "directorymatch", "files", "filesmatch")
_BY_URL = ("location", "locationmatch", "proxy", "proxymatch")
_AUTHORISING = ("sslrequire", "sslrequiressl", "wsgiaccessscript", "wsgiauthuserscript", "wsgiauthgroupscript")
_PATH_DIRECTIVES = (
    "alias",
    "scriptalias",
    "wsgiscriptalias",
    "redirect",
    "redirectpermanent",
    "redirecttemp",
    "proxypass",
)
_PATH_PATTERN_DIRECTIVES = (
    "aliasmatch",
    "scriptaliasmatch",
    "wsgiscriptaliasmatch",
    "redirectmatch",
    "proxypassmatch",
)
_OUR_SCRIPT = re.compile(r"\^(?:\\Q(.*)\\E)?\S* .*/lbadaptor\.wsgi\b").match
_STATUSES = ("421", "502", "503")


@dataclass(frozen=True)
class Place:
    """A directive, and where it is."""

    file: str
    line: int
    sections: str
    """the sections around it, outermost first, as they are written"""
    directive: str

    def __str__(self) -> str:
        return f"{self.file}, line {self.line}: {self.sections} {self.directive}".replace("  ", " ")


@dataclass(frozen=True)
class _Directive:
    place: Place
    name: str
    words: list[str]
    sections: Sequence[tuple[str, list[str]]]
    """the sections around it, outermost first: name in lower case, and words"""


def by_folder(dump: str, folder: str, file: str) -> list[Place]:
    """The directives that authorise access to a file in a folder, in a <Directory> or <Files> that covers the file.

    Directives that grant or deny access to everybody do not count: they do not distinguish visitors.
    """
    return [
        one.place
        for one in _directives(dump)
        if any(name in _BY_FOLDER for name, _ in one.sections)
        and not any(name in _BY_URL for name, _ in one.sections)
        and all(_covers(name, words, folder, file) for name, words in one.sections)
        and authorises(one.name, one.words)
    ]


def with_htaccess(dump: str, folder: str, file: str) -> list[str]:
    """Folders above a file, its own included, in which a .htaccess counts (AllowOverride)."""
    allowed: dict[str, bool] = {}
    for one in _directives(dump):
        if one.name == "allowoverride" and [name for name, _ in one.sections[-1:]] == ["directory"]:
            name, words = one.sections[-1]
            if _covers(name, words, folder, file) and words:
                allowed[words[0].rstrip("/")] = [word.lower() for word in one.words] != ["none"]
    deepest = sorted(allowed, key=len)
    found = []
    parts = folder.rstrip("/").split("/")
    for place in ("/".join(parts[: number + 1]) for number in range(len(parts))):
        says = [allowed[section] for section in deepest if (place + "/").startswith(section + "/")]
        if says and says[-1]:
            found.append(place or "/")
    return found


def error_documents(dump: str) -> list[Place]:
    """ErrorDocuments in a <Location> that answer in place of the adaptor when an AppServer refuses or is gone."""
    return [
        one.place
        for one in _directives(dump)
        if one.name == "errordocument"
        and one.words[:1]
        and one.words[0] in _STATUSES
        and any(name in ("location", "locationmatch") for name, _ in one.sections)
    ]


def other_paths(dump: str, mount: str) -> list[str]:
    """Regular expressions of paths below a mount that Apache itself or another application serves."""
    found = []
    for one in _directives(dump):
        pattern, prefix = _served_path(one)
        if pattern:
            found.append(rf"[\s\S]*?(?:{pattern})")
        elif prefix.startswith(f"{mount}/") and prefix != f"{mount}/":
            found.append(re.escape(prefix) + ("" if prefix.endswith("/") else "(?:/|$)"))
    return list(dict.fromkeys(found))


def unmerged_slashes(dump: str) -> list[Place]:
    """Directives that keep several slashes in a path: one that comes back from the fast lane would have one more."""
    return [
        one.place
        for one in _directives(dump)
        if one.name == "mergeslashes" and one.words[:1] and one.words[0].lower() == "off"
    ]


def authorises(name: str, words: Sequence[str]) -> bool:
    """Whether a directive distinguishes visitors."""
    said = " ".join(words).lower()
    if name == "require":
        return said not in ("all granted", "all denied")
    if name in ("allow", "deny"):
        return said != "from all"
    if name == "authtype":
        return said != "none"
    if name == "sslverifyclient":
        return said != "none"
    return name in _AUTHORISING


def _served_path(one: _Directive) -> tuple[str, str]:
    """The paths that a directive keeps from the adaptor: a regular expression, or a prefix; both empty for none."""
    by_pattern = one.name in _PATH_PATTERN_DIRECTIVES
    if not by_pattern and one.name not in _PATH_DIRECTIVES and not _handles(one):
        return "", ""
    for name, words in reversed(one.sections):
        if name == "locationmatch" or (name == "location" and words[0] == "~"):
            return words[-1], ""
        if name == "location":
            return "", re.split(r"[*?\[]", words[-1])[0]
    if by_pattern:
        own = _OUR_SCRIPT(" ".join(one.words))
        return ("", own[1] or "") if own else (next((word for word in one.words if not word.isalnum()), ""), "")
    return "", next((word for word in one.words if word.startswith("/")), "")


def _handles(one: _Directive) -> bool:
    return one.name == "sethandler" and [word.lower() for word in one.words] not in (["none"], ["default-handler"])


def _directives(dump: str) -> Iterator[_Directive]:
    file, line = "", 0
    sections: list[tuple[str, str, list[str]]] = []
    for raw in dump.splitlines():
        text = raw.strip()
        if found := _FILE(text):
            file = found[1]
        elif found := _LINE(text):
            line = int(found[1])
        elif text.startswith("</"):
            if sections:
                sections.pop()
        elif text.startswith("<"):
            name, *words = _words(text[1:].removesuffix(">"))
            sections.append((text.replace(" >", ">"), name.lower(), words))
        elif text and not text.startswith("#"):
            name, *words = _words(text)
            place = Place(file, line, " ".join(written for written, _, _ in sections), text)
            yield _Directive(place, name.lower(), words, [(name, words) for _, name, words in sections])


def _words(text: str) -> list[str]:
    return [re.sub(r'\\([\\"])', r"\1", quoted) or plain for quoted, plain in _WORD.findall(text)] or [""]


def _covers(name: str, words: list[str], folder: str, file: str) -> bool:
    """Whether a section may apply to the file; True for sections that are not about folders or files."""
    if name not in _BY_FOLDER or not words:
        return True
    pattern = words[-1]
    if name.endswith("match") or words[0] == "~":
        try:
            return re.search(pattern, f"{folder}/" if name.startswith("directory") else file) is not None
        except re.error:
            return True  # of another dialect: better report it than miss it
    if name == "files":
        return fnmatchcase(file, pattern)
    wanted = [part for part in pattern.split("/") if part]
    there = [part for part in folder.split("/") if part]
    return len(wanted) <= len(there) and all(map(fnmatchcase, there, wanted))
