"""The section [sessions]."""

from __future__ import annotations

from typing import Annotated, Literal

from msgspec import Struct

from lbadaptor.contract.settings.sections.row import BYTES, IMPORT_OR_NONE, NEW_APPSERVERS, RESTART, row

NOTHING = "nothing"
Survive = Literal["nothing", "leaving", "anything"]
LEAST_SHARE = 64 * 1024
"""Bytes: what an AppServer may have of `max_bytes` has to be more than a few sessions, each rounded up to 4096."""


class Sessions(Struct, forbid_unknown_fields=True, frozen=True):
    """[sessions]: whether a session outlives the AppServer that holds it."""

    survive: Annotated[
        Survive,
        row(NEW_APPSERVERS,
            "What sessions outlive. `nothing`: a session ends with its AppServer. `leaving`: an AppServer that is "
            "drained or stopped, by an order, a limit or a release, moves its sessions to others, and those of an "
            "orderly stop of everything are found at the next start. `anything`: a kill and a crash, too. Reload "
            "Apache before this is set for the first time after an upgrade."),
    ] = "nothing"  # fmt: skip
    folder: Annotated[
        str,
        row(RESTART,
            "The folder of the session files, on a local disk; in memory (tmpfs) sessions do not outlive a reboot. "
            "The monitor makes it for the AppServers' user alone (mode 0700). Each application needs its own. "
            "Sessions in a former folder are not taken along. A relative path begins at the folder of "
            "lbadaptor.toml."),
    ] = "/var/lib/lbadaptor/sessions"  # fmt: skip
    max_bytes: Annotated[
        int,
        row(NEW_APPSERVERS,
            "How much disk all session files may take, each rounded up to 4096. Each slot has an equal share. A "
            "session for which there is no room is served on, but does not survive.", BYTES, ge=1),
    ] = 4 * 1024**3  # fmt: skip
    max_files: Annotated[
        int,
        row(NEW_APPSERVERS, "How many session files there may be. Each slot has an equal share, at least 1.", ge=1),
    ] = 1_000_000
    save: Annotated[
        str,
        row(NEW_APPSERVERS,
            "For an application with a session store of its own: a function, `module:function`, that gets the "
            "session cookie's value and returns the session as bytes, or None where there is none. With `load`.",
            pattern=IMPORT_OR_NONE),
    ] = ""  # fmt: skip
    load: Annotated[
        str,
        row(NEW_APPSERVERS,
            "The other one: it gets the session cookie's value and these bytes, and puts the session into the store; "
            "with None instead of the bytes it forgets the session, which has moved away.", pattern=IMPORT_OR_NONE),
    ] = ""  # fmt: skip
