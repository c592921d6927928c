"""Writes available.text: the AppServers that Apache itself may choose for visitors without a ticket.

mod_rewrite's `RewriteMap rnd:` reads it. The first line's key is the name of the ticket cookie, and its value names
slots, of which mod_rewrite takes one at random. Each slot has a line of its own with all that the request needs::

    __PRT__  0|0|0|1|1|2|3
    0  127.0.0.1:9000;CALLERKEY;0;1763805600123
"""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping
from pathlib import Path

from lbadaptor.contract.address import Entry, State
from lbadaptor.contract.errors import KeyFileError
from monitor.arbiter.files.atomic_file import AtomicFile
from monitor.policy import available

SHARES_INTERVAL = 1.0
"""Seconds between two writes, at least, if only shares have changed."""
MAX_LINE = 1000
"""Characters of a line: mod_rewrite ignores what is beyond REWRITE_MAX_TXT_MAP_LINE, 1024 bytes."""
_MODE = 0o640
_TITLE = (
    "# AppServers for visitors without a ticket, by weight and load: a secret of Apache's. Written along with "
    "address.text.\n"
)


class Available:
    """Writes available.text. `group` is Apache's, by number; None leaves the monitor's own.

    `key` returns the caller's key of a ticket; it raises KeyFileError for a ticket that is not ours. `shares` returns
    each slot's share of the first visits; its argument is monotonic seconds.
    """

    def __init__(
        self,
        path: Path,
        group: int | None,
        key: Callable[[str], str],
        shares: Callable[[float], Mapping[int, float]],
    ) -> None:
        self._file = AtomicFile(path, _MODE, group)
        self._key = key
        self._shares = shares
        self._lines: dict[str, str] = {}
        """of each AppServer, by ticket; empty: its key is unknown"""
        self._written: tuple[str, tuple[str, ...]] | None = None
        """the ticket cookie, and the tickets of the AppServers"""
        self._counts: dict[int, int] = {}
        """how often each slot is named, or was to be named if the line had had room"""
        self._written_at = self._looked_at = float("-inf")
        """when the file was written, and the shares were looked at; monotonic seconds"""

    def keep(self, cookie: str, entries: tuple[Entry, ...], now: float, heartbeat: float) -> None:
        """Write the file at once if other AppServers are OK or it was written `heartbeat` seconds ago, and a little
        later if only shares have changed.

        `cookie`: the name of the ticket cookie; empty: no first visit may take the fast lane now. `now` is monotonic
        seconds. Raises OSError; the old file stays then.
        """
        chosen = [entry for entry in entries if entry.state is State.OK] if cookie else []
        content = cookie, tuple([entry.ticket for entry in chosen])
        due = content != self._written or now - self._written_at >= heartbeat or not self._file.intact()
        if not due and now - self._looked_at < SHARES_INTERVAL:
            return
        self._looked_at = now
        self._lines = {entry.ticket: self._lines.get(entry.ticket) or self._line(entry) for entry in chosen}
        lines = {entry.identity.slot: text for entry in chosen if (text := self._lines[entry.ticket])}
        shares = self._shares(now) if lines else {}
        counts = available.counts({slot: share for slot, share in shares.items() if slot in lines})
        if due or counts != self._counts:
            self._file.write("".join((_TITLE, *_first_line(cookie, counts), *lines.values())).encode())
            self._written, self._counts, self._written_at = content, counts, now

    def _line(self, entry: Entry) -> str:
        try:
            key = self._key(entry.ticket)
        except KeyFileError:
            return ""  # no adaptor reaches it either
        slot, generation = entry.identity
        return f"{slot}  {entry.address};{key};{slot};{generation}\n"


def _first_line(cookie: str, counts: Mapping[int, int]) -> list[str]:
    """The line that names the slots; none if no AppServer may be chosen."""
    start = f"{cookie}  "
    names = available.line(counts, MAX_LINE - len(start), random.random())
    return [f"{start}{names}\n"] if names else []
