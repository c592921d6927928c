"""Reads systemd's units and their drop-ins (systemd.unit(5)), without a systemd that runs."""

from __future__ import annotations

import os
import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

FOLDERS = ("/etc/systemd/system", "/run/systemd/system", "/usr/local/lib/systemd/system", "/usr/lib/systemd/system")
"""In their order: a file in an earlier one hides that of the same name in a later one."""
TMPFILES = ("/etc/tmpfiles.d", "/run/tmpfiles.d", "/usr/local/lib/tmpfiles.d", "/usr/lib/tmpfiles.d")
MAX_BYTES = 1 << 20
_UNITS = {
    **dict.fromkeys(("us", "usec", "µs"), 1e-6),
    **dict.fromkeys(("ms", "msec"), 1e-3),
    **dict.fromkeys(("", "s", "sec", "second", "seconds"), 1.0),
    **dict.fromkeys(("m", "min", "minute", "minutes"), 60.0),
    **dict.fromkeys(("h", "hr", "hour", "hours"), 3600.0),
    **dict.fromkeys(("d", "day", "days"), 86400.0),
    **dict.fromkeys(("w", "week", "weeks"), 604800.0),
}


@dataclass(frozen=True)
class Row:
    """One line of a unit or drop-in, and the file that it is in."""

    value: str
    file: str


@dataclass(frozen=True)
class Unit:
    """A service, with its drop-ins."""

    name: str
    rows: dict[str, list[Row]] = field(default_factory=dict)
    """of [Service], by key, in the order in which systemd reads them"""

    def last(self, key: str) -> Row | None:
        """What counts where the last one does."""
        rows = self.rows.get(key)
        return rows[-1] if rows else None

    def all(self, key: str) -> list[Row]:
        """What counts where lines add up: an empty value takes back those before it."""
        found: list[Row] = []
        for row in self.rows.get(key, []):
            found = [*found, row] if row.value else []
        return found


def of(config: Path, root: Path = Path("/")) -> Unit | None:
    """The unit that runs a monitor with this lbadaptor.toml; None: there is none. Raises OSError."""
    candidates = ("lbadaptor.service", f"lbadaptor@{config.stem}.service")
    units = (read(name, root) for name in candidates)
    return next((unit for unit in units if unit and _runs(unit, config)), None)


def of_apache(root: Path = Path("/")) -> Unit | None:
    """Raises OSError."""
    return next((unit for name in ("apache2.service", "httpd.service") if (unit := read(name, root))), None)


def read(name: str, root: Path = Path("/")) -> Unit | None:
    """A unit by its name, such as lbadaptor@shop.service. Raises OSError."""
    template, instance = name, ""
    if "@" in name:
        before, _, instance = name.removesuffix(".service").partition("@")
        template = f"{before}@.service"
    folders = [root / folder.lstrip("/") for folder in FOLDERS]
    fragment = next((place for one in (name, template) for f in folders if (place := f / one).is_file()), None)
    if fragment is None:
        return None
    drop_ins: dict[str, Path] = {}
    for one in dict.fromkeys((name, template)):
        for folder in folders:
            for file in sorted(folder.glob(f"{one}.d/*.conf")):
                drop_ins.setdefault(file.name, file)
    unit = Unit(name)
    for file in (fragment, *(drop_ins[key] for key in sorted(drop_ins))):
        with open(file, encoding="utf-8", errors="replace") as text:
            for key, value in parse(text.read(MAX_BYTES)):
                unit.rows.setdefault(key, []).append(Row(value.replace("%i", instance), str(file)))
    return unit


def is_enabled(name: str, root: Path = Path("/")) -> bool:
    """Whether something starts it at boot: a link in a folder `*.wants` or `*.requires`."""
    return any(
        os.path.lexists(target / name)
        for folder in FOLDERS
        for ending in ("wants", "requires")
        for target in (root / folder.lstrip("/")).glob(f"*.{ending}")
    )


def parse(text: str) -> Iterator[tuple[str, str]]:
    """Keys and values of [Service]. Pure."""
    section = ""
    for line in re.sub(r"\\\n", " ", text).splitlines():
        line = line.strip()
        if line.startswith("["):
            section = line
        elif section == "[Service]" and line and line[0] not in "#;":
            key, _, value = line.partition("=")
            yield key.strip(), value.strip()


def seconds(span: str) -> float | None:
    """A time span (systemd.time(7)); infinity for one without an end, None for what is none. Pure."""
    if span.strip() in ("infinity", "0"):
        return float("inf")
    parts = re.findall(r"([\d.]+)\s*([a-zµ]*)", span)
    try:
        return sum(float(number) * _UNITS[unit] for number, unit in parts) if parts else None
    except (KeyError, ValueError):
        return None


def tmpfiles(root: Path = Path("/")) -> dict[str, str]:
    """The lines of tmpfiles.d(5) by the path that each makes, from files that count. Raises OSError."""
    files: dict[str, Path] = {}
    for folder in TMPFILES:
        for file in (root / folder.lstrip("/")).glob("*.conf"):
            files.setdefault(file.name, file)
    found: dict[str, str] = {}
    for file in files.values():
        with open(file, encoding="utf-8", errors="replace") as text:
            for line in text.read(MAX_BYTES).splitlines():
                words = line.split()
                if len(words) > 1 and words[0][0] in "dDfF":
                    found.setdefault(words[1].replace("/var/run/", "/run/"), str(file))
    return found


def program(command: str) -> str:
    """The program of ExecStart=, without the signs before it; empty: there is none. Pure."""
    try:
        return shlex.split(command)[0].lstrip("@-:+!")
    except (ValueError, IndexError):
        return ""


def _runs(unit: Unit, config: Path) -> bool:
    return any(_config(row.value) == os.path.realpath(config) for row in unit.all("ExecStart"))


def _config(command: str) -> str:
    """The lbadaptor.toml of a command, with links followed; empty: it has none."""
    try:
        words = shlex.split(command)
    except ValueError:
        return ""
    for word, following in zip(words, [*words[1:], ""], strict=True):
        if word == "--config":
            return os.path.realpath(following)
        if word.startswith("--config="):
            return os.path.realpath(word.partition("=")[2])
    return ""
