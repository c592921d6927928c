"""Reads what httpd tells of itself (`-t -D DUMP_CONFIG -D DUMP_MODULES`, the former by mod_info). Pure.

It has one directive a line, includes and definitions resolved, with file and line in comments before it; then the
modules.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

_FILE = re.compile(r"# In file: (.*)").fullmatch
_LINE = re.compile(r"#\s*(\d+):").fullmatch
_WORD = re.compile(r"""(["'])((?:(?!\1)[^\\]|\\.)*)(?:\1|$)|(\S+)""", re.ASCII)
_SPACES = " \t\r\v\f"
"""To Apache, as the lines' ends are. White space beyond ASCII may stand in a path."""
_MODULE = re.compile(r" ?(\w+)_module \((?:static|shared)\)")


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
class Directive:
    place: Place
    name: str
    """in lower case"""
    words: list[str]
    sections: Sequence[tuple[str, list[str]]]
    """the sections around it, outermost first: name in lower case, and words"""
    host: int
    """tells virtual hosts apart; 0 is the server around them"""

    def within(self, *names: str) -> bool:
        """Whether a section of one of these names is around it."""
        return any(name in names for name, _ in self.sections)


def directives(dump: str) -> Iterator[Directive]:
    file, line = "", 0
    host = hosts = 0
    sections: list[tuple[str, str, list[str]]] = []
    for raw in dump.split("\n"):
        text = raw.strip(_SPACES)
        if found := _FILE(text):
            file = found[1]
        elif found := _LINE(text):
            line = int(found[1])
        elif text.startswith("</"):
            if sections and sections.pop()[1] == "virtualhost":
                host = 0
        elif text.startswith("<"):
            name, *words = _words(text[1:].removesuffix(">"))
            sections.append((text.replace(" >", ">"), name.lower(), words))
            if name.lower() == "virtualhost":
                host = hosts = hosts + 1
        elif text and not text.startswith("#") and text != "Loaded Modules:" and not _MODULE.fullmatch(text):
            name, *words = _words(text)
            place = Place(file, line, " ".join(written for written, _, _ in sections), text)
            yield Directive(place, name.lower(), words, [(name, words) for _, name, words in sections], host)


def modules(dump: str) -> frozenset[str]:
    """The names of the modules that are loaded, without `_module`."""
    return frozenset(found[1] for line in dump.split("\n") if (found := _MODULE.fullmatch(line)))


def _words(text: str) -> list[str]:
    """As ap_getword_conf reads them: a backslash counts before another one, and before the quote around a word."""
    return [
        re.sub(rf"\\([\\{quote}])", r"\1", quoted if quote else word) for quote, quoted, word in _WORD.findall(text)
    ] or [""]
