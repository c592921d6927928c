"""How long an AppServer that was ordered to stop may take. Pure."""

from __future__ import annotations

MARGIN = 2.0
"""Seconds beyond `stop_grace` that an AppServer may take to exit."""
SAVING_MARGIN = 10.0
"""The same of one whose sessions survive. Requests may be at work until `stop_grace` is over, and their sessions can
be written only then; all AppServers write at once, to one disk; and the files, perhaps tens of thousands, are renamed
into the folder of those that nobody has. Under `survive = "leaving"` what is not written by then is lost."""


def exit_limit(stop_grace: float, saves: bool) -> float:
    """Seconds between the order to stop and SIGKILL. `saves`: its sessions survive."""
    return stop_grace + (SAVING_MARGIN if saves else MARGIN)
