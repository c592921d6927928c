"""The section [log]."""

from __future__ import annotations

from typing import Annotated, Literal

from msgspec import Struct

from lbadaptor.contract.settings.sections.row import RELEASE, row


class Log(Struct, forbid_unknown_fields=True, frozen=True):
    """[log]: where the lines of AppServers go, and how ([how](../howto/logs.md)). Not what Apache writes."""

    file: Annotated[
        str,
        row(RELEASE,
            "The file that gets the lines of the AppServers. It is opened anew when it was moved away, so that "
            "logrotate needs no signal. The monitor's user makes it, with mode 0640. A relative path begins at the "
            "folder of lbadaptor.toml. Empty: they go where the monitor's own lines go, to its standard error: under "
            "systemd the journal."),
    ] = ""  # fmt: skip
    format: Annotated[
        Literal["text", "json"],
        row(RELEASE, "`json`: each line is an object, those of the monitor itself too."),
    ] = "text"
