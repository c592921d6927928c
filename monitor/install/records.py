"""What was written for each application: /etc/lbadaptor/installed/NAME.json, by which it is taken back."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field

from monitor.install.machine import Machine
from monitor.install.virtual_hosts import without_applications
from monitor.install.wanted import CONFIGS, Refused, Wanted

FOLDER = f"{CONFIGS}/installed"


@dataclass
class Record:
    """Of one application. Several may have the same file; it goes with the last one."""

    wanted: Wanted
    files: dict[str, str] = field(default_factory=dict)
    """by path, the SHA-256 of what was written"""
    includes: list[str] = field(default_factory=list)
    """the administrator's files that got the line which includes the application"""
    unread: bool = False
    """Apache has not read yet what was written"""
    folders: list[str] = field(default_factory=list)
    """those that were made for them, outermost first"""
    modules: list[str] = field(default_factory=list)
    """those of Apache that were enabled, in that order"""


def digest(text: str) -> str:
    """Of a file's content without the lines that include applications: they come and go with these."""
    return hashlib.sha256(without_applications(text).encode()).hexdigest()


class Records:
    """All of a machine. Raises Refused for one that cannot be read."""

    def __init__(self, machine: Machine) -> None:
        self._machine = machine
        self._of: dict[str, Record] = {}
        for file in machine.names(FOLDER):
            name, dot, kind = file.rpartition(".")
            if name and not name.startswith(".") and dot and kind == "json":
                self._of[name] = _read(f"{FOLDER}/{file}", machine.read(f"{FOLDER}/{file}") or "")

    def __iter__(self) -> Iterator[Record]:
        return iter(self._of.values())

    def find(self, name: str) -> Record | None:
        return self._of.get(name)

    def others(self, name: str) -> list[Record]:
        return [record for other, record in self._of.items() if other != name]

    def written(self, path: str) -> set[str]:
        """The digests of what was written to a file, for whichever application."""
        return {record.files[path] for record in self if path in record.files}

    def note(self, record: Record) -> None:
        """Write one. Files that others have, too, are the same for all."""
        self._of[record.wanted.name] = record
        for other in self.others(record.wanted.name):
            shared = {path: record.files[path] for path in other.files.keys() & record.files.keys()}
            if {path: other.files[path] for path in shared} != shared:
                other.files.update(shared)
                self._write(other)
        self._write(record)

    def rewrote(self, record: Record, path: str, text: str) -> None:
        """Note the new content of a file."""
        record.files[path] = digest(text)
        self._write(record)

    def forget(self, name: str) -> None:
        """Remove one. An heir gets what has to be taken back with the last application alone."""
        record = self._of.pop(name)
        if heir := next(iter(self), None):
            heir.modules += [module for module in record.modules if module not in heir.modules]
            left = (folder for folder in record.folders if self._machine.place(folder).exists())
            heir.folders = sorted({*heir.folders, *left})
            self._write(heir)
        self._machine.remove(f"{FOLDER}/{name}.json")

    def _write(self, record: Record) -> None:
        text = json.dumps(asdict(record), indent=2) + "\n"
        made = self._machine.write(f"{FOLDER}/{record.wanted.name}.json", text)
        if made:
            record.folders = sorted({*record.folders, *made})
            self._write(record)


def _read(path: str, text: str) -> Record:
    try:
        found = json.loads(text)
        return Record(**{**found, "wanted": Wanted(**found["wanted"])})
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise Refused(f"{path} is not what `lbctl install` writes: {error}") from None
