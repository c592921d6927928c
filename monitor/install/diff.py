"""What an installation changes, as people read it. Pure."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from monitor.install.plan import File
from monitor.install.records import digest

MOST_LINES = 75
"""Lines of the diff of one file. Only what `lbctl apache-config` writes is longer."""


@dataclass(frozen=True)
class Change:
    """A file of the plan, and what is there."""

    path: str
    before: str | None
    """None: there is no such file"""
    after: str
    kept: bool
    """it is another one than was written here, and stays"""

    @property
    def is_due(self) -> bool:
        return self.before != self.after and not self.kept


def change(file: File, there: str | None, written: Iterable[str], force: bool) -> Change:
    """`there` is the file's content, `written` the digests of what was written to it before.

    A file that somebody else wrote or changed is kept, unless by force.
    """
    foreign = there is not None and digest(there) not in written
    return Change(file.path, there, file.text, foreign and there != file.text and not force)


def shown(changes: Iterable[Change], whole: bool) -> Iterator[str]:
    """Lines of a unified diff, with what is not to be changed named. `whole`: of long files, too."""
    for one in changes:
        if one.kept:
            yield f"{one.path}: kept as it is: it was changed, or written by somebody else; --force replaces it"
        elif one.before == one.after:
            yield f"{one.path}: as it is to be"
        else:
            before = "/dev/null" if one.before is None else one.path
            old = [] if one.before is None else one.before.splitlines()
            lines = list(difflib.unified_diff(old, one.after.splitlines(), before, one.path, lineterm=""))
            yield from lines if whole else lines[:MOST_LINES]
            if not whole and len(lines) > MOST_LINES:
                yield f"… {len(lines) - MOST_LINES} lines more: --dry-run shows all"
