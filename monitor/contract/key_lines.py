"""What stands in a key file, and how a change of the key goes on in it. Pure.

Where there are several machines, a key has three ages. It is *believed* first: it verifies tickets, and does not
sign. When all machines believe it, it signs on one after the other. Then another one does, and it is *old*. When no
AppServer has a ticket of it any more, it is removed. A believed key stands first in the file, for programs of before
verify with all keys and sign with the last.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, replace

from lbadaptor.contract.errors import KeyFileError
from lbadaptor.contract.ticket import SHORTEST_KEY

MOST_KEYS = 8
"""In one file. A forged ticket is checked with each of them."""
LONGEST_KEY = 512
"""Characters."""
_BELIEVED = "# believed: "
_WHAT_BELIEVED_IS = f"{_BELIEVED}the next line verifies tickets, and does not sign before `lbctl rotate-key --sign`"
_EXPORTED = "# exported on {host} with [machine] number = {number}"
_is_exported = re.compile(
    r"# exported on (?P<host>\S{1,255}) with \[machine\] number = (?P<number>\d{1,3})"
).fullmatch
_is_key = re.compile(rf"[!-~]{{{SHORTEST_KEY},{LONGEST_KEY}}}").fullmatch


@dataclass(frozen=True, repr=False)
class KeyLines:
    """The lines of a key file. What changes it returns another one, and raises KeyFileError where it cannot.

    It has no repr, so that no key comes into a log line.
    """

    keys: tuple[str, ...]
    """oldest to newest; the last one signs"""
    believed: str = ""
    """a key that does not sign yet; empty: there is none"""
    comments: tuple[str, ...] = ()

    @property
    def signing(self) -> str:
        return self.keys[-1]

    @property
    def older(self) -> tuple[str, ...]:
        """Keys that signed before."""
        return self.keys[:-1]

    @property
    def all(self) -> frozenset[str]:
        return frozenset((*self.keys, self.believed)) - {""}

    def text(self) -> str:
        """The content of the file."""
        believed = (_WHAT_BELIEVED_IS, self.believed) if self.believed else ()
        return "".join(f"{line}\n" for line in (*self.comments, *believed, *self.keys))

    def add(self, key: str) -> KeyLines:
        """A new key signs at once."""
        return self._bounded(replace(self, keys=(*self.keys, key)))

    def believe(self, key: str) -> KeyLines:
        """A new key is believed."""
        if self.believed:
            raise KeyFileError(
                "a key is believed already: `lbctl rotate-key --sign` makes it sign, when all machines have it"
            )
        return self._bounded(replace(self, believed=key))

    def sign(self) -> KeyLines:
        """The believed key signs."""
        if not self.believed:
            raise KeyFileError(
                "no key is believed. If it signs already, because this command was broken off before: `lbctl reexec` "
                "and `lbctl restart` put it to use. Otherwise `lbctl rotate-key --believe` makes one, and `lbctl key "
                "export` and `import` bring it to the other machines"
            )
        return replace(self, keys=(*self.keys, self.believed), believed="")

    def without_older(self) -> KeyLines:
        """Only the key that signs, and one that is believed."""
        return replace(self, keys=self.keys[-1:])

    def with_those_of(self, other: KeyLines) -> KeyLines:
        """The keys of another machine's file, too.

        The key that signs there signs here. One's own stays in its place if the other machine is behind: it only
        believes that key yet, or does not know it, while the key that signs there is an older one here. What was
        imported once changes nothing the second time.
        """
        if self.believed and other.believed not in ("", *self.all) and self.believed not in other.all:
            raise KeyFileError(
                "another key is believed here than there: two changes are under way. End this machine's first: "
                "`lbctl rotate-key --sign`, and `lbctl key export` to the others"
            )
        behind = self.signing == other.believed or (other.signing in self.older and self.signing not in other.all)
        signing = self.signing if behind else other.signing
        known = dict.fromkeys((*self.keys, *other.keys))
        believed = next((one for one in (other.believed, self.believed) if one and one not in known), "")
        older = (key for key in known if key != signing)
        return self._bounded(replace(self, keys=(*older, signing), believed=believed))

    def _bounded(self, found: KeyLines) -> KeyLines:
        if len(found.all) > MOST_KEYS:
            raise KeyFileError(
                f"there would be {len(found.all)} keys, and {MOST_KEYS} are allowed: `lbctl rotate-key --finish` "
                "removes those that are needed no more"
            )
        return found


def parse(text: str) -> KeyLines:
    """Read a key file that `ticket.read_keys` can read."""
    keys: list[str] = []
    comments: list[str] = []
    believed, next_is_believed = "", False
    for line in text.splitlines():
        if line.startswith("#"):
            next_is_believed = not keys and line.startswith(_BELIEVED)
            if not line.startswith(_BELIEVED):
                comments.append(line)
        elif key := line.strip():
            if next_is_believed:
                believed = key
            else:
                keys.append(key)
            next_is_believed = False
    if not keys:  # then that key does sign
        keys, believed = [believed], ""
    believed = "" if believed in keys else believed
    once = reversed(dict.fromkeys(reversed(keys)))  # the last line signs, wherever else it stands
    return KeyLines(tuple(once), believed, tuple(comments))


def parse_strictly(data: bytes) -> KeyLines:
    """Read what another machine has exported. Raises KeyFileError, which names the line and never shows a key."""
    try:
        text = data.decode("ascii")
    except UnicodeDecodeError as error:
        place = data[: error.start].count(b"\n") + 1
        raise KeyFileError(f"line {place}: not plain ASCII text") from None
    lines = text.split("\n")
    if lines.pop():
        raise KeyFileError(f"line {len(lines) + 1} has no end: a part is missing")
    found = 0
    for number, line in enumerate(lines, 1):
        if line.startswith("#") and not line.isprintable():  # readers end a line at other characters, too
            raise KeyFileError(f"line {number} has a control character")
        if line and not line.startswith("#"):
            found += 1
            if not _is_key(line):
                raise KeyFileError(
                    f"line {number} is no key: expected {SHORTEST_KEY} to {LONGEST_KEY} characters without blanks"
                )
    if not found:
        raise KeyFileError("there is no key in it")
    if found > MOST_KEYS:
        raise KeyFileError(f"there are {found} keys in it, and {MOST_KEYS} are allowed")
    return parse(text)


def exported(lines: KeyLines, host: str, number: int) -> str:
    """The text for other machines. `number`: of this one; below 0: it has none."""
    comment = (_EXPORTED.format(host=host, number=number),) if number >= 0 else ()
    return replace(lines, comments=comment).text()


def exporter(comments: Iterable[str]) -> tuple[str, int] | None:
    """Host and number of the machine that exported this; None if it does not say."""
    found = next(filter(None, map(_is_exported, comments)), None)
    return (found["host"], int(found["number"])) if found else None
