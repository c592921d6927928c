"""The section [files]."""

from __future__ import annotations

from typing import Annotated

from msgspec import Struct

from lbadaptor.contract.settings.sections.row import RESTART, RESTART_AND_APACHE, row


class Files(Struct, forbid_unknown_fields=True, frozen=True):
    """[files]: where things are. A relative path begins at the folder of lbadaptor.toml."""

    run_folder: Annotated[
        str,
        row(
            RESTART_AND_APACHE,
            "The folder of address.text, the control socket and the monitor's lock; best in memory (tmpfs).",
        ),
    ] = "/run/lbadaptor"
    key_file: Annotated[
        str,
        row(
            RESTART,
            "The file of the master secret, from which tickets and keys are made. The monitor makes it on "
            "first use, with mode 0640.",
        ),
    ] = "/var/lib/lbadaptor/keys"
    apache_group: Annotated[
        str,
        row(RESTART,
            "The group that Apache runs in. address.text and a new key file get this group, so that the adaptor can "
            "read them. Empty: they get the monitor's group."),
    ] = ""  # fmt: skip
    status_group: Annotated[
        str,
        row(RESTART,
            "The group whose members may look at the monitor, and give no orders: for them there is a second socket, "
            "`status.sock` in the run folder. Empty: only root and the monitor's own user may look."),
    ] = ""  # fmt: skip
